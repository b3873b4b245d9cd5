"""Say whether a model's recent errors have grown against those before.

Integers throughout, so that the boundary is where it is written: an error is the distance of a
probability from what happened, in basis points.

Source: seed 003, section 12.11; rows R258 and R262.
"""

from collections.abc import Sequence

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.units import BPS_ONE, INT32_MAX, divide_half_even

RECENT_ROWS = 100
DRIFT_THRESHOLD_BPS = 2_000


class AccuracyDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how the recent errors compare.

    Attributes:
        drifted: Whether their mean exceeds the earlier mean by more than the threshold.
        growth_bps: Recent mean over earlier mean, less 1, rounded; None where either is not
            known or the earlier one is 0.
        recent_count: Recent rows whose outcome is known.
        earlier_count: Earlier rows whose outcome is known.
    """

    drifted: bool
    growth_bps: int | None
    recent_count: int
    earlier_count: int


def accuracy_drift(
    errors_bps: Sequence[int | None], *, threshold_bps: int = DRIFT_THRESHOLD_BPS
) -> AccuracyDrift:
    """Compare the errors of the last `RECENT_ROWS` rows with those of all rows before.

    Args:
        errors_bps: Per row in the order of time, |probability - outcome| in [0, 10000]; None
            while the outcome is not known.
        threshold_bps: Growth above which errors have drifted; exactly that much has not.

    Returns:
        No drift with fewer than `RECENT_ROWS` rows, and where either side has no outcome.

    Raises:
        InvalidField: An error or the threshold is out of range.
    """
    check_int("threshold_bps", threshold_bps, 0, INT32_MAX)
    for error_bps in errors_bps:
        if error_bps is not None:
            check_int("errors_bps", error_bps, 0, BPS_ONE)
    recent = [error for error in errors_bps[-RECENT_ROWS:] if error is not None]
    earlier = [error for error in errors_bps[:-RECENT_ROWS] if error is not None]
    # Both means over the product of the counts: no division before the comparison.
    recent_share, earlier_share = sum(recent) * len(earlier), sum(earlier) * len(recent)
    judged = len(errors_bps) >= RECENT_ROWS and bool(recent) and bool(earlier)
    growth_bps = None
    if judged and earlier_share > 0:
        growth_bps = divide_half_even((recent_share - earlier_share) * BPS_ONE, earlier_share)
    return AccuracyDrift(
        drifted=judged and recent_share * BPS_ONE > (BPS_ONE + threshold_bps) * earlier_share,
        growth_bps=growth_bps,
        recent_count=len(recent),
        earlier_count=len(earlier),
    )
