"""Elect one process of several through the control database, and fence those that were it.

No two clocks are compared. A holder counts its lease from before it renewed, on its own monotonic
clock; another one takes over when it has seen the same beat for a whole lease, on its own. So a
clock that is wrong, or set, makes no second leader; only one that runs at another speed could,
and for that every change is fenced: it names the epoch under which it is made, in the transaction
that makes it, and an epoch that is over is refused.

Source: DESIGN section 2, "one leader, elected through the database"; RELIABILITY F6; ADR 0053.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection, RowMapping, insert, select, update

from detent.adapters.control_database import ControlDatabase
from detent.adapters.control_tables import LEADER_LEASES
from detent.contracts.checks import check_name
from detent.contracts.errors import LeaderDeposed

LEASE_S = 3.0
# So often within a lease that two renewals may fail.
RENEWALS = 3
NOBODY = ""


class LeaderLease:
    """Holds one process's claim to a task; not for use from several threads."""

    def __init__(
        self,
        database: ControlDatabase,
        *,
        name: str,
        holder: str,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Claim nothing yet.

        Args:
            database: The control database.
            name: The task.
            holder: This process and no other, ever: a restart has another name.
            lease_s: How long a leader that says nothing stays leader.
            clock: Monotonic, seconds.
        """
        check_name("name", name)
        check_name("holder", holder)
        self._database = database
        self._name = name
        self._holder = holder
        self._lease_s = lease_s
        self._clock = clock
        self._ends_s = clock()
        self._seen: tuple[int, int] | None = None
        self._seen_s = 0.0
        self._due_s = clock()
        self.epoch = 0

    @property
    def is_leader(self) -> bool:
        """Say whether this process may act now."""
        return self.epoch > 0 and self._clock() < self._ends_s

    @property
    def renew_every_s(self) -> float:
        """Give the time between two claims."""
        return self._lease_s / RENEWALS

    def keep(self) -> bool:
        """Claim when it is time to; says whether the epoch of this process became another.

        Raises:
            ControlUnavailable: As for `claim`.
        """
        before, now_s = self.epoch, self._clock()
        if now_s >= self._due_s:
            self._due_s = now_s + self.renew_every_s
            self.claim()
        return self.epoch != before

    def claim(self) -> bool:
        """Renew the lease, or take it where nobody holds it any more; says `is_leader`.

        Raises:
            ControlUnavailable: The database cannot be used; a lease that is held runs on.
        """
        begun_s = self._clock()
        with self._database.writing() as link:
            row = _find(link, self._name)
            epoch = self._next_epoch(row)
            if epoch is not None:
                _write(link, self._name, self._holder, epoch, row)
        if epoch is None:
            assert row is not None
            seen = (int(row["epoch"]), int(row["beat"]))
            if seen != self._seen:
                self._seen, self._seen_s = seen, self._clock()
            self.epoch = 0
        else:
            self.epoch, self._ends_s = epoch, begun_s + self._lease_s
        return self.is_leader

    def _next_epoch(self, row: RowMapping | None) -> int | None:
        """Give the epoch to claim under, or None while somebody else leads."""
        if row is None:
            return 1
        epoch = int(row["epoch"])
        if row["holder"] == self._holder and epoch == self.epoch:
            return epoch
        is_same = self._seen == (epoch, int(row["beat"]))
        is_over = is_same and self._clock() - self._seen_s >= self._lease_s
        return epoch + 1 if is_over or row["holder"] == NOBODY else None

    def check(self, link: Connection) -> None:
        """Refuse what this process would do in a transaction, unless it leads by the database.

        Raises:
            LeaderDeposed: Another process has led since, or nobody ever did.
        """
        row = _find(link, self._name)
        held = (row["holder"], int(row["epoch"])) if row is not None else (NOBODY, 0)
        if held != (self._holder, self.epoch):
            raise LeaderDeposed(self._name, epoch=self.epoch, newest=held[1])

    def resign(self) -> None:
        """Let another process take over at once; without a lease it does nothing.

        Raises:
            ControlUnavailable: The database cannot be used; then the lease runs out.
        """
        if not self.epoch:
            return
        with self._database.writing() as link:
            row = _find(link, self._name)
            if row is not None and (row["holder"], row["epoch"]) == (self._holder, self.epoch):
                _write(link, self._name, NOBODY, self.epoch, row)
        self.epoch = 0


def _find(link: Connection, name: str) -> RowMapping | None:
    return (
        link.execute(select(LEADER_LEASES).where(LEADER_LEASES.c.name == name)).mappings().first()
    )


def _write(link: Connection, name: str, holder: str, epoch: int, row: RowMapping | None) -> None:
    facts = {"holder": holder, "epoch": epoch, "renewed_ms": time.time_ns() // 1_000_000}
    if row is None:
        link.execute(insert(LEADER_LEASES).values(name=name, beat=1, **facts))
    else:
        changed = update(LEADER_LEASES).where(LEADER_LEASES.c.name == name)
        link.execute(changed.values(beat=int(row["beat"]) + 1, **facts))
