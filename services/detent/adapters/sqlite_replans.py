"""Keep what becomes of replans beside the plans, in the ledger's file."""

from collections.abc import Sequence

import msgspec

from detent.adapters.sqlite_file import SqliteFile, Statement
from detent.adapters.sqlite_ledger import written_of
from detent.adapters.sqlite_schema import BY_HASH
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.json_codec import from_json
from detent.contracts.replanning import CarriedState, ReplanOutcome
from detent.contracts.rollout import base_plan_id
from detent.core.ledger.record import carried_from
from detent.core.replanning.entry import ReplanEntry

COLUMNS = "at_ms, book, plan_id, new_plan_id, ts_ms, outcome, reason, material_hash, canonical"
_ADD = f"INTO replans ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Asked for in parts: a statement names no more values than SQLite allows in any version.
HASHES_PER_READ = 200


class ReplanKey(msgspec.Struct, frozen=True, kw_only=True):
    """Tells one replan from another: what comes again under it is a repetition."""

    plan_id: str
    new_plan_id: str
    ts_ms: int
    material_hash: str


class SqliteReplans:
    """Holds what became of replans; every write is durable when it returns."""

    def __init__(self, file: SqliteFile) -> None:
        """Share the file, its thread and its commits with the ledger."""
        self._file = file

    def adding(self, entry: ReplanEntry, *, at_ms: int) -> Statement:
        """Give the statement that notes a replan, to be written with what it did."""
        return (f"INSERT {_ADD}", [_row(entry, at_ms)])

    async def add(self, entry: ReplanEntry, *, at_ms: int) -> None:
        """Note a replan that did nothing else."""
        await self._file.write([self.adding(entry, at_ms=at_ms)])

    async def add_new(self, entries: Sequence[ReplanEntry], *, at_ms: int) -> int:
        """Note replans, those that are known left out, and give how many were new."""
        count = "SELECT COUNT(*) FROM replans WHERE plan_id = ?"
        plan_id = (entries[0].plan_id,)
        before = await self._file.read(count, plan_id)
        await self._file.write([(f"INSERT OR IGNORE {_ADD}", [_row(e, at_ms) for e in entries])])
        after = await self._file.read(count, plan_id)
        return int(after[0][0]) - int(before[0][0])

    async def find(self, key: ReplanKey) -> ReplanEntry | None:
        """Give what became of a replan that was asked for before."""
        rows = await self._file.read(
            "SELECT canonical FROM replans WHERE plan_id = ? AND new_plan_id = ? AND ts_ms = ?"
            " AND material_hash = ?",
            (key.plan_id, key.new_plan_id, key.ts_ms, key.material_hash),
        )
        return _entry(str(rows[0][0])) if rows else None

    async def predecessor(self, plan_id: str) -> ReplanEntry | None:
        """Give the replan that a plan came from, or None for one that was opened by itself.

        Both arms of a rollout came from one, under the name of the stable one.
        """
        rows = await self._file.read(
            "SELECT canonical FROM replans WHERE new_plan_id = ? AND outcome = ?",
            (base_plan_id(plan_id), ReplanOutcome.REPLACED.value),
        )
        return _entry(str(rows[0][0])) if rows else None

    async def successor_id(self, plan_id: str) -> str | None:
        """Name the plan that replaced a plan, or None."""
        rows = await self._file.read(
            "SELECT new_plan_id FROM replans WHERE plan_id = ? AND outcome = ?",
            (base_plan_id(plan_id), ReplanOutcome.REPLACED.value),
        )
        return str(rows[0][0]) if rows else None

    async def is_decided(self, book: str, symbol: str, ts_ms: int) -> bool:
        """Say whether any plan of a book has a regular decision of a symbol's bar."""
        rows = await self._file.read(
            "SELECT 1 FROM decision_records WHERE ts_ms = ? AND symbol = ? AND kind = ?"
            " AND plan_id IN (SELECT plan_id FROM plan_log WHERE book = ? AND event = 'opened')",
            (ts_ms, symbol, DecisionKind.BAR.value, book),
        )
        return bool(rows)

    async def carried(self, plan_id: str) -> dict[str, CarriedState]:
        """Give what a plan took over, by symbol, read from the records that it cites.

        Of an arm of a rollout that is what both arms took over.
        """
        entry = await self.predecessor(plan_id)
        hashes = [one.record_hash for one in entry.carried] if entry is not None else []
        found: dict[str, CarriedState] = {}
        for start in range(0, len(hashes), HASHES_PER_READ):
            part = hashes[start : start + HASHES_PER_READ]
            places = ", ".join("?" * len(part))
            rows = await self._file.read(
                f"{BY_HASH} IN ({places})",
                [one[:16] for one in part],
            )
            for row in rows:
                if row[1] in part:
                    written = written_of(row)
                    found[written.record.row.symbol] = carried_from(
                        written.record, written.record_hash
                    )
        return found


def _entry(canonical: str) -> ReplanEntry:
    return from_json(ReplanEntry, parse_json("replan", canonical.encode()))


def _row(entry: ReplanEntry, at_ms: int) -> tuple[object, ...]:
    return (
        at_ms,
        entry.book,
        entry.plan_id,
        entry.new_plan_id,
        entry.ts_ms,
        entry.outcome.value,
        entry.skip_reason.value if entry.skip_reason is not None else "",
        entry.material_hash,
        entry.canonical.decode("ascii"),
    )
