"""Turn a permitted magnitude into a weight: dead band, volatility, bounds, smoothing, exit."""

from decimal import Decimal

import msgspec

from detent.contracts.plan import PolicyConfig, TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE, PPM_ONE, divide_half_even
from detent.core.policy.inputs import PolicyInputs

DIRECTION = {
    TriggerState.LONG_ALLOWED: 1,
    TriggerState.SHORT_ALLOWED: -1,
    TriggerState.INACTIVE: 0,
    TriggerState.EXIT_ONLY: 0,
}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the signal asks for, before smoothing; parts per million."""

    signal_deadbanded_ppm: int
    vol_scale_ppm: int
    target_weight_raw_ppm: int
    reasons: tuple[Reason, ...]


def wanted_weight(inputs: PolicyInputs) -> Wanted:
    """Compute the weight that signal and volatility ask for.

    The ratio is exact until it is rounded once into the recorded weight (decision D22): the
    two recorded factors are for the reader and do not feed it.

    Source: FORMULAS 2.1, steps 1 to 5.
    """
    config = inputs.config
    reasons: list[Reason] = []
    strength_bps = inputs.signal_strength_bps or 0
    excess_bps = max(0, strength_bps - config.tau_bps)
    span_bps = BPS_ONE - config.tau_bps
    scale_numerator, scale_denominator = _vol_scale(config, inputs.vol_hat_ppm)
    direction = DIRECTION[inputs.trigger_state]
    if direction != 0 and inputs.signal_strength_bps is not None and excess_bps == 0:
        reasons.append(Reason.SIGNAL_BELOW_TAU)
    if direction != 0 and scale_numerator == 0:
        reasons.append(Reason.VOL_INVALID)

    numerator = excess_bps * scale_numerator * PPM_ONE
    denominator = span_bps * scale_denominator
    magnitude_ppm = 0
    if direction != 0 and numerator > 0:
        if numerator < config.w_min_ppm * denominator:
            magnitude_ppm = config.w_min_ppm
            reasons.append(Reason.WEIGHT_MIN_RAISED)
        elif numerator > config.w_max_ppm * denominator:
            magnitude_ppm = config.w_max_ppm
            reasons.append(Reason.WEIGHT_MAX_CAPPED)
        else:
            magnitude_ppm = divide_half_even(numerator, denominator)
    return Wanted(
        signal_deadbanded_ppm=divide_half_even(excess_bps * PPM_ONE, span_bps),
        vol_scale_ppm=divide_half_even(scale_numerator * PPM_ONE, scale_denominator),
        target_weight_raw_ppm=direction * magnitude_ppm,
        reasons=tuple(reasons),
    )


def _vol_scale(config: PolicyConfig, vol_hat_ppm: int | None) -> tuple[int, int]:
    """Give clamp(target / vol_hat, 0, 1) as a ratio; 0 / 1 when the volatility is unknown."""
    if vol_hat_ppm is None or vol_hat_ppm <= 0:
        return 0, 1
    return min(config.vol_target_ppm, vol_hat_ppm), vol_hat_ppm


def smoothed_weight(inputs: PolicyInputs, wanted: Wanted) -> tuple[int, list[Reason]]:
    """Move from the current weight toward the wanted one, or out, within the permission.

    Returns:
        The weight in parts per million, whose sign never opposes the trigger, and the
        reasons in order of evaluation.

    Source: FORMULAS 2.1, step 6; decision D8.
    """
    match inputs.trigger_state:
        case TriggerState.INACTIVE:
            return 0, [Reason.TRIGGER_INACTIVE]
        case TriggerState.EXIT_ONLY:
            return _decayed_weight(inputs)
        case TriggerState.LONG_ALLOWED | TriggerState.SHORT_ALLOWED:
            return _entry_weight(inputs, wanted)


def _entry_weight(inputs: PolicyInputs, wanted: Wanted) -> tuple[int, list[Reason]]:
    direction = DIRECTION[inputs.trigger_state]
    unsure = not inputs.triggers_known or inputs.signal_strength_bps is None
    # Without a volatility a signal may still shrink a weight: below the dead band it asks
    # for 0 whatever the volatility is.
    unscaled = Reason.VOL_INVALID in wanted.reasons and wanted.signal_deadbanded_ppm > 0
    if unsure or unscaled:
        reasons = [Reason.HOLD_OR_REDUCE]
        if not inputs.triggers_known:
            reasons.insert(0, Reason.TRIGGER_UNKNOWN)
        return held_weight(inputs, direction), reasons

    alpha_ppm = inputs.config.alpha_ppm
    moved = (PPM_ONE - alpha_ppm) * inputs.current_weight_ppm
    moved += alpha_ppm * wanted.target_weight_raw_ppm
    weight_ppm = divide_half_even(moved, PPM_ONE)
    if weight_ppm * direction < 0:
        return 0, [Reason.SIGN_CLAMPED]
    return weight_ppm, []


def held_weight(inputs: PolicyInputs, direction: int) -> int:
    """Keep the current weight, as far as sign and bounds allow; never more than is held."""
    held_ppm = max(0, direction * inputs.current_weight_ppm)
    return direction * min(held_ppm, inputs.config.w_max_ppm)


def _decayed_weight(inputs: PolicyInputs) -> tuple[int, list[Reason]]:
    """Shrink strictly, and to exactly 0 once the rest is not worth holding."""
    current_ppm = inputs.current_weight_ppm
    if current_ppm == 0:
        return 0, []
    kept_ppm = PPM_ONE - inputs.config.alpha_ppm
    magnitude_ppm = divide_half_even(kept_ppm * abs(current_ppm), PPM_ONE)
    # Half-even rounding of a small weight may stand still; an exit may not.
    magnitude_ppm = min(magnitude_ppm, abs(current_ppm) - 1)
    if not is_worth_holding(inputs, magnitude_ppm):
        return 0, [Reason.EXIT_DECAY, Reason.EXIT_SNAPPED]
    return (magnitude_ppm if current_ppm > 0 else -magnitude_ppm), [Reason.EXIT_DECAY]


def is_worth_holding(inputs: PolicyInputs, magnitude_ppm: int) -> bool:
    """Say whether what an exit leaves is more than the band and the least notional (D8)."""
    config = inputs.config
    if magnitude_ppm <= config.epsilon_w_ppm:
        return False
    return notional_of(magnitude_ppm, inputs.equity) > config.min_trade_notional


def notional_of(weight_ppm: int, equity: Decimal) -> Decimal:
    """Give the notional of a weight in account currency."""
    return Decimal(abs(weight_ppm)) * equity / PPM_ONE
