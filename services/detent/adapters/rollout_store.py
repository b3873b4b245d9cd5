"""Keep rollouts in the control database: change one, list all, say what was done to them.

A change reads the rollout and writes it alone, over all processes; whoever raises a share names
the revision that it saw. So of two operators who saw the same one, the second is told.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import structs
from sqlalchemy import Connection, delete, func, insert, select

from detent.adapters.control_database import ControlDatabase
from detent.adapters.control_tables import ROLLOUT_HISTORY, ROLLOUT_READERS, ROLLOUTS
from detent.adapters.kill_store import MARGIN_S, wait_for_readers
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.errors import RolloutConflict, RolloutNotFound
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.rollout import LIVE_STAGES, Rollout, RolloutEvent
from detent.core.rollout import changes
from detent.core.rollout.changes import Change, RolloutChange
from detent.core.rollout.kill_state import STALE_S

T = TypeVar("T", Rollout, RolloutEvent)


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a rollback came to hold everywhere.

    Attributes:
        rollout: The rollout as it stands.
        applied_count: Replicas that said that they obey it.
        leased_out_count: Replicas that said nothing within the lease.
    """

    rollout: Rollout
    applied_count: int
    leased_out_count: int


# Raises, in the transaction of a change, where the caller may not make it.
Guard = Callable[[Connection], None]


