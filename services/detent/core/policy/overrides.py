"""Apply what outranks policy: risk caps, stand-down, emergency exit, in that order."""

import msgspec

from detent.contracts.plan import ExitKind
from detent.contracts.reasons import Reason
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.learning import LearningTerms, learning_weight

TIER_EMERGENCY = 1
TIER_STAND_DOWN = 2
TIER_RISK_CAP = 3
TIER_POLICY = 4


class Overridden(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a weight after every override, which rules fired, and the tier that decided."""

    capped_ppm: int
    final_ppm: int
    tier: int
    reasons: tuple[Reason, ...]
    cooldown_recommendation_bars: int | None


def override_weight(inputs: PolicyInputs, weight_ppm: int) -> Overridden:
    """Apply every override; all that fire are recorded, the strongest decides.

    Source: FORMULAS 2.1, steps 7 and 8; decision D8.
    """
    capped_ppm, cap_reasons = _capped(inputs, weight_ppm)
    if inputs.learning is not None:
        capped_ppm, learning_reasons = learning_weight(
            inputs.learning,
            capped_ppm,
            current_ppm=inputs.current_weight_ppm,
            held_ms=_held_ms(inputs, inputs.learning),
        )
        cap_reasons.extend(learning_reasons)
    reasons = list(cap_reasons)
    final_ppm = capped_ppm
    tier = TIER_RISK_CAP if cap_reasons else TIER_POLICY
    if _stands_down(inputs):
        reasons.append(Reason.STAND_DOWN)
        final_ppm, tier = 0, TIER_STAND_DOWN

    cooldown_bars = None
    emergency = emergency_reason(inputs)
    if emergency is not None:
        config = inputs.config
        cooldown_bars = max(1, config.rebalance_cooldown_bars, config.min_hold_bars)
        reasons.append(emergency)
        if emergency is Reason.EMERGENCY_EXIT_EXECUTED:
            final_ppm, tier = 0, TIER_EMERGENCY
        else:
            final_ppm = _not_more_than_held(inputs, final_ppm)
    return Overridden(
        capped_ppm=capped_ppm,
        final_ppm=final_ppm,
        tier=tier,
        reasons=tuple(reasons),
        cooldown_recommendation_bars=cooldown_bars,
    )


def emergency_reason(inputs: PolicyInputs) -> Reason | None:
    """Say what becomes of an emergency intent; None when there is none.

    Source: seed 002, phase 0 A; rows R225 to R230, R346, R347.
    """
    intent = inputs.exit_intent
    if intent is None or intent.kind is not ExitKind.EMERGENCY:
        return None
    if not intent.exit_rule_id.strip():
        return Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE
    entry_ts_ms = inputs.state.entry_ts_ms
    if entry_ts_ms is not None and inputs.current_weight_ppm != 0:
        if entry_ts_ms == inputs.ts_ms:
            return Reason.EMERGENCY_EXIT_VETO_SAME_BAR
        if inputs.bars_since(entry_ts_ms) < inputs.config.min_hold_bars:
            return Reason.EMERGENCY_EXIT_VETO_MIN_HOLD
    return Reason.EMERGENCY_EXIT_EXECUTED


def _held_ms(inputs: PolicyInputs, terms: LearningTerms) -> int | None:
    """Say for how long a learning position was held; None when there is none."""
    if inputs.current_weight_ppm == 0:
        return None
    entry_ts_ms = inputs.state.entry_ts_ms
    # A position that is older than its plan is old enough: a new plan is no new hour.
    return terms.hold_ms if entry_ts_ms is None else inputs.ts_ms - entry_ts_ms


def _stands_down(inputs: PolicyInputs) -> bool:
    stand_down = inputs.overrides.stand_down if inputs.overrides is not None else None
    return stand_down is not None and inputs.ts_ms < stand_down.until_ts_ms


def _capped(inputs: PolicyInputs, weight_ppm: int) -> tuple[int, list[Reason]]:
    overrides = inputs.overrides
    override_cap_ppm = overrides.max_weight_ppm if overrides is not None else None
    allowlist = inputs.config.symbol_allowlist
    symbol_cap_ppm = inputs.limits.symbol_cap_ppm(inputs.symbol)
    w_max_ppm = inputs.config.w_max_ppm
    caps = (
        (Reason.WEIGHT_MAX_CAPPED, w_max_ppm),
        (Reason.RISK_CAP_SYMBOL, symbol_cap_ppm),
        (Reason.RISK_CAP_PLAN, inputs.limits.max_weight_ppm),
        (Reason.RISK_CAP_OVERRIDE, override_cap_ppm),
    )
    reasons: list[Reason] = []
    magnitude_ppm = abs(weight_ppm)
    for reason, cap_ppm in caps:
        if cap_ppm is not None and magnitude_ppm > cap_ppm:
            magnitude_ppm = cap_ppm
            reasons.append(reason)
    if allowlist and inputs.symbol not in allowlist:
        # A forbidden symbol is told so even while it is flat.
        magnitude_ppm = 0
        reasons.append(Reason.SYMBOL_NOT_ALLOWED)
    return (magnitude_ppm if weight_ppm > 0 else -magnitude_ppm), reasons


def _not_more_than_held(inputs: PolicyInputs, weight_ppm: int) -> int:
    """Cut a weight to what is held: who asks for an exit does not get more."""
    current_ppm = inputs.current_weight_ppm
    if weight_ppm * current_ppm <= 0:
        return 0
    magnitude_ppm = min(abs(weight_ppm), abs(current_ppm))
    return magnitude_ppm if weight_ppm > 0 else -magnitude_ppm
