"""Serve plans and decide bars: decode is done, so ask, decide, record, answer."""

import asyncio
import dataclasses
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

from opentelemetry.trace import Tracer

from detent.adapters.sqlite_ledger import BlockEvent, SqliteLedger, Written
from detent.contracts import events
from detent.contracts.calls.decision_stream import StreamDecisionsResponse
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    ClosePlanResponse,
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    DecisionResult,
    GetPlanRequest,
    GetPlanResponse,
    OpenPlanRequest,
    OpenPlanResponse,
    RecordFillsRequest,
    RecordFillsResponse,
    RecordOutcomesRequest,
    RecordOutcomesResponse,
    ReportLocalAnswersRequest,
    ReportLocalAnswersResponse,
    RowRefusal,
    SetStandDownRequest,
    SetStandDownResponse,
)
from detent.contracts.calls.replanning import (
    RecordReplanSkipsRequest,
    RecordReplanSkipsResponse,
    ReplacePlanRequest,
    ReplacePlanResponse,
)
from detent.contracts.decision import DecisionKind, DecisionRow, decision_of
from detent.contracts.errors import (
    BarFromFuture,
    BarOutOfOrder,
    BindingMismatch,
    DeadlineExceeded,
    DetentError,
    InvalidField,
    LedgerUnavailable,
    SymbolNotInPlan,
)
from detent.contracts.json_codec import to_json
from detent.contracts.plan import PlanStatus
from detent.core.replanning.cadence import MIN_INTERVAL_MS
from detent.core.signals.choice import ModelOutcome
from detent.rpc.call import Call
from detent.rpc.tracing import span
from detent.servers.policy.held import HeldBinding
from detent.servers.policy.model_path import ModelPath
from detent.servers.policy.opening import PlanOpener
from detent.servers.policy.outcome_lines import SYMBOLS_LOGGED_MAX, log_outcomes
from detent.servers.policy.plans import OpenPlan, Plans, SymbolChain
from detent.servers.policy.ports import TellDecided
from detent.servers.policy.question import check_same_question
from detent.servers.policy.recording import record, write_records
from detent.servers.policy.replacing import PlanReplacer
from detent.servers.policy.rollouts import Rollouts
from detent.servers.policy.streaming import DecisionStreams, Item
from detent.servers.policy.trade_facts import TradeFactsTaker

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class _Sorted:
    """Holds what became of the rows of one call so far."""

    fresh: list[DecisionRow]
    written: dict[str, Written]
    refusals: dict[str, DetentError]


