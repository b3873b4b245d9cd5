"""Answer a bar without any service: hold, or reduce as the plan itself demands."""

import asyncio

from detent.contracts.binding import SignalSource
from detent.contracts.calls.policy import DecideTargetWeightsRequest, DecisionResult
from detent.contracts.decision import Decision, DecisionKind, DecisionRow, LocalAnswer
from detent.contracts.plan import STATE_INITIAL, OrderStyle, Plan
from detent.contracts.reasons import Reason
from detent.core.ledger.record import policy_inputs
from detent.core.policy.decide import decide_weight
from detent_client.journal import Journal, JournalEntry
from detent_client.opened_plan import OpenedPlan


def answer_locally(
    *, plan: Plan, ts_ms: int, kind: DecisionKind, row: DecisionRow
) -> tuple[Decision, LocalAnswer]:
    """Decide with the live policy and no signal: nothing can be raised that way.

    A forbidden or inactive symbol is flattened, an exit decays, an emergency or stand-down
    is obeyed; everything else keeps what is held, within the limits. A learning position is
    given up (`LEARNING_HOLD_LIMIT`): only the service knows for how long it was held.

    Returns:
        The decision for the strategist and the answer for the journal.
    """
    inputs = policy_inputs(
        plan=plan, ts_ms=ts_ms, kind=kind, row=row, signal=None, state=STATE_INITIAL
    )
    outcome, _ = decide_weight(inputs)
    final_ppm = outcome.target_weight_final_ppm
    decision = Decision(
        symbol=row.symbol,
        ts_ms=ts_ms,
        kind=kind,
        target_weight_final_ppm=final_ppm,
        target_weight_raw_ppm=outcome.target_weight_raw_ppm,
        delta_weight_ppm=outcome.delta_weight_ppm,
        order_style=outcome.order_style if outcome.delta_weight_ppm else OrderStyle.NONE,
        signal_source=SignalSource.PROXY,
        fallback_reason=Reason.CLIENT_NO_SERVICE,
        reasons=outcome.reasons,
        signal_strength_bps=0,
        p_hat_bps=5_000,
        valid_until_ts_ms=ts_ms + plan.bar_interval_ms,
        trade_set_id="",
        record_hash="",
        learning=plan.learning.tags if plan.learning is not None else None,
    )
    local = LocalAnswer(
        ts_ms=ts_ms,
        kind=kind,
        row=row,
        target_weight_final_ppm=final_ppm,
        reason=Reason.CLIENT_NO_SERVICE,
    )
    return decision, local


async def answer_rows(
    journal: Journal, opened: OpenedPlan, request: DecideTargetWeightsRequest
) -> tuple[DecisionResult, ...]:
    """Answer every row of a question by ourselves, all answers journalled first.

    Raises:
        LedgerUnavailable: The journal cannot be written: an unknown answer is none.
    """
    results, entries = [], []
    for row in request.rows:
        decision, local = answer_locally(
            plan=opened.plan, ts_ms=request.ts_ms, kind=request.kind, row=row
        )
        entries.append(
            JournalEntry(
                plan_id=opened.plan.plan_id, binding_hash=opened.binding_hash, answer=local
            )
        )
        results.append(DecisionResult(symbol=row.symbol, decision=decision))
    await asyncio.to_thread(journal.add, *entries)
    return tuple(results)
