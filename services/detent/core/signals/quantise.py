"""Turn a distribution into basis points that sum to exactly 10000.

Source: decision D6; rounding each share by itself would give 9999 for three thirds.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE

# A float32 softmax is off by a few units of its last place; a model that is off by a basis
# point does not answer a distribution.
SUM_TOLERANCE = 1e-4


def is_distribution(probabilities: Sequence[float]) -> bool:
    """Say whether these are probabilities that sum to 1 but for rounding."""
    # Written so that a NaN, which is on no side of anything, is refused too.
    if not all(0.0 <= probability <= 1.0 for probability in probabilities):
        return False
    return abs(math.fsum(probabilities) - 1.0) <= SUM_TOLERANCE


def shares_bps(probabilities: Sequence[float]) -> tuple[int, ...] | Reason:
    """Apportion 10000 basis points by largest remainder.

    The arithmetic is exact: two shares tie if and only if they are equal.

    Args:
        probabilities: One per class in declared order, each at least 0, summing to 1 but
            for rounding.

    Returns:
        One integer per class, none negative, summing to exactly 10000; what is left over
        goes to the largest remainders, on ties to the first class. Or the reason why the
        input is no distribution.
    """
    if not is_distribution(probabilities):
        return Reason.OUTPUT_INVALID
    exact = [Fraction(probability) for probability in probabilities]
    total = sum(exact)
    quotas = [share * BPS_ONE / total for share in exact]
    floors = [math.floor(quota) for quota in quotas]
    remainders = [quota - floor for quota, floor in zip(quotas, floors, strict=True)]
    left_over = BPS_ONE - sum(floors)
    # Sorting is stable, so equal remainders stay in declared order.
    by_remainder = sorted(range(len(quotas)), key=lambda index: -remainders[index])
    raised = set(by_remainder[:left_over])
    return tuple(floor + (index in raised) for index, floor in enumerate(floors))