class PolicyHandler:
    """Answers every bar: with the model if it proves itself in time, else with the proxy."""

    def __init__(
        self,
        *,
        ledger: SqliteLedger,
        plans: Plans,
        held: Mapping[str, HeldBinding],
        model_path: ModelPath,
        trade_facts: TradeFactsTaker,
        rollouts: Rollouts,
        now_ms: Callable[[], int],
        future_skew_ms: int,
        tracer: Tracer,
        replan_min_interval_ms: int = MIN_INTERVAL_MS,
        tell_decided: Sequence[TellDecided] = (),
    ) -> None:
        """Take everything that it touches.

        Args:
            ledger: Where records become durable.
            plans: The open plans, restored.
            held: The bindings that the held manifests give, by hash.
            model_path: How the model is asked.
            trade_facts: How fills and outcomes are taken.
            rollouts: What plans may be opened under.
            now_ms: Wall clock, Unix milliseconds; bounds how new a bar may be.
            future_skew_ms: How far ahead of the clock a bar may close.
            tracer: Opens a span around each step.
            replan_min_interval_ms: Least data time between two replans of a plan.
            tell_decided: Who is told of what is durable.
        """
        self._ledger = ledger
        self._plans = plans
        self._held = held
        self._model_path = model_path
        self._trade_facts = trade_facts
        self._now_ms = now_ms
        self._future_skew_ms = future_skew_ms
        self._tracer = tracer
        self._tell_decided = tuple(tell_decided)
        self._replacer = PlanReplacer(
            plans=plans,
            held=held,
            rollouts=rollouts,
            now_ms=now_ms,
            future_skew_ms=future_skew_ms,
            min_interval_ms=replan_min_interval_ms,
        )
        self._opener = PlanOpener(plans=plans, held=held, rollouts=rollouts)
        self._at_work: set[asyncio.Task[Any]] = set()
        self._streams = DecisionStreams(
            decide=self.decide_target_weights, note_refusal=self.note_refusal, tracer=tracer
        )

    # Plans

    async def open_plan(self, query: OpenPlanRequest, call: Call) -> OpenPlanResponse:
        """Open a plan under one binding, or under those of a rollout, and freeze them."""
        return await self._finish(self._opener.open(query))

    async def close_plan(self, query: ClosePlanRequest, call: Call) -> ClosePlanResponse:
        """Close a plan; closing it again changes nothing."""
        bound, status = await self._plans.find(query.plan_id)
        if query.binding_hash != bound.binding_hash:
            raise BindingMismatch(query.binding_hash, bound.binding_hash)
        if status is PlanStatus.OPEN:
            opened = await self._plans.get_open(query.plan_id)
            await self._finish(self._plans.close(opened))
            log.info(events.PLAN_CLOSED, extra={"plan_id": query.plan_id})
        return ClosePlanResponse(
            binding_hash=bound.binding_hash, plan_id=query.plan_id, status=PlanStatus.CLOSED
        )

    async def replace_plan(self, query: ReplacePlanRequest, call: Call) -> ReplacePlanResponse:
        """Close a plan and open another in its place, unless nothing would change."""
        return await self._finish(self._replacer.replace(query))

    async def record_replan_skips(
        self, query: RecordReplanSkipsRequest, call: Call
    ) -> RecordReplanSkipsResponse:
        """Keep what a strategist notes of replans that it did not make."""
        return await self._replacer.record_skips(query)

    async def get_plan(self, query: GetPlanRequest, call: Call) -> GetPlanResponse:
        """Give a plan as it was opened."""
        bound, status = await self._plans.find(query.plan_id)
        return GetPlanResponse(
            binding_hash=bound.binding_hash,
            plan=bound.plan,
            model_binding=bound.binding,
            status=status,
            policy_config_hash=bound.policy_config_hash,
            rollout=bound.rollout,
            shadow_binding=bound.shadow_binding,
        )

    async def set_stand_down(self, query: SetStandDownRequest, call: Call) -> SetStandDownResponse:
        """Keep symbols of a book flat until an instant, or lift that."""
        return await self._finish(self._set_stand_down(query, call))

    async def _set_stand_down(self, query: SetStandDownRequest, call: Call) -> SetStandDownResponse:
        changed, known = await self._plans.stand_downs.change(query, at_ms=self._now_ms())
        facts: dict[str, object] = {
            "book": query.book,
            "symbols": query.symbols[:SYMBOLS_LOGGED_MAX],
            "count": changed,
            "caller": call.identity,
        }
        if query.stand_down is None:
            log.warning(events.STAND_DOWN_LIFTED, extra=facts | {"source": query.lift})
        else:
            log.warning(events.STAND_DOWN_SET, extra=facts | to_json(query.stand_down))
        return SetStandDownResponse(
            book=query.book,
            changed_count=changed,
            known_count=known,
            other_targets=self._plans.ownership.other_targets,
        )

    # Bars

    async def decide_target_weights(
        self, query: DecideTargetWeightsRequest, call: Call
    ) -> DecideTargetWeightsResponse:
        """Decide every row of one bar.

        What was begun is finished and recorded even when the caller leaves: a bar has a
        record, and an answer that came too late is noted as such.
        """
        opened = await self._plans.get_open(query.plan_id)
        if query.binding_hash != opened.bound.binding_hash:
            raise BindingMismatch(query.binding_hash, opened.bound.binding_hash)
        now_ms = self._now_ms()
        if query.ts_ms > now_ms + self._future_skew_ms:
            raise BarFromFuture(
                f"the bar closes at {query.ts_ms}, the clock says {now_ms}",
                ts_ms=query.ts_ms,
                now_ms=now_ms,
            )
        call.budget_s()
        return await self._finish(self._decide(opened, query, call))

    async def _finish(self, begun: Coroutine[Any, Any, T]) -> T:
        """Finish what was begun, even when the caller leaves: what is durable is also known."""
        work = asyncio.create_task(begun)
        self._at_work.add(work)
        work.add_done_callback(self._finished)
        return await asyncio.shield(work)

    def stream_decisions(
        self, items: AsyncIterator[Item], call: Call
    ) -> AsyncGenerator[StreamDecisionsResponse, None]:
        """Decide bars as they come, each as a call of its own."""
        return self._streams.answer(items, call)

    def _finished(self, work: asyncio.Task[Any]) -> None:
        self._at_work.discard(work)
        if not work.cancelled() and work.exception() is not None:
            log.info(events.CALL_REFUSED, extra={"error": str(work.exception())})

    async def _decide(
        self, opened: OpenPlan, query: DecideTargetWeightsRequest, call: Call
    ) -> DecideTargetWeightsResponse:
        known = [row.symbol for row in query.rows if row.symbol in opened.chains]
        async with opened.locked(known):
            # Whoever waited behind a close finds the plan gone: closed is closed.
            await self._plans.get_open(query.plan_id)
            # (1) Idempotency: a bar that has a record gets the recorded answer.
            rows = await self._sorted(opened, query)
            await self._plans.recall(opened, [row.symbol for row in rows.fresh], ts_ms=query.ts_ms)
            # (5) The proxy on every bar; while others are asked there is time for it.
            proxies = opened.proxies_soon(rows.fresh, query.ts_ms, query.kind)
            # (2), (3), (4) Gates, features, inference, output gate: nothing waits between the
            # last look at the kill switches and the decision.
            outcomes = await self._asked(opened, query, rows.fresh, call)
            # (6) The choice, the weight.
            with span(self._tracer, "decide", call.trace):
                fresh = write_records(
                    opened,
                    query,
                    rows.fresh,
                    outcomes=outcomes,
                    proxies=proxies(),
                    stand_downs=self._plans.stand_downs,
                )
            # (7) Durable, then the answer may leave.
            with span(self._tracer, "record", call.trace):
                fresh, unrecorded = await record(self._ledger, fresh)
            opened.advance(fresh)
        for tell in self._tell_decided:
            tell(opened.bound, fresh)
        rows.written |= {item.record.row.symbol: item for item in fresh}
        if rows.refusals:
            await self._note_refusals(query, rows.refusals.values())
        rows.refusals |= unrecorded
        if call.remaining_s() <= 0:
            await self._note_late(fresh)
        return DecideTargetWeightsResponse(
            binding_hash=opened.bound.binding_hash,
            results=tuple(_result(row.symbol, rows) for row in query.rows),
        )

    async def _sorted(self, opened: OpenPlan, query: DecideTargetWeightsRequest) -> _Sorted:
        """Tell rows to decide from rows that have a record and rows to refuse."""
        rows = _Sorted(fresh=[], written={}, refusals={})
        for row in query.rows:
            try:
                chain = _chain_of(opened, query, row)
                self._check_caller_names(opened, query, row)
                # A batch of new bars asks the ledger nothing.
                if query.ts_ms > chain.last_ts_ms:
                    rows.fresh.append(row)
                    continue
                written = await self._recorded(opened, query, row, chain)
            except DetentError as error:
                if isinstance(error, LedgerUnavailable):
                    raise
                rows.refusals[row.symbol] = error
                continue
            if written is None:
                rows.fresh.append(row)
            else:
                rows.written[row.symbol] = written
        return rows

    def _check_caller_names(
        self, opened: OpenPlan, query: DecideTargetWeightsRequest, row: DecisionRow
    ) -> None:
        """Refuse a caller feature that the bound feature set does not declare (R45).

        A proxy plan is given any: going back to the proxy changes one field (R136). So is an
        emergency, which asks no model: nothing may stand in the way of an exit (D8).
        """
        held = self._held.get(opened.bound.binding_hash)
        if held is None or not row.caller_features or query.kind is DecisionKind.EMERGENCY:
            return
        for one in row.caller_features:
            if one.name not in held.caller_names:
                raise InvalidField("caller_features", one.name, held.caller_names_expected)

    async def _recorded(
        self,
        opened: OpenPlan,
        query: DecideTargetWeightsRequest,
        row: DecisionRow,
        chain: SymbolChain,
    ) -> Written | None:
        """Give the record that the row already has, or None when it may be decided."""
        written = await self._ledger.find_record(
            plan_id=opened.bound.plan.plan_id,
            symbol=row.symbol,
            ts_ms=query.ts_ms,
            kind=query.kind,
        )
        if written is not None:
            check_same_question(written.record.row, row, ts_ms=query.ts_ms)
        elif query.ts_ms < chain.last_ts_ms or await self._was_decided(opened, query, row):
            raise BarOutOfOrder(
                f"{row.symbol}: the bar {query.ts_ms} is not after the last decided"
                f" {chain.last_ts_ms}",
                symbol=row.symbol,
                ts_ms=query.ts_ms,
                last_ts_ms=chain.last_ts_ms,
            )
        return written

    async def _was_decided(
        self, opened: OpenPlan, query: DecideTargetWeightsRequest, row: DecisionRow
    ) -> bool:
        """Say whether a plan that was replaced has decided this very bar."""
        carried = opened.chains[row.symbol].carried
        if carried is None or query.ts_ms != carried.ts_ms or query.kind is DecisionKind.EMERGENCY:
            return False
        book = opened.bound.plan.book
        return await self._plans.replans.is_decided(book, row.symbol, query.ts_ms)

    async def _asked(
        self,
        opened: OpenPlan,
        query: DecideTargetWeightsRequest,
        fresh: Sequence[DecisionRow],
        call: Call,
    ) -> Mapping[str, ModelOutcome] | None:
        """Ask the model about the regular rows; an emergency exit asks nobody."""
        if not fresh or query.kind is DecisionKind.EMERGENCY:
            return None
        outcomes = await self._model_path.ask(opened.bound, fresh, ts_ms=query.ts_ms, call=call)
        if outcomes is not None:
            log_outcomes(outcomes, ts_ms=query.ts_ms)
        return outcomes

    async def _note_refusals(
        self, query: DecideTargetWeightsRequest, errors: Iterable[DetentError]
    ) -> None:
        method = "PolicyService/DecideTargetWeights"
        try:
            await self._ledger.add_block_events(
                [self._blocked(method, query, error) for error in errors]
            )
        except LedgerUnavailable:
            # They stand whether or not they could be noted, and no exit beside them waits.
            log.exception(events.CALL_FAILED)

    async def _note_late(self, fresh: Sequence[Written]) -> None:
        if fresh:
            await self._ledger.add_late_answers(fresh, at_ms=self._now_ms())
            log.warning(events.ANSWER_LATE, extra={"rows": len(fresh)})
        raise DeadlineExceeded(
            "the decision is recorded, but its answer came too late", remaining_ms=0
        )

    # What was answered elsewhere, or not at all

    async def report_local_answers(
        self, query: ReportLocalAnswersRequest, call: Call
    ) -> ReportLocalAnswersResponse:
        """Keep the answers that a client gave while no service was reachable."""
        bound, _ = await self._plans.find(query.plan_id)
        if query.binding_hash != bound.binding_hash:
            raise BindingMismatch(query.binding_hash, bound.binding_hash)
        accepted_count = await self._ledger.add_local_answers(query.plan_id, query.answers)
        return ReportLocalAnswersResponse(
            binding_hash=bound.binding_hash,
            accepted_count=accepted_count,
            known_count=len(query.answers) - accepted_count,
        )

    async def record_fills(self, query: RecordFillsRequest, call: Call) -> RecordFillsResponse:
        """Keep what was executed."""
        return await self._trade_facts.record_fills(query)

    async def record_outcomes(
        self, query: RecordOutcomesRequest, call: Call
    ) -> RecordOutcomesResponse:
        """Keep how bars turned out."""
        return await self._trade_facts.record_outcomes(query)

    async def note_refusal(self, method: str, message: Any, error: DetentError) -> None:
        """Note a refused call in a table of its own; it does not use up any key."""
        if isinstance(error, LedgerUnavailable):
            return
        await self._ledger.add_block_events([self._blocked(method, message, error)])

    def _blocked(self, method: str, message: Any, error: DetentError) -> BlockEvent:
        return BlockEvent(
            at_ms=self._now_ms(),
            method=method,
            plan_id=str(getattr(message, "plan_id", "")),
            binding_hash=str(getattr(message, "binding_hash", "")),
            ts_ms=getattr(message, "ts_ms", None),
            error=error,
        )

    @property
    def is_busy(self) -> bool:
        """Say whether anything is under way."""
        return bool(self._at_work)

    async def settle(self) -> None:
        """Wait until everything under way is durable."""
        while self._at_work:
            await asyncio.wait(self._at_work)


