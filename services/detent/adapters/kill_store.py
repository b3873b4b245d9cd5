"""Keep kill switches in the control database: change one, list all, say who obeys which.

A reading counts from the instant at which it was begun. So a replica that read a switch before
it changed is stale a second after the change at the latest, whoever knows of that replica: the
readers' table only lets a change be acknowledged sooner, and shows who obeys.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Table, delete, insert, select

from detent.adapters.control_database import ControlDatabase
from detent.adapters.control_tables import KILL_HISTORY, KILL_READERS, KILL_SWITCHES
from detent.contracts.kill_switch import KillPosition, KillReader, KillScope, KillSwitch
from detent.core.rollout.kill_state import STALE_S, newest_of, next_switch

POLL_S = 0.02
# Beyond the lease: what two clocks may differ by in a second, and more.
MARGIN_S = 0.05
# A replica that has said nothing for so long is gone.
GONE_MS = 3_600_000
SWITCH_FIELDS = KillSwitch.__struct_fields__


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a change came to hold everywhere.

    Attributes:
        kill_switch: The switch as it stands.
        applied_count: Replicas that said that they obey it.
        leased_out_count: Replicas that said nothing within the lease.
    """

    kill_switch: KillSwitch
    applied_count: int
    leased_out_count: int


class KillStore:
    """Changes and reads the switches of one control database."""

    def __init__(self, database: ControlDatabase) -> None:
        """Take the database; nothing is opened yet."""
        self._database = database

    def change(
        self,
        scope: KillScope,
        key: str = "",
        *,
        position: KillPosition,
        seen_epoch: int | None = None,
        actor: str,
        reason: str,
    ) -> Acknowledged:
        """Change a switch and wait until that holds everywhere, a second at most.

        Raises:
            KillEpochStale: A release names another epoch than the newest; nothing changed.
            InvalidField: The scope has no such key, or nobody or nothing is named.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.writing() as link:
            switch = next_switch(
                newest_of(switch for switch, _ in read_switches(link)),
                scope=scope,
                key=key,
                position=position,
                seen_epoch=seen_epoch,
                actor=actor,
                reason=reason,
                at_ms=time.time_ns() // 1_000_000,
            )
            revision = _write(link, switch)
        applied, leased_out = wait_for_readers(
            self._database, revision, ends_s=time.monotonic() + STALE_S + MARGIN_S
        )
        return Acknowledged(kill_switch=switch, applied_count=applied, leased_out_count=leased_out)

    def switches(self) -> list[KillSwitch]:
        """Give every switch as it stands, the released ones too.

        Raises:
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return [switch for switch, _ in read_switches(link)]

    def readers(self) -> list[KillReader]:
        """Give what every replica said that it obeys.

        Raises:
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return read_readers(link)

    def history(self) -> list[KillSwitch]:
        """Give every change in its order.

        Raises:
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return [switch for switch, _ in _switches_of(link, KILL_HISTORY, "revision")]


def read_switches(link: Connection) -> list[tuple[KillSwitch, int]]:
    """Give every switch as it stands, each with the change that left it so, in one reading."""
    return _switches_of(link, KILL_SWITCHES, "scope", "key")


def read_readers(link: Connection, table: Table = KILL_READERS) -> list[KillReader]:
    """Give what every replica said that it obeys, of the switches or of the rollouts."""
    rows = link.execute(select(table).order_by("reader_id")).mappings()
    return [KillReader(**row) for row in rows]


def write_reader(link: Connection, reader: KillReader, table: Table = KILL_READERS) -> None:
    """Say what a replica obeys, and forget those that are long gone; commits."""
    mine = table.c.reader_id == reader.reader_id
    gone = table.c.seen_ms < reader.seen_ms - GONE_MS
    link.execute(delete(table).where(mine | gone))
    link.execute(insert(table).values(**msgspec.structs.asdict(reader)))
    link.commit()


def wait_for_readers(
    database: ControlDatabase, revision: int, *, ends_s: float, table: Table = KILL_READERS
) -> tuple[int, int]:
    """Wait until every replica obeys a change, or its lease has run out.

    Returns:
        How many replicas said that they obey it, and how many said nothing.
    """
    with database.reading() as link:
        while True:
            readers = read_readers(link, table)
            link.rollback()
            behind = [reader for reader in readers if reader.revision < revision]
            if not behind or time.monotonic() >= ends_s:
                return len(readers) - len(behind), len(behind)
            time.sleep(POLL_S)


def _switches_of(link: Connection, table: Table, *order: str) -> list[tuple[KillSwitch, int]]:
    rows: Sequence[RowMapping] = link.execute(select(table).order_by(*order)).mappings().all()
    return [(_switch_of(row), int(row["revision"])) for row in rows]


def _switch_of(row: RowMapping) -> KillSwitch:
    facts: dict[str, Any] = {name: row[name] for name in SWITCH_FIELDS}
    facts["scope"] = KillScope(facts["scope"])
    facts["position"] = KillPosition(facts["position"])
    return KillSwitch(**facts)


def _write(link: Connection, switch: KillSwitch) -> int:
    facts = msgspec.structs.asdict(switch)
    added = link.execute(insert(KILL_HISTORY).values(**facts)).inserted_primary_key
    assert added is not None
    revision = int(added[0])
    table = KILL_SWITCHES
    same = (table.c.scope == switch.scope) & (table.c.key == switch.key)
    link.execute(delete(table).where(same))
    link.execute(insert(table).values(revision=revision, **facts))
    return revision
