"""Couple one-vs-rest probabilities of exclusive outcomes into one distribution.

Source: decisions D15 and D16; QUANT section A1. The seed's softmax of logits is not used:
it changes what already sums to 1.
"""

import math
from collections.abc import Sequence

from detent.contracts.reasons import Reason
from detent.core.signals.calibration import logit

# Seed 004's clip: beyond it an outcome counts as certain, or as impossible.
CERTAIN_MIN = 1.0 - 1e-6
IMPOSSIBLE_MAX = 1e-6
STEPS_MAX = 200
# The shift is found to the last bits of a float64.
SHIFT_STEP_MIN = 1e-15


def couple_odds_ratio(probabilities: Sequence[float]) -> tuple[float, ...] | Reason:
    """Shift all logits by one constant so that the probabilities sum to 1.

    Every odds ratio between two outcomes stays what it was, and so does every distribution.

    Args:
        probabilities: At least two, one per outcome, each in [0, 1].

    Returns:
        The distribution, in the same order; or the reason why there is none: several
        outcomes are certain, or none is possible.
    """
    certain = sum(probability >= CERTAIN_MIN for probability in probabilities)
    possible = sum(probability > IMPOSSIBLE_MAX for probability in probabilities)
    if certain > 1 or possible == 0:
        return Reason.BRACKETS_CONTRADICT
    logits = [logit(probability) for probability in probabilities]
    shift = _shift(logits)
    shifted = [_sigmoid(value - shift) for value in logits]
    total = math.fsum(shifted)
    return tuple(share / total for share in shifted)


def _shift(logits: Sequence[float]) -> float:
    """Find the one c with sum(sigmoid(logit - c)) = 1, by Newton steps kept in a bracket."""
    # With every share at or above 1/k the sum is at least 1, with every one at or below it
    # at most 1: these two shifts enclose the one that is wanted.
    even = math.log(len(logits) - 1)
    low, high = min(logits) + even, max(logits) + even
    shift = min(max(0.0, low), high)
    for _ in range(STEPS_MAX):
        shares = [_sigmoid(value - shift) for value in logits]
        excess = math.fsum(shares) - 1.0
        if excess > 0.0:
            low = shift
        else:
            high = shift
        slope = math.fsum(share * (1.0 - share) for share in shares)
        moved = shift + excess / slope if slope > 0.0 else math.inf
        if not low <= moved <= high:
            moved = (low + high) / 2
        if abs(moved - shift) <= SHIFT_STEP_MIN * max(1.0, abs(shift)):
            return moved
        shift = moved
    return shift


def _sigmoid(value: float) -> float:
    decay = math.exp(-abs(value))
    return (1.0 if value >= 0.0 else decay) / (1.0 + decay)
