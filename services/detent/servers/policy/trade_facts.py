"""Take what happened after the decisions: check it against plan and ledger, keep it once."""

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.calls.policy import (
    RecordFillsRequest,
    RecordFillsResponse,
    RecordOutcomesRequest,
    RecordOutcomesResponse,
)
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.errors import (
    BindingMismatch,
    DecisionNotFound,
    InvalidField,
    SymbolNotInPlan,
)
from detent.contracts.plan import Plan
from detent.contracts.trades import Fill, Outcome
from detent.core.ledger.record import BoundPlan
from detent.servers.policy.plans import Plans
from detent.servers.policy.ports import TradeFacts


class TradeFactsTaker:
    """Answers `RecordFills` and `RecordOutcomes`, for plans that are open and that are not."""

    def __init__(self, *, plans: Plans, ledger: SqliteLedger, facts: TradeFacts) -> None:
        """Take the plans, the records that fills name, and where facts become durable."""
        self._plans = plans
        self._ledger = ledger
        self._facts = facts

    async def record_fills(self, query: RecordFillsRequest) -> RecordFillsResponse:
        """Keep fills, all or none; a fill that is held already changes nothing."""
        bound = await self._bound(query.plan_id, query.binding_hash)
        records: dict[str, DecisionRecord] = {}
        for index, fill in enumerate(query.fills):
            _check_fill(bound.plan, fill, f"fills[{index}]")
            if fill.record_hash is not None:
                if fill.record_hash not in records:
                    records[fill.record_hash] = await self._record(fill.record_hash)
                _check_decision(records[fill.record_hash], fill, f"fills[{index}]")
        accepted_count = await self._facts.add_fills(query.fills)
        return RecordFillsResponse(
            binding_hash=bound.binding_hash,
            accepted_count=accepted_count,
            known_count=len(query.fills) - accepted_count,
        )

    async def record_outcomes(self, query: RecordOutcomesRequest) -> RecordOutcomesResponse:
        """Keep outcomes, all or none; an outcome that is held already changes nothing."""
        bound = await self._bound(query.plan_id, query.binding_hash)
        for index, outcome in enumerate(query.outcomes):
            _check_symbol(bound.plan, outcome)
            await self._check_decided(outcome, f"outcomes[{index}]")
        accepted_count = await self._facts.add_outcomes(query.outcomes)
        return RecordOutcomesResponse(
            binding_hash=bound.binding_hash,
            accepted_count=accepted_count,
            known_count=len(query.outcomes) - accepted_count,
        )

    async def _bound(self, plan_id: str, binding_hash: str) -> BoundPlan:
        bound, _ = await self._plans.find(plan_id)
        if binding_hash != bound.binding_hash:
            raise BindingMismatch(binding_hash, bound.binding_hash)
        return bound

    async def _record(self, record_hash: str) -> DecisionRecord:
        written = await self._ledger.find_record_by_hash(record_hash)
        if written is None:
            raise DecisionNotFound(
                f"the ledger holds no record {record_hash}", record_hash=record_hash
            )
        return written.record

    async def _check_decided(self, outcome: Outcome, field: str) -> None:
        written = await self._ledger.find_record(
            plan_id=outcome.plan_id,
            symbol=outcome.symbol,
            ts_ms=outcome.ts_ms,
            kind=DecisionKind.BAR,
        )
        if written is None:
            expected = f"a bar of {outcome.symbol} that the plan decided"
            raise InvalidField(f"{field}.ts_ms", outcome.ts_ms, expected)


def _check_fill(plan: Plan, fill: Fill, field: str) -> None:
    """Refuse a fill that the plan cannot have asked for, or whose tags are not the plan's."""
    _check_symbol(plan, fill)
    if fill.book != plan.book:
        raise InvalidField(f"{field}.book", fill.book, plan.book)
    tags = plan.learning.tags if plan.learning is not None else None
    if fill.learning != tags:
        raise InvalidField(f"{field}.learning", fill.learning, f"the plan's tags: {tags}")


def _check_decision(record: DecisionRecord, fill: Fill, field: str) -> None:
    """Refuse a fill of somebody else's decision."""
    found = (record.plan_id, record.row.symbol)
    if found != (fill.plan_id, fill.symbol):
        expected = f"a decision of {fill.plan_id}/{fill.symbol}, not of {'/'.join(found)}"
        raise InvalidField(f"{field}.record_hash", fill.record_hash, expected)


def _check_symbol(plan: Plan, fact: Fill | Outcome) -> None:
    if fact.symbol not in plan.symbols:
        raise SymbolNotInPlan(
            f"plan {plan.plan_id!r} does not name {fact.symbol}",
            symbol=fact.symbol,
            plan_id=plan.plan_id,
        )
