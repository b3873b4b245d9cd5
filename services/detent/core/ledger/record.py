"""Decide one row of one bar and account for it: the whole core in one pure call.

The replay and the back-test come through `record_decision`; the live service decides the rows of
a bar together, in `records`, to the same records.
"""

import msgspec
from msgspec import structs

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.checks import check_int
from detent.contracts.decision import (
    GENESIS_HASH,
    DecisionKind,
    DecisionRecord,
    DecisionRow,
    PolicyOutcome,
    SignalRecord,
)
from detent.contracts.errors import InvalidField
from detent.contracts.learning import LearningShorts
from detent.contracts.plan import (
    STATE_INITIAL,
    Plan,
    PolicyState,
    StandDown,
    TriggerState,
)
from detent.contracts.replanning import CarriedState
from detent.contracts.rollout import PlanRollout
from detent.contracts.units import BPS_ONE, TS_MS_MAX
from detent.core.policy.decide import decide_weight
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.learning import LearningTerms
from detent.core.policy.stand_down import stand_down_in_force
from detent.core.rollout.book_gates import book_gates
from detent.core.rollout.learning_gate import closed_gates
from detent.core.signals.choice import ModelOutcome, choose_signal, policy_signal_bps
from detent.core.signals.proxy import ProxyAnswer


class BoundPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an open plan with its binding and the two hashes that every record repeats.

    Attributes:
        plan: The plan.
        binding: What its binding effectively is.
        binding_hash: The hash of that.
        policy_config_hash: The hash of its policy config.
        rollout: Which arm of which rollout it is; None for a plan of its own.
        shadow_binding: What answers beside, for comparison only, or None.
    """

    plan: Plan
    binding: ModelBinding
    binding_hash: str
    policy_config_hash: str
    rollout: PlanRollout | None = None
    shadow_binding: ModelBinding | None = None


def bind_plan(
    plan: Plan,
    binding: ModelBinding,
    *,
    rollout: PlanRollout | None = None,
    shadow_binding: ModelBinding | None = None,
) -> BoundPlan:
    """Freeze a plan under what its binding effectively is."""
    effective = binding.effective
    return BoundPlan(
        rollout=rollout,
        shadow_binding=shadow_binding,
        plan=plan,
        binding=effective,
        binding_hash=effective.binding_hash,
        policy_config_hash=plan.policy_config.policy_config_hash,
    )


class ChainPoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds where the chain of one plan and symbol stands: what the next record builds on.

    Only a chain that has no record yet carries something over from a plan that was replaced.
    """

    sequence: int
    previous_hash: str
    state: PolicyState
    carried: CarriedState | None = None


CHAIN_START = ChainPoint(sequence=0, previous_hash=GENESIS_HASH, state=STATE_INITIAL)


def carried_from(record: DecisionRecord, record_hash: str) -> CarriedState:
    """Give what a replacing plan takes over from the last record of a symbol."""
    return CarriedState(
        plan_id=record.plan_id,
        record_hash=record_hash,
        ts_ms=record.ts_ms,
        state=record.state_after,
    )


def chain_start(carried: CarriedState | None) -> ChainPoint:
    """Give the begin of a chain; its state goes on where the replaced plan's ended."""
    if carried is None:
        return CHAIN_START
    return structs.replace(CHAIN_START, state=carried.state, carried=carried)


def chain_point_after(record: DecisionRecord, record_hash: str) -> ChainPoint:
    """Give where a chain stands after one of its records, whose hash is known."""
    return ChainPoint(
        sequence=record.sequence + 1, previous_hash=record_hash, state=record.state_after
    )


def record_decision(
    *,
    bound: BoundPlan,
    ts_ms: int,
    kind: DecisionKind,
    row: DecisionRow,
    proxy: ProxyAnswer,
    model: ModelOutcome | None,
    point: ChainPoint,
    standing: StandDown | None = None,
) -> DecisionRecord:
    """Decide one row and write its record.

    Args:
        bound: The plan under its binding.
        ts_ms: Close time of the bar.
        kind: Regular decision or emergency.
        row: What the strategist asked.
        proxy: The proxy's answer; always there.
        model: What came of asking the model; None when it was not asked.
        point: Where the chain stands.
        standing: What stands down the symbol in the service, beside what the row says.

    Returns:
        The record; the same arguments give the same bytes.
    """
    signal = choose_signal(
        binding=bound.binding, trigger_state=row.trigger_state, proxy=proxy, model=model
    )
    asked = row.risk_overrides.stand_down if row.risk_overrides is not None else None
    stand_down = None
    if standing is not None or asked is not None:
        stand_down = stand_down_in_force((standing, asked), ts_ms)
    inputs = policy_inputs(
        plan=bound.plan,
        ts_ms=ts_ms,
        kind=kind,
        row=row,
        signal=signal,
        state=point.state,
        stand_down=stand_down,
    )
    outcome, state_after = decide_weight(inputs)
    return record_of(
        bound=bound,
        ts_ms=ts_ms,
        kind=kind,
        row=row,
        point=point,
        signal=signal,
        outcome=outcome,
        state_after=state_after,
        stand_down=stand_down,
    )


def record_of(
    *,
    bound: BoundPlan,
    ts_ms: int,
    kind: DecisionKind,
    row: DecisionRow,
    point: ChainPoint,
    signal: SignalRecord,
    outcome: PolicyOutcome,
    state_after: PolicyState,
    stand_down: StandDown | None,
) -> DecisionRecord:
    """Write the record of a row that is decided: its place in the chain, and what the plan adds."""
    plan_id = bound.plan.plan_id
    return DecisionRecord(
        binding_hash=bound.binding_hash,
        plan_id=plan_id,
        book=bound.plan.book,
        ts_ms=ts_ms,
        kind=kind,
        sequence=point.sequence,
        previous_hash=point.previous_hash,
        policy_config_hash=bound.policy_config_hash,
        trade_set_id=f"{plan_id}/{row.symbol}/{state_after.trade_set_count}",
        row=row,
        signal=signal,
        outcome=outcome,
        state_after=state_after,
        valid_until_ts_ms=min(ts_ms + bound.plan.bar_interval_ms, TS_MS_MAX),
        learning=bound.plan.learning.tags if bound.plan.learning is not None else None,
        stand_down=stand_down,
        carried=point.carried,
    )


