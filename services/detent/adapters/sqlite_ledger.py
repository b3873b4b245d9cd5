"""Keep plans, records, refusals and late answers in one SQLite file."""

import asyncio
import functools
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from detent.adapters.ledger_anchors import SignedAnchor
from detent.adapters.ledger_columns import BOUND, PLANS
from detent.adapters.ledger_reading import SqliteReader
from detent.adapters.plan_texts import bound_of, canonical_text, plan_event
from detent.adapters.sqlite_file import Durability, Row, SqliteFile, Statement
from detent.adapters.sqlite_schema import (
    BLOCK_EVENTS_KEPT,
    BY_HASH,
    IN_CHAIN,
    RUN_ROWS,
    STORED,
    prepare,
)
from detent.contracts import events
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind, DecisionRecord, LocalAnswer
from detent.contracts.errors import DetentError, LedgerUnavailable
from detent.contracts.json_codec import from_json
from detent.contracts.plan import Plan, PlanStatus, StandDown, StandDownSource
from detent.core.ledger.anchor import Anchor
from detent.core.ledger.chain import ChainKey, Pins, Verification, chain_end, verify_chains
from detent.core.ledger.record import BoundPlan
from detent.core.ledger.summary import RunRow

log = logging.getLogger(__name__)

# Old refusals are forgotten so many at a time.
PRUNED_EVERY = 1_000
INPUTS_PENDING_MAX = 20_000
# Long enough for the answers of a bar to leave first.
INPUTS_WAIT_S = 0.1
_OPENED = f"SELECT {BOUND} FROM {PLANS} WHERE event = 'opened'"
_IS_CLOSED = (
    "EXISTS (SELECT 1 FROM plan_log AS closed"
    " WHERE closed.plan_id = opened.plan_id AND closed.event = 'closed')"
)


