"""Hold a weight of a learning book within its own budget; nothing here blocks an exit.

Source: FORMULAS 2.5; rows R351 and R352; decision D24; ADR 0032.
"""

import msgspec

from detent.contracts.reasons import Reason

# What must get out of a learning book gets out at once.
LEARNING_EXITS = frozenset({Reason.LEARNING_SHORT_DISABLED, Reason.LEARNING_HOLD_LIMIT})


class LearningTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a learning book permits on one bar; weights are parts per million.

    Attributes:
        closed: Gates that are closed, in order; one of them suffices to begin nothing new.
        shorts_allowed: Whether a weight may be below 0.
        position_ppm: Largest magnitude of one weight.
        exposure_left_ppm: What the experiment's other positions leave, at least 0.
        trades_left: Entries that the day leaves, at least 0.
        hold_ms: How long a position may be held.
    """

    closed: tuple[Reason, ...]
    shorts_allowed: bool
    position_ppm: int
    exposure_left_ppm: int
    trades_left: int
    hold_ms: int


def learning_weight(
    terms: LearningTerms, weight_ppm: int, *, current_ppm: int, held_ms: int | None
) -> tuple[int, tuple[Reason, ...]]:
    """Cut a weight to what its learning book permits.

    Args:
        terms: What is permitted.
        weight_ppm: The weight after every limit of the plan.
        current_ppm: What is held.
        held_ms: For how long, by data time; None when nothing is held.

    Returns:
        The weight, never larger and never of another sign, and every rule that holds.
    """
    reasons: list[Reason] = []
    magnitude_ppm = abs(weight_ppm)
    held_ppm = abs(current_ppm) if weight_ppm * current_ppm > 0 else 0
    # (1) What may not be held at all.
    if weight_ppm < 0 and not terms.shorts_allowed:
        magnitude_ppm = 0
        reasons.append(Reason.LEARNING_SHORT_DISABLED)
    if held_ms is not None and held_ms >= terms.hold_ms:
        magnitude_ppm = 0
        reasons.append(Reason.LEARNING_HOLD_LIMIT)
    # (2) How large it may be; exposure elsewhere binds only what is new.
    if magnitude_ppm > terms.position_ppm:
        magnitude_ppm = terms.position_ppm
        reasons.append(Reason.LEARNING_POSITION_CAP)
    if magnitude_ppm > max(terms.exposure_left_ppm, held_ppm):
        magnitude_ppm = max(terms.exposure_left_ppm, held_ppm)
        reasons.append(Reason.LEARNING_EXPOSURE_CAP)
    # (3) Whether anything new may begin.
    if magnitude_ppm > 0 and held_ppm == 0 and terms.trades_left == 0:
        magnitude_ppm = 0
        reasons.append(Reason.LEARNING_TRADE_COUNT)
    if terms.closed:
        # A closed book says so even while it is flat.
        magnitude_ppm = min(magnitude_ppm, held_ppm)
        reasons.extend(terms.closed)
    return (magnitude_ppm if weight_ppm > 0 else -magnitude_ppm), tuple(reasons)