def policy_inputs(
    *,
    plan: Plan,
    ts_ms: int,
    kind: DecisionKind,
    row: DecisionRow,
    signal: SignalRecord | None,
    state: PolicyState,
    stand_down: StandDown | None = None,
) -> PolicyInputs:
    """Give policy what it may see of a bar; without a signal it can only hold or reduce."""
    gates = book_gates(plan.l2_limits, row.l2_snapshot, ts_ms=ts_ms)
    return PolicyInputs(
        symbol=row.symbol,
        ts_ms=ts_ms,
        bar_interval_ms=plan.bar_interval_ms,
        trigger_state=row.trigger_state,
        triggers_known=triggers_known(plan, row),
        signal_strength_bps=policy_signal_bps(signal) if signal is not None else None,
        vol_hat_ppm=row.vol_hat_ppm,
        current_weight_ppm=row.position.current_weight_ppm,
        equity=row.position.equity,
        exit_intent=row.exit_intent,
        emergency_only=kind is DecisionKind.EMERGENCY,
        overrides=row.risk_overrides,
        config=plan.policy_config,
        limits=plan.risk_limits,
        state=state,
        learning=learning_terms(plan, row, ts_ms=ts_ms),
        further_exit_intents=row.further_exit_intents,
        stand_down=stand_down,
        no_new_long=gates.no_new_long,
        no_new_short=gates.no_new_short,
    )


def learning_terms(plan: Plan, row: DecisionRow, *, ts_ms: int) -> LearningTerms | None:
    """Give what the learning book of a plan permits on a bar; None for profit."""
    if plan.learning is None:
        return None
    budget, found = plan.learning.budget, row.learning
    # What nobody counted may have been used up.
    exposure_ppm = budget.exposure_ppm if found is None else found.exposure_elsewhere_ppm
    trades = budget.trades_per_day if found is None else found.trades_today
    return LearningTerms(
        closed=closed_gates(plan.learning, found, ts_ms=ts_ms),
        shorts_allowed=budget.shorts is LearningShorts.ALLOWED,
        position_ppm=budget.position_ppm,
        exposure_left_ppm=max(0, budget.exposure_ppm - exposure_ppm),
        trades_left=max(0, budget.trades_per_day - trades),
        hold_ms=budget.hold_ms,
    )


def triggers_known(plan: Plan, row: DecisionRow) -> bool:
    """Say whether a trigger of the plan stands behind the permission that the row claims."""
    if not row.active_trigger_ids:
        return row.trigger_state in (TriggerState.INACTIVE, TriggerState.EXIT_ONLY)
    known = {trigger.trigger_id for trigger in plan.triggers}
    return known.issuperset(row.active_trigger_ids)


def replay_decision(
    record: DecisionRecord, *, bound: BoundPlan, point: ChainPoint
) -> DecisionRecord:
    """Decide a recorded bar again, from its probabilities on.

    Args:
        record: What was recorded; only its question and its two probabilities are used.
        bound: The plan under its binding, as the ledger holds them.
        point: Where the chain stood before the record.

    Returns:
        The record that today's core writes; equal bytes mean that it decides the same.

    Raises:
        InvalidField: Its probabilities are not what any core of ours has written.
    """
    signal = record.signal
    check_probabilities(signal)
    return record_decision(
        bound=bound,
        ts_ms=record.ts_ms,
        kind=record.kind,
        row=record.row,
        proxy=ProxyAnswer(p_hat_bps=signal.proxy_p_hat_bps, reason=signal.proxy_reason),
        model=recorded_outcome(signal),
        point=point,
        standing=record.stand_down,
    )


def check_probabilities(signal: SignalRecord) -> None:
    """Refuse probabilities that no core of ours has written: a ledger may have been rewritten.

    Raises:
        InvalidField: One is out of its range, or they do not fit to what answered.
    """
    check_int("proxy_p_hat_bps", signal.proxy_p_hat_bps, 0, BPS_ONE)
    raw_bps, calibrated_bps = signal.p_hat_raw_bps, signal.p_hat_calibrated_bps
    if calibrated_bps is not None:
        check_int("p_hat_calibrated_bps", calibrated_bps, 0, BPS_ONE)
    if (raw_bps is None) != (calibrated_bps is None):
        raise InvalidField("p_hat_raw_bps", raw_bps, "present with p_hat_calibrated_bps, or absent")
    answered = signal.signal_source is SignalSource.MODEL
    if answered != (calibrated_bps is not None) or (
        answered and signal.fallback_reason is not None
    ):
        found = f"{signal.signal_source}, {calibrated_bps}, {signal.fallback_reason}"
        expected = "a model's probability without a reason, or the proxy's alone"
        raise InvalidField("signal_source", found, expected)


def recorded_outcome(signal: SignalRecord) -> ModelOutcome | None:
    """Give what came of asking the model, as a record holds it; None when it was not asked."""
    if signal.fallback_reason is None and signal.signal_source is not SignalSource.MODEL:
        return None
    return ModelOutcome(
        features_hash=signal.features_hash,
        p_hat_raw_bps=signal.p_hat_raw_bps,
        p_hat_bps=signal.p_hat_calibrated_bps,
        reason=signal.fallback_reason,
    )
