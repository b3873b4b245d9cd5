"""Give the errors of calibration that are in use beside the plain ECE, each by its own name.

They differ by more than their noise: in what is binned (the positive class, the top label,
every class), in the bins, in the norm, and in what is done about the bias of few rows.

Source: Guo et al. 2017; Neumann et al. 2018; Kumar et al. 2019; QUANT A2; decision D21.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

from detent.contracts.errors import InvalidField
from detent.core.evaluation.binning import Binning
from detent.core.evaluation.class_scores import Classes, check_shares
from detent.core.evaluation.reliability import (
    BIN_COUNT,
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)
from detent.core.evaluation.scores import Floats, Labels

# A bin of a few rows is as far off as chance has it, and would be the maximum nearly always.
MCE_COUNT_MIN = 30


class ErrorOf(StrEnum):
    """Names what an error of calibration is measured on."""

    POSITIVE = "positive"
    TOP_LABEL = "top_label"
    CLASSWISE = "classwise"


def error_name(
    error: str, of: ErrorOf, *, bin_count: int = BIN_COUNT, binning: Binning = Binning.WIDTH
) -> str:
    """Name an error by what it is measured on and by its bins, which are closed on the right.

    For example `ece_top_label_width15`; `error` is `ece`, `mce_min30`, `ace`, `l2` or
    `l2_debiased`.
    """
    return f"{error}_{of}_{binning}{bin_count}"


def maximum_error(bins: Sequence[ReliabilityBin], *, count_min: int = MCE_COUNT_MIN) -> float:
    """Give the distance of the bin that is farthest from the diagonal (MCE).

    Args:
        bins: The bins.
        count_min: Rows that a bin must have to count.

    Raises:
        InvalidField: No bin has as many rows: that is no evidence of anything.
    """
    found = [_distance(bin_) for bin_ in bins if bin_.count >= count_min]
    if not found:
        largest = max(bin_.count for bin_ in bins)
        raise InvalidField("bins", f"at most {largest} rows", f"a bin of {count_min} rows")
    return max(found)


def average_error(bins: Sequence[ReliabilityBin]) -> float:
    """Give the mean distance of the bins that hold rows, whatever their rows (ACE)."""
    return math.fsum(_distance(bin_) for bin_ in bins) / len(bins)


def squared_error(bins: Sequence[ReliabilityBin]) -> float:
    """Give the root of the mean squared distance, weighted by rows (l2)."""
    total = sum(bin_.count for bin_ in bins)
    return math.sqrt(math.fsum(bin_.count * _distance(bin_) ** 2 for bin_ in bins) / total)


def debiased_squared_error(bins: Sequence[ReliabilityBin]) -> float:
    """Give the l2 error less what chance alone adds to each bin, at least 0.

    A bin of one row says nothing of its own spread and counts as calibrated.
    """
    total = sum(bin_.count for bin_ in bins)
    squares = (
        bin_.count * (_distance(bin_) ** 2 - bin_.up_share * (1.0 - bin_.up_share) / rest)
        for bin_ in bins
        if (rest := bin_.count - 1) > 0
    )
    return math.sqrt(max(math.fsum(squares) / total, 0.0))


def top_label(shares: Floats, classes: Classes) -> tuple[Floats, Labels]:
    """Reduce classes to the most probable one: what was said of it, and whether it came true.

    Args:
        shares: Shape (n, k), float64, each row a distribution, n at least 1.
        classes: Shape (n,), int64, the class that came true, in [0, k).

    Raises:
        InvalidField: There are no rows, or a row is no distribution.
    """
    check_shares(shares, classes)
    return shares.max(axis=1), shares.argmax(axis=1) == classes


def classwise_bins(
    shares: Floats,
    classes: Classes,
    *,
    bin_count: int = BIN_COUNT,
    binning: Binning = Binning.WIDTH,
) -> tuple[tuple[ReliabilityBin, ...], ...]:
    """Give the bins of each class against the rest.

    Args and errors: as for `top_label`.
    """
    check_shares(shares, classes)
    return tuple(
        reliability_bins(shares[:, class_], classes == class_, bin_count=bin_count, binning=binning)
        for class_ in range(shares.shape[1])
    )


def classwise_error(bins: Sequence[tuple[ReliabilityBin, ...]]) -> float:
    """Give the mean of the classes' ECEs."""
    return math.fsum(map(calibration_error, bins)) / len(bins)


def _distance(bin_: ReliabilityBin) -> float:
    return abs(bin_.up_share - bin_.p_mean)
