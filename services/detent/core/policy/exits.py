"""Rank the exits of one bar: emergency, off, reduce, and below them what the trigger permits.

Exits do not add up. Several of one kind count once, and of several kinds the weight obeys the
strongest that is not vetoed; only an emergency can be (decision D8).
"""

from collections.abc import Sequence

from detent.contracts.plan import ExitIntent, ExitKind
from detent.contracts.reasons import Reason
from detent.contracts.units import PPM_ONE, divide_half_even
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.weight import is_worth_holding


def exit_intents(inputs: PolicyInputs) -> tuple[ExitIntent, ...]:
    """Give every exit that the bar asks for, in the order in which it names them."""
    if inputs.exit_intent is None:
        return ()
    return (inputs.exit_intent, *inputs.further_exit_intents)


def emergency_reason(inputs: PolicyInputs, intents: Sequence[ExitIntent]) -> Reason | None:
    """Say what becomes of the emergency intents; None when there is none.

    One that names its rule speaks for all: a blank one beside it costs nothing.

    Source: seed 002, phase 0 A; rows R225 to R230, R346, R347.
    """
    rules = [intent.exit_rule_id for intent in intents if intent.kind is ExitKind.EMERGENCY]
    if not rules:
        return None
    if not any(rule.strip() for rule in rules):
        return Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE
    entry_ts_ms = inputs.state.entry_ts_ms
    if entry_ts_ms is not None and inputs.current_weight_ppm != 0:
        if entry_ts_ms == inputs.ts_ms:
            return Reason.EMERGENCY_EXIT_VETO_SAME_BAR
        if inputs.bars_since(entry_ts_ms) < inputs.config.min_hold_bars:
            return Reason.EMERGENCY_EXIT_VETO_MIN_HOLD
    return Reason.EMERGENCY_EXIT_EXECUTED


def derisked_weight(
    inputs: PolicyInputs, intents: Sequence[ExitIntent], weight_ppm: int
) -> tuple[int, list[Reason]]:
    """Apply the risk exits of a bar, the latch of an earlier one included.

    A reduction is a share of what is held, the largest of those asked for, and what is left
    of it bounds the weight: a weight that is smaller already stays. What is left and not worth
    holding is given up as well.

    Returns:
        The weight, and the reason of everything that was asked for, weakest first.

    Source: row R349; FORMULAS 2.2, the ladder.
    """
    reasons: list[Reason] = []
    if inputs.state.latched_ts_ms is not None:
        held_ppm = not_more_than_held(inputs, weight_ppm)
        if held_ppm != weight_ppm:
            weight_ppm = held_ppm
            reasons.append(Reason.RISK_OFF_LATCHED)
    shares_ppm = [intent.reduce_ppm for intent in intents if intent.reduce_ppm is not None]
    if shares_ppm:
        reasons.append(Reason.RISK_REDUCE)
        weight_ppm, snapped = _reduced(inputs, weight_ppm, max(shares_ppm))
        if snapped:
            reasons.append(Reason.EXIT_SNAPPED)
    if is_risk_off(intents):
        reasons.append(Reason.RISK_OFF)
        weight_ppm = 0
    return weight_ppm, reasons


def is_risk_off(intents: Sequence[ExitIntent]) -> bool:
    """Say whether a bar asks for everything to be given up, without a veto."""
    return any(intent.kind is ExitKind.RISK_OFF for intent in intents)


def not_more_than_held(inputs: PolicyInputs, weight_ppm: int) -> int:
    """Cut a weight to what is held: no new exposure, and the way out stays open."""
    current_ppm = inputs.current_weight_ppm
    if weight_ppm * current_ppm <= 0:
        return 0
    magnitude_ppm = min(abs(weight_ppm), abs(current_ppm))
    return magnitude_ppm if weight_ppm > 0 else -magnitude_ppm


def _reduced(inputs: PolicyInputs, weight_ppm: int, share_ppm: int) -> tuple[int, bool]:
    """Bound a weight by what a reduction leaves; say whether the rest was not worth holding."""
    size_ppm = abs(inputs.current_weight_ppm)
    left_ppm = divide_half_even((PPM_ONE - share_ppm) * size_ppm, PPM_ONE)
    # Half-even rounding of a small weight may stand still; a reduction may not.
    left_ppm = max(0, min(left_ppm, size_ppm - 1))
    snapped = left_ppm > 0 and not is_worth_holding(inputs, left_ppm)
    bound_ppm = 0 if snapped else left_ppm
    within_ppm = not_more_than_held(inputs, weight_ppm)
    magnitude_ppm = min(abs(within_ppm), bound_ppm)
    return (magnitude_ppm if within_ppm > 0 else -magnitude_ppm), snapped
