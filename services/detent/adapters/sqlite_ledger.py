"""Keep plans, records, refusals and late answers in one SQLite file."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detent.adapters.sqlite_file import Durability, Row, SqliteFile
from detent.adapters.sqlite_schema import SCHEMA, SCHEMA_VERSION
from detent.contracts.binding import ModelBinding
from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.decision import DecisionKind, DecisionRecord, LocalAnswer
from detent.contracts.errors import DetentError
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import Plan, PlanStatus, StandDown, StandDownSource
from detent.core.ledger.chain import StoredRecord, Verification, verify_chains
from detent.core.ledger.record import BoundPlan, bind_plan

# As bytes, whatever somebody has put there: an auditor must be able to read all of it.
_STORED = "plan_id, symbol, ts_ms, kind, sequence, record_hash, CAST(canonical AS BLOB)"
_OPENED = "SELECT plan, binding FROM plan_log AS opened WHERE event = 'opened'"
_IS_CLOSED = (
    "EXISTS (SELECT 1 FROM plan_log AS closed"
    " WHERE closed.plan_id = opened.plan_id AND closed.event = 'closed')"
)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs a record with the bytes and the hash that were computed from it once."""

    record: DecisionRecord
    canonical: bytes
    record_hash: str


class BlockEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one refusal: which call, when, why."""

    at_ms: int
    method: str
    plan_id: str
    binding_hash: str
    ts_ms: int | None
    error: DetentError


class StandDownChange(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one change of a scope's stand-down by one source; None lifts it.

    The symbol is empty when the scope is the whole book.
    """

    at_ms: int
    book: str
    symbol: str
    source: StandDownSource
    stand_down: StandDown | None


