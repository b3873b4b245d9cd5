"""Decide whether a change of weight is traded on this bar, and how."""

from detent.contracts.plan import OrderStyle, TriggerState
from detent.contracts.reasons import Reason
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.learning import LEARNING_EXITS
from detent.core.policy.overrides import Overridden
from detent.core.policy.weight import notional_of

# What must get out gets out: no band, no cooldown, no least notional (decision D8).
EXEMPT_REASONS = LEARNING_EXITS | {
    Reason.STAND_DOWN,
    Reason.EMERGENCY_EXIT_EXECUTED,
    Reason.SYMBOL_NOT_ALLOWED,
    Reason.RISK_OFF,
    Reason.RISK_REDUCE,
}
# A tightened limit does not wait for a cooldown, but a sliver beyond it is not traded.
CAP_REASONS = frozenset(
    {
        Reason.WEIGHT_MAX_CAPPED,
        Reason.RISK_CAP_SYMBOL,
        Reason.RISK_CAP_PLAN,
        Reason.RISK_CAP_OVERRIDE,
        Reason.LEARNING_POSITION_CAP,
    }
)


def rebalance(inputs: PolicyInputs, overridden: Overridden) -> tuple[OrderStyle, list[Reason]]:
    """Say how to work the delta; NONE when this bar does not trade.

    Returns:
        The order style, and every rule that withheld the trade, in order of evaluation.

    Source: seed 002, phase 1 C; rows R214 to R217.
    """
    delta_ppm = overridden.final_ppm - inputs.current_weight_ppm
    if delta_ppm == 0:
        return OrderStyle.NONE, []
    leaving = inputs.trigger_state in (TriggerState.INACTIVE, TriggerState.EXIT_ONLY)
    if leaving or EXEMPT_REASONS.intersection(overridden.reasons):
        return OrderStyle.TAKER, []

    config = inputs.config
    withheld: list[Reason] = []
    if abs(delta_ppm) <= config.epsilon_w_ppm:
        withheld.append(Reason.REBALANCE_BAND)
    if notional_of(delta_ppm, inputs.equity) < config.min_trade_notional:
        withheld.append(Reason.MIN_NOTIONAL)
    shrinking = abs(overridden.final_ppm) < abs(inputs.current_weight_ppm)
    urgent = shrinking and CAP_REASONS.intersection(overridden.reasons)
    if not urgent and _cools_down(inputs):
        withheld.append(Reason.REBALANCE_COOLDOWN)
    return (OrderStyle.NONE if withheld else OrderStyle.POST_ONLY), withheld


def _cools_down(inputs: PolicyInputs) -> bool:
    last_ts_ms = inputs.state.last_rebalance_ts_ms
    if last_ts_ms is None:
        return False
    return inputs.bars_since(last_ts_ms) < inputs.config.rebalance_cooldown_bars