def wall_clock_ms() -> int:
    """Read the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class RolloutStore:
    """Changes and reads the rollouts of one control database."""

    def __init__(
        self, database: ControlDatabase, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        """Take the database and the clock that holds are reckoned by; nothing is opened yet."""
        self._database = database
        self._now_ms = now_ms

    # Changes

    def start(self, rollout: Rollout, *, actor: str, reason: str) -> Rollout:
        """Start a rollout, in shadow; the same one again changes nothing.

        A promoted rollout of the book ends with it.

        Raises:
            RolloutConflict: The name was used for another one, or one of the book is under way.
            RolloutArmEmpty: Its first share above nothing gives the candidate no symbol.
            ControlUnavailable: The database cannot be used.
        """
        change = self._change(actor, reason)
        begun = changes.started(rollout, change)
        with self._database.writing() as link:
            known = _find(link, rollout.rollout_id)
            if known is not None:
                return _same(known, begun.rollout)
            for live in read_rollouts(link):
                if live.book == rollout.book and live.stage in LIVE_STAGES:
                    _write(link, changes.ended(live, change))
            return _write(link, begun)

    def set_percent(
        self,
        rollout_id: str,
        canary_bps: int,
        *,
        seen_revision: int,
        actor: str,
        reason: str,
        override_reason: str | None = None,
        evidence: str = "",
        guard: Guard | None = None,
    ) -> Rollout:
        """Set the candidate's share of the symbols.

        Raises:
            DetentError: As `core.rollout.changes.percent_set`; or there is no such rollout, the
                guard refuses (see `roll_back`), or the database cannot be used.
        """
        change = self._change(actor, reason, override_reason, evidence)
        with self._database.writing() as link:
            if guard is not None:
                guard(link)
            rollout = _get(link, rollout_id)
            changed = changes.percent_set(
                rollout, canary_bps, seen_revision=seen_revision, change=change
            )
            return _write(link, changed)

    def promote(
        self,
        rollout_id: str,
        *,
        seen_revision: int,
        actor: str,
        reason: str,
        override_reason: str | None = None,
        evidence: str = "",
    ) -> Rollout:
        """Make the candidate what all symbols use; errors as for `set_percent`."""
        change = self._change(actor, reason, override_reason, evidence)
        with self._database.writing() as link:
            rollout = _get(link, rollout_id)
            changed = changes.promoted(rollout, seen_revision=seen_revision, change=change)
            return _write(link, changed)

    def roll_back(
        self,
        rollout_id: str,
        *,
        actor: str,
        reason: str,
        evidence: str = "",
        guard: Guard | None = None,
    ) -> RolledBack:
        """Take the candidate back and wait until that holds everywhere, a second at most.

        It is taken whatever anybody has seen; again it changes nothing.

        Args:
            rollout_id: Which rollout.
            actor: Who takes it back.
            reason: Why.
            evidence: What that goes by, as JSON; may be empty.
            guard: Raises in the transaction of the change where the caller may not make it, as
                `LeaderLease.check` does; None lets anybody.

        Raises:
            RolloutNotFound: There is no such rollout.
            LeaderDeposed: The guard says so; nothing was changed.
            ControlUnavailable: The database cannot be used.
        """
        change = self._change(actor, reason, None, evidence)
        with self._database.writing() as link:
            if guard is not None:
                guard(link)
            rollout = _get(link, rollout_id)
            changed = changes.rolled_back(rollout, change)
            kept = rollout if changed is None else _write(link, changed)
        applied, leased_out = wait_for_readers(
            self._database,
            kept.revision,
            ends_s=time.monotonic() + STALE_S + MARGIN_S,
            table=ROLLOUT_READERS,
        )
        return RolledBack(rollout=kept, applied_count=applied, leased_out_count=leased_out)

    def _change(
        self, actor: str, reason: str, override_reason: str | None = None, evidence: str = ""
    ) -> Change:
        return Change(
            actor=actor,
            reason=reason,
            at_ms=self._now_ms(),
            override_reason=override_reason,
            evidence=evidence,
        )

    # Readings

    def get(self, rollout_id: str) -> Rollout:
        """Give a rollout as it stands; raises `RolloutNotFound` or `ControlUnavailable`."""
        with self._database.reading() as link:
            return _get(link, rollout_id)

    def rollouts(self, book: str = "") -> list[Rollout]:
        """Give the rollouts of a book, or of all, newest change first."""
        with self._database.reading() as link:
            found = read_rollouts(link)
        return [one for one in reversed(found) if book in ("", one.book)]

    def history(self, rollout_id: str = "") -> list[RolloutEvent]:
        """Give every change of a rollout, or of all, in its order."""
        table = ROLLOUT_HISTORY
        asked = select(table.c.revision, table.c.canonical).order_by(table.c.revision)
        if rollout_id:
            asked = asked.where(table.c.rollout_id == rollout_id)
        with self._database.reading() as link:
            rows = link.execute(asked).all()
        return [
            structs.replace(_read(RolloutEvent, canonical), revision=int(revision))
            for revision, canonical in rows
        ]


def read_rollouts(link: Connection, after_revision: int = 0) -> list[Rollout]:
    """Give the rollouts that changed after a revision, oldest change first."""
    table = ROLLOUTS
    asked = select(table.c.canonical).where(table.c.revision > after_revision)
    rows = link.execute(asked.order_by(table.c.revision)).all()
    return [_read(Rollout, canonical) for (canonical,) in rows]


def newest_revision(link: Connection) -> int:
    """Give the newest change of any rollout; 0 before the first."""
    return int(link.execute(select(func.max(ROLLOUTS.c.revision))).scalar_one() or 0)


def _find(link: Connection, rollout_id: str) -> Rollout | None:
    asked = select(ROLLOUTS.c.canonical).where(ROLLOUTS.c.rollout_id == rollout_id)
    canonical = link.execute(asked).scalar_one_or_none()
    return None if canonical is None else _read(Rollout, canonical)


def _get(link: Connection, rollout_id: str) -> Rollout:
    found = _find(link, rollout_id)
    if found is None:
        raise RolloutNotFound(rollout_id)
    return found


def _same(known: Rollout, asked: Rollout) -> Rollout:
    """Give the known one, if it is what was asked for."""
    as_asked = structs.replace(
        known,
        canary_bps=asked.canary_bps,
        stage=asked.stage,
        since_ms=asked.since_ms,
        revision=asked.revision,
    )
    if as_asked != asked:
        raise RolloutConflict(known.rollout_id, found="a name in use", expected="a new name")
    return known


def _read(kind: type[T], canonical: str) -> T:
    return from_json(kind, parse_json("rollout", str(canonical).encode("ascii")))


def _text(value: Rollout | RolloutEvent) -> str:
    return canonical_bytes(value.SCHEMA, to_json(value)).decode("ascii")


def _write(link: Connection, change: RolloutChange) -> Rollout:
    rollout, event = change.rollout, change.event
    noted = insert(ROLLOUT_HISTORY).values(rollout_id=rollout.rollout_id, canonical=_text(event))
    added = link.execute(noted).inserted_primary_key
    assert added is not None
    kept = structs.replace(rollout, revision=int(added[0]))
    link.execute(delete(ROLLOUTS).where(ROLLOUTS.c.rollout_id == kept.rollout_id))
    link.execute(
        insert(ROLLOUTS).values(
            rollout_id=kept.rollout_id,
            book=kept.book,
            stage=kept.stage.value,
            revision=kept.revision,
            canonical=_text(kept),
        )
    )
    return kept