class SqliteLedger:
    """Owns one ledger file; every write is durable when it returns."""

    def __init__(self, path: Path, durability: Durability = Durability.FULL) -> None:
        """Open or create the file; raises `LedgerUnavailable`."""
        self._file = SqliteFile(path, SCHEMA, schema_version=SCHEMA_VERSION, durability=durability)

    @property
    def file(self) -> SqliteFile:
        """Give the file itself, for what is kept beside the records."""
        return self._file

    async def close(self) -> None:
        """Write what is pending and close the file."""
        await self._file.close()

    # Plans

    async def add_plan_event(self, bound: BoundPlan, status: PlanStatus) -> None:
        """Note that a plan was opened or closed."""
        event = "opened" if status is PlanStatus.OPEN else "closed"
        values = (
            bound.plan.plan_id,
            event,
            bound.plan.book,
            bound.binding_hash,
            _text(Plan.SCHEMA, bound.plan),
            _text(ModelBinding.SCHEMA, bound.binding),
        )
        sql = "INSERT INTO plan_log (plan_id, event, book, binding_hash, plan, binding)"
        await self._file.write([(f"{sql} VALUES (?, ?, ?, ?, ?, ?)", [values])])

    async def open_plans(self) -> list[BoundPlan]:
        """Give the plans that still decide, in the order in which they were opened."""
        rows = await self._file.read(f"{_OPENED} AND NOT {_IS_CLOSED} ORDER BY id")
        return [_bound(row) for row in rows]

    async def find_plan(self, plan_id: str) -> tuple[BoundPlan, PlanStatus] | None:
        """Give a plan by its name, open or closed."""
        sql = _OPENED.replace("plan, binding", f"plan, binding, {_IS_CLOSED}")
        rows = await self._file.read(f"{sql} AND plan_id = ?", (plan_id,))
        if not rows:
            return None
        status = PlanStatus.CLOSED if rows[0][2] else PlanStatus.OPEN
        return _bound(rows[0]), status

    # Records

    async def add_records(self, written: Sequence[Written]) -> None:
        """Make records durable, all or none."""
        sql = (
            "INSERT INTO decision_records (plan_id, symbol, ts_ms, kind, sequence, record_hash,"
            " canonical) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        await self._file.write([(sql, [_record_row(item) for item in written])])

    async def find_record(
        self, *, plan_id: str, symbol: str, ts_ms: int, kind: DecisionKind
    ) -> Written | None:
        """Give the record of one bar, if there is one."""
        sql = "SELECT canonical, record_hash FROM decision_records"
        rows = await self._file.read(
            f"{sql} WHERE plan_id = ? AND symbol = ? AND ts_ms = ? AND kind = ?",
            (plan_id, symbol, ts_ms, kind.value),
        )
        return _written(rows[0]) if rows else None

    async def find_record_by_hash(self, record_hash: str) -> Written | None:
        """Give a record by its hash, if there is one."""
        sql = "SELECT canonical, record_hash FROM decision_records"
        rows = await self._file.read(
            f"{sql} WHERE substr(record_hash, 1, 16) = ? AND record_hash = ?",
            (record_hash[:16], record_hash),
        )
        return _written(rows[0]) if rows else None

    async def last_records(self, plan: Plan) -> list[Written]:
        """Give the last record of every symbol of a plan, as far as there is one."""

        def walk_back(db: sqlite3.Connection) -> list[Row]:
            found: dict[str, Row] = {}
            begun = "SELECT COUNT(*) FROM decision_records WHERE sequence = 0 AND plan_id = ?"
            count = db.execute(begun, (plan.plan_id,)).fetchone()[0]
            sql = "SELECT canonical, record_hash, symbol FROM decision_records WHERE plan_id = ?"
            rows = db.execute(f"{sql} ORDER BY id DESC", (plan.plan_id,)) if count else []
            for row in rows:
                found.setdefault(row[2], row)
                if len(found) == count:
                    break
            return list(found.values())

        return [_written(row) for row in await self._file.use(walk_back)]

    async def closes_between(
        self, plan: Plan, since_ts_ms: int, ts_ms: int
    ) -> dict[str, dict[int, float]]:
        """Give the closes since an instant that a plan knows at a bar, per symbol, oldest first.

        These are its own, that of the bar itself included, and those that other plans of its
        book saw before its first record: what they saw later is not its past.
        """
        first = await self._file.read(
            "SELECT symbol, ts_ms FROM decision_records WHERE sequence = 0 AND plan_id = ?",
            (plan.plan_id,),
        )
        begun: dict[str, int] = dict(first)
        rows = await self._file.read(
            "SELECT plan_id, symbol, ts_ms, json_extract(canonical, '$.row.bar_close')"
            " FROM decision_records WHERE ts_ms BETWEEN ? AND ? AND kind = ? AND plan_id IN"
            " (SELECT plan_id FROM plan_log WHERE book = ? AND event = 'opened')"
            " ORDER BY ts_ms, id",
            (since_ts_ms, ts_ms, DecisionKind.BAR.value, plan.book),
        )
        # A bar that several plans saw counts once, as the last of them saw it.
        seen: dict[str, dict[int, float]] = {}
        for plan_id, symbol, bar_ts_ms, close in rows:
            if plan_id == plan.plan_id or bar_ts_ms < begun.get(symbol, ts_ms):
                seen.setdefault(symbol, {})[bar_ts_ms] = float(close)
        return seen

    async def list_records(self, query: ListDecisionsRequest, after_id: int) -> list[Row]:
        """Give (id, canonical) of a page of records in the order of writing."""
        return await self._file.read(
            "SELECT id, canonical FROM decision_records WHERE id > ?"
            " AND (? = '' OR plan_id = ?) AND (? = '' OR symbol = ?) ORDER BY id LIMIT ?",
            (
                after_id,
                query.plan_id,
                query.plan_id,
                query.symbol,
                query.symbol,
                query.page_size,
            ),
        )

    async def verify(self, plan_id: str) -> Verification:
        """Walk over the chains of one plan, or of all when the name is empty."""
        where = "WHERE ? = '' OR plan_id = ? ORDER BY plan_id, symbol, sequence"

        def walk(db: sqlite3.Connection) -> Verification:
            rows = db.execute(f"SELECT {_STORED} FROM decision_records {where}", (plan_id, plan_id))
            return verify_chains(_stored(row) for row in rows)

        return await self._file.use(walk)

    # Stand-downs

    async def add_stand_downs(self, changes: Sequence[StandDownChange]) -> None:
        """Note what was set and what was lifted, all or nothing."""
        sql = (
            "INSERT INTO stand_downs (at_ms, book, symbol, source, until_ts_ms, reason)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        await self._file.write([(sql, [_stand_down_row(change) for change in changes])])

    async def standing_stand_downs(self) -> list[StandDownChange]:
        """Give what each source set last for each scope and has not lifted."""
        rows = await self._file.read(
            "SELECT at_ms, book, symbol, source, until_ts_ms, reason FROM stand_downs WHERE id IN"
            " (SELECT MAX(id) FROM stand_downs GROUP BY book, symbol, source)"
            " AND until_ts_ms IS NOT NULL ORDER BY id"
        )
        return [_stand_down_change(row) for row in rows]

    # What is not a record

    async def add_block_events(self, refused: Sequence[BlockEvent]) -> None:
        """Note refusals."""
        sql = (
            "INSERT INTO block_events (at_ms, method, reason, plan_id, binding_hash, ts_ms,"
            " message, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        await self._file.write([(sql, [_block_row(event) for event in refused])])

    async def add_late_answers(self, written: Sequence[Written], *, at_ms: int) -> None:
        """Note that recorded answers came too late to be used."""
        sql = (
            "INSERT INTO late_answers (at_ms, plan_id, symbol, ts_ms, kind, record_hash)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        rows = [(at_ms, *_record_row(item)[:4], item.record_hash) for item in written]
        await self._file.write([(sql, rows)])

    async def add_local_answers(self, plan_id: str, answers: Sequence[LocalAnswer]) -> int:
        """Keep answers that a client gave by itself; gives how many were new."""
        rows: list[tuple[object, ...]] = []
        for answer in answers:
            key = (plan_id, answer.row.symbol, answer.ts_ms, answer.kind.value)
            known = await self._file.read(
                "SELECT 1 FROM local_answers"
                " WHERE plan_id = ? AND symbol = ? AND ts_ms = ? AND kind = ?",
                key,
            )
            if not known:
                rows.append((*key, _text("detent.local_answer.v1", answer)))
        if rows:
            sql = (
                "INSERT OR IGNORE INTO local_answers"
                " (plan_id, symbol, ts_ms, kind, canonical) VALUES (?, ?, ?, ?, ?)"
            )
            await self._file.write([(sql, rows)])
        return len(rows)


def _record_row(written: Written) -> tuple[object, ...]:
    record = written.record
    return (
        record.plan_id,
        record.row.symbol,
        record.ts_ms,
        record.kind.value,
        record.sequence,
        written.record_hash,
        written.canonical.decode("ascii"),
    )


def _block_row(event: BlockEvent) -> tuple[object, ...]:
    return (
        event.at_ms,
        event.method,
        event.error.reason.value,
        event.plan_id,
        event.binding_hash,
        event.ts_ms,
        event.error.message,
        json.dumps(event.error.metadata, sort_keys=True),
    )


def _stand_down_row(change: StandDownChange) -> tuple[object, ...]:
    set_to = change.stand_down
    scope = (change.at_ms, change.book, change.symbol, change.source.value)
    return (*scope, None, "") if set_to is None else (*scope, set_to.until_ts_ms, set_to.reason)


def _stand_down_change(row: Row) -> StandDownChange:
    at_ms, book, symbol, source, until_ts_ms, reason = row
    by = StandDownSource(source)
    return StandDownChange(
        at_ms=at_ms,
        book=book,
        symbol=symbol,
        source=by,
        stand_down=StandDown(until_ts_ms=until_ts_ms, reason=reason, source=by),
    )


def _text(schema: str, value: object) -> str:
    return canonical_bytes(schema, to_json(value)).decode("ascii")


def _bound(row: Row) -> BoundPlan:
    plan = from_json(Plan, parse_json("plan", row[0].encode()))
    return bind_plan(plan, from_json(ModelBinding, parse_json("binding", row[1].encode())))


def _written(row: Row) -> Written:
    canonical = str(row[0]).encode("ascii")
    record = from_json(DecisionRecord, parse_json("record", canonical))
    return Written(record=record, canonical=canonical, record_hash=str(row[1]))


def _stored(row: Row) -> StoredRecord:
    plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical = row
    return StoredRecord(
        plan_id=plan_id,
        symbol=symbol,
        ts_ms=ts_ms,
        kind=kind,
        sequence=sequence,
        record_hash=record_hash,
        canonical=canonical,
    )
