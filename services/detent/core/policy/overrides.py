"""Apply what outranks policy: risk limits, stand-down, emergency exit, in that order."""

import msgspec

from detent.contracts.reasons import Reason
from detent.core.policy.exits import (
    derisked_weight,
    emergency_reason,
    exit_intents,
    not_more_than_held,
)
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.learning import LearningTerms, learning_weight
from detent.core.policy.stand_down import stand_down_in_force

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

    The order is that of precedence, weakest first: risk limits (caps, allow-list, what the
    book does not offer, risk exits), stand-down, emergency exit.

    Source: FORMULAS 2.1, steps 7 and 8; decision D8.
    """
    intents = exit_intents(inputs)
    capped_ppm, reasons = _capped(inputs, weight_ppm)
    if inputs.learning is not None:
        capped_ppm, limited = learning_weight(
            inputs.learning,
            capped_ppm,
            current_ppm=inputs.current_weight_ppm,
            held_ms=_held_ms(inputs, inputs.learning),
        )
        reasons += limited
    capped_ppm, blocked = _without_new_exposure(inputs, capped_ppm)
    reasons += blocked
    # A bar without either has nothing to give up, and almost every bar is one.
    if intents or inputs.state.latched_ts_ms is not None:
        capped_ppm, derisked = derisked_weight(inputs, intents, capped_ppm)
        reasons += derisked
    final_ppm = capped_ppm
    tier = TIER_RISK_CAP if reasons else TIER_POLICY
    if _stands_down(inputs):
        reasons.append(Reason.STAND_DOWN)
        final_ppm, tier = 0, TIER_STAND_DOWN

    cooldown_bars = None
    emergency = emergency_reason(inputs, intents) if intents else None
    if emergency is not None:
        config = inputs.config
        cooldown_bars = max(1, config.rebalance_cooldown_bars, config.min_hold_bars)
        reasons.append(emergency)
        held_ppm = not_more_than_held(inputs, final_ppm)
        if held_ppm != final_ppm:
            # Who asks to get out gets no more, vetoed or not; what was lost is on record.
            reasons.append(Reason.EMERGENCY_EXIT_PREEMPTS_ENTRY)
        final_ppm = held_ppm
        if emergency is Reason.EMERGENCY_EXIT_EXECUTED:
            final_ppm, tier = 0, TIER_EMERGENCY
    return Overridden(
        capped_ppm=capped_ppm,
        final_ppm=final_ppm,
        tier=tier,
        reasons=tuple(reasons),
        cooldown_recommendation_bars=cooldown_bars,
    )


def _held_ms(inputs: PolicyInputs, terms: LearningTerms) -> int | None:
    """Say for how long a learning position was held; None when there is none."""
    if inputs.current_weight_ppm == 0:
        return None
    entry_ts_ms = inputs.state.entry_ts_ms
    # A position that is older than its plan is old enough: a new plan is no new hour.
    return terms.hold_ms if entry_ts_ms is None else inputs.ts_ms - entry_ts_ms


def _stands_down(inputs: PolicyInputs) -> bool:
    asked = inputs.overrides.stand_down if inputs.overrides is not None else None
    if asked is None and inputs.stand_down is None:
        return False
    return stand_down_in_force((inputs.stand_down, asked), inputs.ts_ms) is not None


def _without_new_exposure(inputs: PolicyInputs, weight_ppm: int) -> tuple[int, tuple[Reason, ...]]:
    """Keep out what a gate does not let in; holding and leaving always pass."""
    closed = inputs.no_new_long if weight_ppm > 0 else inputs.no_new_short
    if not closed:
        return weight_ppm, ()
    held_ppm = not_more_than_held(inputs, weight_ppm)
    return held_ppm, (closed if held_ppm != weight_ppm else ())


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
