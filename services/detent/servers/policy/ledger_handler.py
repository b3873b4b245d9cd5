"""Serve the auditor: read, verify and replay what was decided."""

from collections.abc import Sequence

from detent.adapters.sqlite_file import Row
from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.calls.ledger import (
    ChainBreak,
    ChainHead,
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
from detent.contracts.errors import DecisionNotFound, InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.units import ROWS_MAX
from detent.core.ledger.record import CHAIN_START, ChainPoint, replay_decision
from detent.rpc.call import Call
from detent.servers.policy.plans import Plans

# Half of what a message may hold: a record's text is longer than its message.
PAGE_BYTES_MAX = 8 * 2**20


class LedgerHandler:
    """Answers from what is durable and from nothing else."""

    def __init__(self, *, ledger: SqliteLedger, plans: Plans) -> None:
        """Read the same file that decisions are written to."""
        self._ledger = ledger
        self._plans = plans

    async def get_decision(self, query: GetDecisionRequest, call: Call) -> GetDecisionResponse:
        """Give one record."""
        written = await self._found(query.record_hash)
        return GetDecisionResponse(
            record=written.record, canonical_json=written.canonical.decode("ascii")
        )

    async def list_decisions(
        self, query: ListDecisionsRequest, call: Call
    ) -> ListDecisionsResponse:
        """List records in the order in which they were written."""
        if query.page_token and not query.page_token.isdecimal():
            raise InvalidField("page_token", query.page_token, "a token that a page gave")
        found = await self._ledger.list_records(query, int(query.page_token or 0))
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
        """Recompute every hash and link."""
        verified = await self._ledger.verify(query.plan_id)
        return VerifyLedgerResponse(
            record_count=verified.record_count,
            chain_count=len(verified.heads),
            breaks=tuple(
                ChainBreak(
                    plan_id=found.plan_id,
                    symbol=found.symbol,
                    sequence=found.sequence,
                    message=found.message,
                )
                for found in verified.breaks
            ),
            heads=tuple(
                ChainHead(
                    plan_id=head.plan_id,
                    symbol=head.symbol,
                    sequence=head.sequence,
                    record_hash=head.record_hash,
                )
                for head in verified.heads[:ROWS_MAX]
            ),
        )

    async def replay_decision(
        self, query: ReplayDecisionRequest, call: Call
    ) -> ReplayDecisionResponse:
        """Decide one recorded bar again, from its probabilities on, and give both bytes."""
        written = await self._found(query.record_hash)
        record = written.record
        bound, _ = await self._plans.find(record.plan_id)
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
            return CHAIN_START
        before = await self._found(record.previous_hash)
        return ChainPoint(
            sequence=before.record.sequence + 1,
            previous_hash=before.record_hash,
            state=before.record.state_after,
        )

    async def _found(self, record_hash: str) -> Written:
        written = await self._ledger.find_record_by_hash(record_hash)
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