def _chain_of(opened: OpenPlan, query: DecideTargetWeightsRequest, row: DecisionRow) -> SymbolChain:
    """Give the chain that a row continues, if the plan takes the row at all."""
    plan = opened.bound.plan
    chain = opened.chains.get(row.symbol)
    if chain is None:
        raise SymbolNotInPlan(
            f"plan {plan.plan_id!r} does not name {row.symbol}",
            symbol=row.symbol,
            plan_id=plan.plan_id,
        )
    if row.vol_unit is not plan.policy_config.vol_unit:
        expected = f"the plan's {plan.policy_config.vol_unit}"
        raise InvalidField("vol_unit", row.vol_unit, expected)
    if row.learning is not None and plan.learning is None:
        raise InvalidField("learning", "conditions of learning", "none: the plan is for profit")
    if query.kind is DecisionKind.EMERGENCY and row.exit_intent is None:
        raise InvalidField("exit_intent", "(missing)", "the intent of the emergency")
    return chain


def _result(symbol: str, rows: _Sorted) -> DecisionResult:
    written = rows.written.get(symbol)
    if written is not None:
        return DecisionResult(
            symbol=symbol, decision=decision_of(written.record, written.record_hash)
        )
    error = rows.refusals[symbol]
    return DecisionResult(
        symbol=symbol,
        refusal=RowRefusal(reason=error.reason, message=error.message, metadata=error.metadata),
    )
