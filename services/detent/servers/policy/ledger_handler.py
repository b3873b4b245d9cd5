"""Serve the auditor: read, verify and replay what was decided."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from detent.adapters.ledger_reading import Audit, PostgresReader, SqliteReader, audit
from detent.adapters.sqlite_file import Row
from detent.adapters.sqlite_ledger import SqliteLedger, Written, bound_of, written_of
from detent.contracts.calls.ledger import (
    GetDecisionRequest,
    GetDecisionResponse,
    ListDecisionsRequest,
    ListDecisionsResponse,
    ReplayDecisionRequest,
    ReplayDecisionResponse,
    VerifyLedgerRequest,
    VerifyLedgerResponse,
)
from detent.contracts.canonical import parse_json, sha256_hex
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import DecisionNotFound, InvalidField, PlanNotFound
from detent.contracts.json_codec import from_json
from detent.core.ledger.anchor import Anchored
from detent.core.ledger.record import (
    CHAIN_START,
    BoundPlan,
    ChainPoint,
    carried_from,
    chain_start,
    replay_decision,
)
from detent.rpc.call import Call

# Half of what a message may hold: a record's text is longer than its message.
PAGE_BYTES_MAX = 8 * 2**20


class LedgerHandler:
    """Answers from what is durable: PostgreSQL where records are shipped to, else the file.

    A record that was asked for by its hash and has not arrived yet is read from the file.
    """

    def __init__(
        self,
        *,
        ledger: SqliteLedger,
        shared: PostgresReader | None = None,
        anchored: Callable[[], Awaitable[Anchored]] | None = None,
    ) -> None:
        """Take where to read.

        Args:
            ledger: The file that decisions are written to.
            shared: What owners ship to; None when nothing is shipped.
            anchored: Reads the anchors; None when there are none.
        """
        self._ledger = ledger
        self._shared = shared
        self._anchored = anchored

    async def get_decision(self, query: GetDecisionRequest, call: Call) -> GetDecisionResponse:
        """Give one record."""
        written = await self._found(query.record_hash)
        return GetDecisionResponse(
            record=written.record, canonical_json=written.canonical.decode("ascii")
        )

    async def list_decisions(
        self, query: ListDecisionsRequest, call: Call
    ) -> ListDecisionsResponse:
        """List records in the order in which they were written, one ledger after the other."""
        source, _, number = query.page_token.rpartition(".")
        if query.page_token and not number.isdecimal():
            raise InvalidField("page_token", query.page_token, "a token that a page gave")
        after_id = int(number or 0)
        if self._shared is not None:
            shared = self._shared
            found = await asyncio.to_thread(shared.list_records, query, source, after_id)
        else:
            found = [
                (str(number), canonical)
                for number, canonical in await self._ledger.list_records(query, after_id)
            ]
        rows = _fitting(found)
        records = tuple(
            from_json(DecisionRecord, parse_json("record", canonical.encode()))
            for _, canonical in rows
        )
        more = len(rows) < len(found) or len(found) == query.page_size
        return ListDecisionsResponse(
            records=records, next_page_token=str(rows[-1][0]) if more else ""
        )

    async def verify_ledger(self, query: VerifyLedgerRequest, call: Call) -> VerifyLedgerResponse:
        """Recompute every hash and link, and hold them against the anchors."""
        anchored = [await self._anchored()] if self._anchored is not None else []
        found = await asyncio.to_thread(self._audit, anchored, query.plan_id)
        return found.response

    def _audit(self, anchored: Sequence[Anchored], plan_id: str) -> Audit:
        # A reader of its own: nobody's commit waits for an auditor.
        return audit(self._shared or SqliteReader(self._ledger.path), anchored, plan_id)

    async def replay_decision(
        self, query: ReplayDecisionRequest, call: Call
    ) -> ReplayDecisionResponse:
        """Decide one recorded bar again, from its probabilities on, and give both bytes."""
        written = await self._found(query.record_hash)
        record = written.record
        bound = await self._bound(record.plan_id)
        replayed = replay_decision(record, bound=bound, point=await self._point(record)).canonical
        return ReplayDecisionResponse(
            record_hash=written.record_hash,
            replayed_hash=sha256_hex(replayed),
            recorded_json=written.canonical.decode("ascii"),
            replayed_json=replayed.decode("ascii"),
        )

    async def _point(self, record: DecisionRecord) -> ChainPoint:
        """Find where the chain stood before a record."""
        if record.sequence == 0:
            if record.carried is None:
                return CHAIN_START
            # From the record that it cites, not from what it says of it.
            cited = await self._found(record.carried.record_hash)
            return chain_start(carried_from(cited.record, cited.record_hash))
        before = await self._found(record.previous_hash)
        return ChainPoint(
            sequence=before.record.sequence + 1,
            previous_hash=before.record_hash,
            state=before.record.state_after,
        )

    async def _bound(self, plan_id: str) -> BoundPlan:
        """Give the plan of a record, whoever owns it."""
        known = await self._ledger.find_plan(plan_id)
        if known is not None:
            return known[0]
        shared = self._shared
        if shared is not None:
            rows = await asyncio.to_thread(shared.plan_row, plan_id)
            if rows is not None:
                return bound_of(rows)
        raise PlanNotFound(f"no plan is named {plan_id!r}", plan_id=plan_id)

    async def _found(self, record_hash: str) -> Written:
        written = None
        if self._shared is not None:
            row = await asyncio.to_thread(self._shared.record_row, record_hash)
            written = written_of(row) if row is not None else None
        written = written or await self._ledger.find_record_by_hash(record_hash)
        if written is None:
            raise DecisionNotFound(
                f"the ledger holds no record {record_hash}", record_hash=record_hash
            )
        return written


def _fitting(rows: Sequence[Row]) -> Sequence[Row]:
    """Give the first rows of a page that fit in one message, at least one."""
    size = 0
    for index, (_, canonical) in enumerate(rows):
        size += len(canonical)
        if size > PAGE_BYTES_MAX and index > 0:
            return rows[:index]
    return rows