class Written(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class ModelInputRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a model was given, under the hash that its record cites (decision D4).

    Attributes:
        features_hash: Hash of `canonical`, 64 hex.
        expires_ms: Wall clock after which it may be forgotten, Unix milliseconds.
        canonical: What was hashed; it holds the SHA-256 of the input.
        model_input: The little-endian float32 input.
    """

    features_hash: str
    expires_ms: int
    canonical: str
    model_input: bytes


class SqliteLedger:
    """Owns one ledger file; every write is durable when it returns."""

    def __init__(
        self,
        path: Path,
        durability: Durability = Durability.FULL,
        *,
        reserve_bytes: int = 0,
    ) -> None:
        """Open or create the file and bring it to the form of today.

        Args:
            path: The file.
            durability: How hard a commit is.
            reserve_bytes: Disk space that is held back for exits.

        Raises:
            LedgerUnavailable: It cannot be used.
        """
        self.path = path
        self._file = SqliteFile(path, prepare, durability=durability, reserve_bytes=reserve_bytes)
        self._inputs: dict[str, ModelInputRow] = {}
        self._cited: list[ModelInputRow] = []
        self._keeping: asyncio.Task[None] | None = None
        self._blocked_since_pruned = 0
        # What is read to find the new ones must still hold when they are written.
        self._taking_answers = asyncio.Lock()

    @property
    def file(self) -> SqliteFile:
        """Give the file itself, for what is kept beside the records."""
        return self._file

    async def close(self) -> None:
        """Write what is pending and close the file."""
        await self.settle()
        await self._file.close()

    async def settle(self) -> None:
        """Wait until the model inputs that records cite are written."""
        if self._keeping is not None:
            await self._keeping

    # Plans

    async def add_plan_event(
        self, bound: BoundPlan, status: PlanStatus, *, summary: bytes | None = None
    ) -> None:
        """Note that a plan was opened, or closed with a summary of what it did."""
        await self._file.write(plan_event(bound, status, summary))

    async def add_plans(self, bounds: Sequence[BoundPlan]) -> None:
        """Note that plans were opened, all or none."""
        await self._file.write(
            [noted for bound in bounds for noted in plan_event(bound, PlanStatus.OPEN)]
        )

    async def replace_plans(
        self,
        closed: Sequence[tuple[BoundPlan, bytes]],
        opened: Sequence[BoundPlan],
        replan: Statement,
    ) -> None:
        """Note that plans were closed and others opened in their place: all of it, or nothing.

        Args:
            closed: The plans that decide no more, each with the summary of what it did.
            opened: Those that decide instead.
            replan: The statement that notes the replan.
        """
        noted: list[Statement] = []
        for bound, summary in closed:
            noted += plan_event(bound, PlanStatus.CLOSED, summary)
        for bound in opened:
            noted += plan_event(bound, PlanStatus.OPEN)
        await self._file.write([*noted, replan])

    async def open_plans(self) -> list[BoundPlan]:
        """Give the plans that still decide, in the order in which they were opened."""
        rows = await self._file.read(f"{_OPENED} AND NOT {_IS_CLOSED} ORDER BY opened.id")
        return [bound_of(row) for row in rows]

    async def find_plan(self, plan_id: str) -> tuple[BoundPlan, PlanStatus] | None:
        """Give a plan by its name, open or closed."""
        sql = _OPENED.replace(BOUND, f"{BOUND}, {_IS_CLOSED}")
        rows = await self._file.read(f"{sql} AND plan_id = ?", (plan_id,))
        if not rows:
            return None
        status = PlanStatus.CLOSED if rows[0][-1] else PlanStatus.OPEN
        return bound_of(rows[0]), status

    # Records

    async def add_records(self, written: Sequence[Written], *, from_reserve: bool = False) -> None:
        """Make records durable, all or none; what their models were given follows soon.

        Args:
            written: The records.
            from_reserve: Whether they may take the space that is held back for exits.
        """
        sql = (
            "INSERT INTO decision_records (plan_id, symbol, ts_ms, kind, sequence, record_hash,"
            " canonical) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        rows = [_record_row(item) for item in written]
        await self._file.write([(sql, rows)], from_reserve=from_reserve)
        if self._inputs and not from_reserve:
            self._keep_inputs(item.record.signal.features_hash for item in written)

    def stage_inputs(self, inputs: Sequence[ModelInputRow]) -> None:
        """Have model inputs written soon after the records that will cite them."""
        if len(self._inputs) + len(inputs) > INPUTS_PENDING_MAX:
            # Left by calls whose records never came.
            self._inputs.clear()
        self._inputs.update((row.features_hash, row) for row in inputs)

    def _keep_inputs(self, cited: Iterable[str | None]) -> None:
        """Take the inputs that durable records cite; the answers leave before they are written.

        Their hashes lie all over the table's index: they would cost an answer as much as its
        records do, and a record is decided again without them.
        """
        self._cited += [self._inputs.pop(one) for one in cited if one in self._inputs]
        if self._cited and (self._keeping is None or self._keeping.done()):
            self._keeping = asyncio.create_task(self._write_cited())

    async def _write_cited(self) -> None:
        sql = (
            "INSERT OR IGNORE INTO model_inputs (features_hash, expires_ms, canonical,"
            " model_input) VALUES (?, ?, ?, ?)"
        )
        while self._cited:
            await asyncio.sleep(INPUTS_WAIT_S)
            rows, self._cited = self._cited, []
            values = [(r.features_hash, r.expires_ms, r.canonical, r.model_input) for r in rows]
            try:
                await self._file.write([(sql, values)])
            except LedgerUnavailable as error:
                facts = {"count": len(rows), "message_text": error.message}
                log.warning(events.LEDGER_INPUTS_LOST, extra=facts)

    async def find_input(self, features_hash: str) -> ModelInputRow | None:
        """Give what a model was given, while it is kept."""
        sql = "SELECT features_hash, expires_ms, canonical, model_input FROM model_inputs"
        rows = await self._file.read(f"{sql} WHERE features_hash = ?", (features_hash,))
        names = ModelInputRow.__struct_fields__
        return ModelInputRow(**dict(zip(names, rows[0], strict=True))) if rows else None

    async def forget_inputs(self, *, now_ms: int) -> None:
        """Forget model inputs whose time is over; the newest row stays, so no number returns."""
        sql = (
            "DELETE FROM model_inputs WHERE expires_ms < ?"
            " AND id < (SELECT MAX(id) FROM model_inputs)"
        )
        await self._file.write([(sql, [(now_ms,)])])

    async def find_record(
        self, *, plan_id: str, symbol: str, ts_ms: int, kind: DecisionKind
    ) -> Written | None:
        """Give the record of one bar, if there is one."""
        sql = "SELECT canonical, record_hash FROM decision_records"
        rows = await self._file.read(
            f"{sql} WHERE plan_id = ? AND symbol = ? AND ts_ms = ? AND kind = ?",
            (plan_id, symbol, ts_ms, kind.value),
        )
        return written_of(rows[0]) if rows else None

    async def find_record_by_hash(self, record_hash: str) -> Written | None:
        """Give a record by its hash, if there is one."""
        rows = await self._file.read(f"{BY_HASH} = ?", (record_hash[:16],))
        # Compared here: were it said in SQL, SQLite would not see that the index has the rest.
        found = [row for row in rows if row[1] == record_hash]
        return written_of(found[0]) if found else None

    async def last_records(self, plan: Plan) -> list[Written]:
        """Give the last record of every symbol of a plan, as far as there is one.

        Each is looked for in the index of chains: a plan that rests has it far back in the file.
        """

        def ends(db: sqlite3.Connection) -> list[Row]:
            begun = "SELECT symbol FROM decision_records WHERE sequence = 0 AND plan_id = ?"
            found: list[Row] = []
            end = 0
            for (symbol,) in db.execute(begun, (plan.plan_id,)).fetchall():
                chain = (db, plan.plan_id, symbol)
                # The chains of a plan are about as long as one another.
                end = chain_end(functools.partial(_is_in_chain, *chain), near=end)
                found += _in_chain(*chain, end)
            return found

        return [written_of(row) for row in await self._file.use(ends)]

    async def run_rows(self, plan_id: str) -> list[RunRow]:
        """Give what a summary of a plan needs of its records, each chain in its order.

        It looks at the plan's own records alone, since decisions of the plan wait for it, through
        a reader of its own: no commit does.
        """
        reader = SqliteReader(self.path)
        rows = await asyncio.to_thread(lambda: list(reader.query(RUN_ROWS, (plan_id, plan_id))))
        names = RunRow.__struct_fields__
        return [RunRow(**dict(zip(names, row, strict=True))) for row in rows]

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

    async def verify(
        self, plan_id: str, anchored: Mapping[ChainKey, Pins] | None = None
    ) -> Verification:
        """Walk over the chains of one plan, or of all when the name is empty."""
        # In the order of writing: nothing needs sorting, and every chain grows by it.
        where = "WHERE plan_id = ? ORDER BY id" if plan_id else "ORDER BY id"

        def walk(db: sqlite3.Connection) -> Verification:
            values = (plan_id,) if plan_id else ()
            rows = db.execute(f"SELECT {STORED} FROM decision_records {where}", values)
            return verify_chains(rows, anchored)

        return await self._file.use(walk)

    # Stand-downs

    async def add_stand_downs(self, changes: Sequence[StandDownChange]) -> None:
        """Note what was set and what was lifted, all or nothing."""
        sql = (
            "INSERT INTO stand_downs (at_ms, book, symbol, set_by, until_ts_ms, reason)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        await self._file.write([(sql, [_stand_down_row(change) for change in changes])])

    async def standing_stand_downs(self) -> list[StandDownChange]:
        """Give what each source set last for each scope and has not lifted."""
        rows = await self._file.read(
            "SELECT at_ms, book, symbol, set_by, until_ts_ms, reason FROM stand_downs WHERE id IN"
            " (SELECT MAX(id) FROM stand_downs GROUP BY book, symbol, set_by)"
            " AND until_ts_ms IS NOT NULL ORDER BY id"
        )
        return [_stand_down_change(row) for row in rows]

    # Anchors

    async def ledger_id(self) -> str:
        """Name this ledger; drawn once when its file was made."""
        return str((await self._file.read("SELECT ledger_id FROM ledger_identity"))[0][0])

    async def anchor_count(self) -> int:
        """Count the anchors that the file knows of."""
        return int((await self._file.read("SELECT COUNT(*) FROM anchors"))[0][0])

    async def add_anchor(self, anchor: Anchor, signed: SignedAnchor) -> None:
        """Note an anchor that is in the file outside."""
        sql = (
            "INSERT INTO anchors (anchor_index, at_ms, anchor_hash, canonical, key_id, signature)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        values = (
            anchor.anchor_index,
            anchor.at_ms,
            anchor.anchor_hash,
            signed.canonical,
            signed.key_id,
            signed.signature,
        )
        await self._file.write([(sql, [values])])

    # What is not a record

    async def add_block_events(self, refused: Sequence[BlockEvent]) -> None:
        """Note refusals."""
        sql = (
            "INSERT INTO block_events (at_ms, method, reason, plan_id, binding_hash, ts_ms,"
            " message, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        statements: list[Statement] = [(sql, [_block_row(event) for event in refused])]
        self._blocked_since_pruned += len(refused)
        if self._blocked_since_pruned >= PRUNED_EVERY:
            self._blocked_since_pruned = 0
            sql = "DELETE FROM block_events WHERE id <= (SELECT MAX(id) FROM block_events) - ?"
            statements.append((sql, [(BLOCK_EVENTS_KEPT,)]))
        await self._file.write(statements)

    async def add_late_answers(self, written: Sequence[Written], *, at_ms: int) -> None:
        """Note that recorded answers came too late to be used."""
        sql = (
            "INSERT INTO late_answers (at_ms, plan_id, symbol, ts_ms, kind, record_hash)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        rows = [(at_ms, *_record_row(item)[:4], item.record_hash) for item in written]
        await self._file.write([(sql, rows)])

    async def add_local_answers(self, plan_id: str, answers: Sequence[LocalAnswer]) -> int:
        """Keep the first answer per key that a client gave by itself; gives how many were new."""
        rows: dict[tuple[object, ...], tuple[object, ...]] = {}
        async with self._taking_answers:
            for answer in answers:
                key = (plan_id, answer.row.symbol, answer.ts_ms, answer.kind.value)
                known = key in rows or await self._file.read(
                    "SELECT 1 FROM local_answers"
                    " WHERE plan_id = ? AND symbol = ? AND ts_ms = ? AND kind = ?",
                    key,
                )
                if not known:
                    rows[key] = (*key, canonical_text("detent.local_answer.v1", answer))
            if rows:
                sql = (
                    "INSERT OR IGNORE INTO local_answers"
                    " (plan_id, symbol, ts_ms, kind, canonical) VALUES (?, ?, ?, ?, ?)"
                )
                await self._file.write([(sql, list(rows.values()))])
        return len(rows)


def _in_chain(db: sqlite3.Connection, plan_id: str, symbol: str, sequence: int) -> list[Row]:
    """Give the record at a place of a chain, or nothing."""
    return db.execute(IN_CHAIN, (sequence, plan_id, symbol)).fetchall()


def _is_in_chain(db: sqlite3.Connection, plan_id: str, symbol: str, sequence: int) -> bool:
    return bool(_in_chain(db, plan_id, symbol, sequence))


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


def written_of(row: Row) -> Written:
    """Read a record from its text and its hash."""
    canonical = str(row[0]).encode("ascii")
    record = from_json(DecisionRecord, parse_json("record", canonical))
    return Written(record=record, canonical=canonical, record_hash=str(row[1]))
