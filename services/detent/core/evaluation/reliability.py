"""Hold what was said against what happened, in bins, and know how much of it is noise.

A perfect model has an ECE above 0 on any finite set of rows, so a number alone says
nothing: it is reported with the band that a perfect model would fall into.

Source: Guo et al. 2017 (bins); Broecker and Smith 2007 (consistency); QUANT A2 and C2;
decision D21.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField
from detent.core.evaluation.binning import Binning, bin_edges, bin_of
from detent.core.evaluation.scores import Floats, Labels, check_rows

BIN_COUNT = 15
NULL_SHARE = 0.95


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the rows whose probability lies in (low, high]; the first bin holds 0 too.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        count: Rows, at least 1: empty bins are not listed.
        p_mean: Mean probability of the rows.
        up_share: Share of the rows that went up.
    """

    low: float
    high: float
    count: int
    p_mean: float
    up_share: float


class NullBand(msgspec.Struct, frozen=True, kw_only=True):
    """Says where a perfectly calibrated model with these probabilities would land.

    Attributes:
        ece_mean: Mean of its ECE.
        ece_high: Quantile `NULL_SHARE` of its ECE.
        up_low: Per listed bin, lower end of the central `NULL_SHARE` of its `up_share`.
        up_high: Per listed bin, upper end.
    """

    ece_mean: float
    ece_high: float
    up_low: tuple[float, ...]
    up_high: tuple[float, ...]


def ece_name(bin_count: int = BIN_COUNT, *, binning: Binning = Binning.WIDTH) -> str:
    """Name the ECE of the positive class, by the form and number of its bins."""
    return f"ece_positive_{binning}{bin_count}"


def reliability_bins(
    p: Floats, labels: Labels, *, bin_count: int = BIN_COUNT, binning: Binning = Binning.WIDTH
) -> tuple[ReliabilityBin, ...]:
    """Sort rows into bins, closed on the right.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.
        bin_count: Number of bins.
        binning: Where their edges are.

    Returns:
        The bins that hold rows, in ascending order.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    edges, index, counts = _assign(p, bin_count, binning)
    p_sums = np.bincount(index, weights=p, minlength=len(counts))
    up_sums = np.bincount(index, weights=labels, minlength=len(counts))
    return tuple(
        ReliabilityBin(
            low=float(edges[bin_]),
            high=float(edges[bin_ + 1]),
            count=int(counts[bin_]),
            p_mean=float(p_sums[bin_] / counts[bin_]),
            up_share=float(up_sums[bin_] / counts[bin_]),
        )
        for bin_ in range(len(counts))
        if counts[bin_] > 0
    )


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Give the ECE: the mean distance of a bin from the diagonal, weighted by its rows."""
    total = sum(bin_.count for bin_ in bins)
    return sum(bin_.count * abs(bin_.up_share - bin_.p_mean) for bin_ in bins) / total


def null_band(
    p: Floats,
    draws: NDArray[np.float64],
    *,
    bin_count: int = BIN_COUNT,
    binning: Binning = Binning.WIDTH,
) -> NullBand:
    """Resample the outcomes from the probabilities themselves.

    Args:
        p: Shape (n,), float64, each in [0, 1].
        draws: Shape (resamples, n), float64, uniform on [0, 1). They come from outside,
            because nothing here may draw for itself.
        bin_count: Number of bins.
        binning: Where their edges are.

    Raises:
        InvalidField: There are no rows or no draws, or the shapes differ.
    """
    check_rows(p, np.zeros(p.shape, dtype=np.bool_))
    if draws.ndim != 2 or draws.shape[0] == 0 or draws.shape[1] != len(p):  # noqa: PLR2004
        raise InvalidField("draws", f"shape {draws.shape}", f"(resamples, {len(p)})")
    _, index, counts = _assign(p, bin_count, binning)
    used = counts > 0
    p_means = np.bincount(index, weights=p, minlength=len(counts))[used] / counts[used]
    up_shares = np.array(
        [
            np.bincount(index, weights=row < p, minlength=len(counts))[used] / counts[used]
            for row in draws
        ]
    )
    errors = np.abs(up_shares - p_means) @ counts[used] / len(p)
    tail = (1.0 - NULL_SHARE) / 2.0
    return NullBand(
        ece_mean=float(np.mean(errors)),
        ece_high=float(np.quantile(errors, NULL_SHARE)),
        up_low=tuple(np.quantile(up_shares, tail, axis=0).tolist()),
        up_high=tuple(np.quantile(up_shares, 1.0 - tail, axis=0).tolist()),
    )


def _assign(
    p: Floats, bin_count: int, binning: Binning
) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Give the edges, the bin of every row, and the rows of every bin."""
    edges = bin_edges(p, bin_count, binning)
    index = bin_of(p, edges)
    return edges, index, np.bincount(index, minlength=len(edges) - 1)
