"""Compose the policy: one bar of one symbol in, one outcome and the new state out."""

from msgspec import structs

from detent.contracts.decision import PolicyOutcome
from detent.contracts.plan import OrderStyle, PolicyState, TriggerState
from detent.contracts.reasons import Reason
from detent.core.policy.exits import exit_intents, is_risk_off
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.overrides import Overridden, override_weight
from detent.core.policy.rebalance import rebalance
from detent.core.policy.weight import DIRECTION, held_weight, smoothed_weight, wanted_weight


def decide_weight(inputs: PolicyInputs) -> tuple[PolicyOutcome, PolicyState]:
    """Decide the target weight of one bar.

    Pure and in integers: the same inputs give the same outcome on every machine.

    Returns:
        The outcome, in which the final weight never opposes the trigger and never exceeds
        a limit, and what policy remembers from here on.

    Source: FORMULAS 2.1; decisions D8, D9 and D22.
    """
    # (0) Whose entry counts: a reversal is believed once it is held.
    if inputs.state.reversing_from_ppm is not None:
        seen = state_seen(inputs.state, inputs.current_weight_ppm)
        inputs = structs.replace(inputs, state=seen)
    # (1) to (5) What the signal asks for.
    wanted = wanted_weight(inputs)
    # (6) Smoothing, or a monotone exit. An emergency between bars moves nothing else.
    smoothing_reasons: list[Reason] = []
    if inputs.emergency_only:
        policy_ppm = _position_within_permission(inputs)
    else:
        policy_ppm, smoothing_reasons = smoothed_weight(inputs, wanted)
    # (7), (8) What outranks it.
    overridden = override_weight(inputs, policy_ppm)
    if inputs.emergency_only:
        moved = _taken_by_trigger(inputs, policy_ppm, overridden)
    else:
        moved = (*wanted.reasons, *smoothing_reasons)
    # (9) Whether it is traded.
    style, withheld = rebalance(inputs, overridden)
    outcome = PolicyOutcome(
        signal_deadbanded_ppm=wanted.signal_deadbanded_ppm,
        vol_scale_ppm=wanted.vol_scale_ppm,
        target_weight_raw_ppm=wanted.target_weight_raw_ppm,
        target_weight_policy_ppm=policy_ppm,
        target_weight_capped_ppm=overridden.capped_ppm,
        target_weight_final_ppm=overridden.final_ppm,
        delta_weight_ppm=overridden.final_ppm - inputs.current_weight_ppm,
        order_style=style,
        reasons=tuple(dict.fromkeys((*moved, *overridden.reasons, *withheld))),
        precedence_tier=overridden.tier,
        cooldown_recommendation_bars=overridden.cooldown_recommendation_bars,
    )
    state = state_after(
        inputs.state,
        ts_ms=inputs.ts_ms,
        current_ppm=inputs.current_weight_ppm,
        final_ppm=overridden.final_ppm,
        trades=style is not OrderStyle.NONE,
        latched_ts_ms=_latched_ts_ms(inputs),
    )
    return outcome, state


def _position_within_permission(inputs: PolicyInputs) -> int:
    """Give the position that a vetoed emergency leaves in place."""
    if inputs.trigger_state is TriggerState.EXIT_ONLY:
        return inputs.current_weight_ppm
    return held_weight(inputs, DIRECTION[inputs.trigger_state])


def _taken_by_trigger(
    inputs: PolicyInputs, policy_ppm: int, overridden: Overridden
) -> tuple[Reason, ...]:
    """Say why an emergency that is vetoed leaves less than is held; one that is executed says it.

    Source: ADR 0061.
    """
    is_executed = Reason.EMERGENCY_EXIT_EXECUTED in overridden.reasons
    if is_executed or policy_ppm == inputs.current_weight_ppm:
        return ()
    is_inactive = inputs.trigger_state is TriggerState.INACTIVE
    return (Reason.TRIGGER_INACTIVE if is_inactive else Reason.HOLD_OR_REDUCE,)


def state_seen(state: PolicyState, current_ppm: int) -> PolicyState:
    """Settle a reversal that was asked for, by what is held now.

    The order may not have been filled. So the old position keeps its entry and its trade set
    until the new one is held, which was then entered on the bar that asked for it.

    Source: ADR 0062; rows R227, R228 and R353.
    """
    left_ppm = state.reversing_from_ppm
    if left_ppm is None or current_ppm * left_ppm > 0:
        return state
    if current_ppm == 0:
        return structs.replace(state, reversing_from_ppm=None)
    return structs.replace(
        state,
        entry_ts_ms=state.last_rebalance_ts_ms,
        trade_set_count=state.trade_set_count + 1,
        reversing_from_ppm=None,
    )


def state_after(
    before: PolicyState,
    *,
    ts_ms: int,
    current_ppm: int,
    final_ppm: int,
    trades: bool,
    latched_ts_ms: int | None,
) -> PolicyState:
    """Fold one outcome into the state; only data time enters.

    Args:
        before: What policy remembered.
        ts_ms: Close time of the bar.
        current_ppm: What was held.
        final_ppm: The final weight.
        trades: Whether the bar rebalances.
        latched_ts_ms: The risk-off exit that keeps new exposure out from here on, or None.
    """
    before = state_seen(before, current_ppm)
    held_ppm = final_ppm if trades else current_ppm
    reversing_from_ppm = before.reversing_from_ppm
    if trades:
        reversing_from_ppm = current_ppm if current_ppm * final_ppm < 0 else None
    entry_ts_ms = before.entry_ts_ms if current_ppm != 0 else None
    trade_set_count = before.trade_set_count
    if held_ppm != 0 and current_ppm == 0:
        entry_ts_ms = ts_ms
        trade_set_count += 1
    elif current_ppm != 0 and trade_set_count == 0:
        # The position was there before the plan: it is the plan's first set.
        trade_set_count = 1
    return PolicyState(
        last_target_weight_ppm=final_ppm,
        last_rebalance_ts_ms=ts_ms if trades else before.last_rebalance_ts_ms,
        entry_ts_ms=entry_ts_ms if held_ppm != 0 else None,
        trade_set_count=trade_set_count,
        latched_ts_ms=latched_ts_ms,
        reversing_from_ppm=reversing_from_ppm,
    )


def _latched_ts_ms(inputs: PolicyInputs) -> int | None:
    """Say which risk-off exit keeps new exposure out from here on.

    It does so until a regular bar whose trigger permits no direction: a permission that stood
    while the risk was taken off has to be given anew.
    """
    if is_risk_off(exit_intents(inputs)):
        return inputs.ts_ms
    if DIRECTION[inputs.trigger_state] == 0 and not inputs.emergency_only:
        return None
    return inputs.state.latched_ts_ms
