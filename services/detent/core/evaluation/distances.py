"""Say how far two samples of one number lie apart: KS, Wasserstein, PSI, Jensen-Shannon.

A distance alone says nothing, because two samples of one distribution lie apart too: the KS
distance comes with its exact p-value, PSI with the band that no shift at all would stay in.

Source: Kolmogorov and Smirnov; Schroeer and Trenkler 1995 (exact distribution); QUANT A8.
"""

import math

import numpy as np
from numpy.typing import NDArray

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX

Floats = NDArray[np.float64]
# What an empty bin counts as, in shares: part of the definition of our PSI.
SHARE_MIN = 1e-4
PSI_BINS = 10
PSI_BAND = 0.95
# Two distances that differ by less than this are the same fraction of two counts.
_SAME_FRACTION = 1e-7


def ks_distance(reference: Floats, current: Floats) -> float:
    """Give the greatest distance between two empirical distribution functions, [0, 1].

    Args:
        reference: Shape (n,), float64, finite, n at least 1.
        current: Shape (m,), float64, finite, m at least 1.

    Raises:
        InvalidField: A sample is empty or holds what is not finite.
    """
    first, second = _sorted("reference", reference), _sorted("current", current)
    both = np.concatenate((first, second))
    below_first = np.searchsorted(first, both, side="right") / len(first)
    below_second = np.searchsorted(second, both, side="right") / len(second)
    return float(np.max(np.abs(below_first - below_second)))


def ks_p_value(distance: float, reference_rows: int, current_rows: int) -> float:
    """Give the chance that two samples of one distribution lie at least so far apart.

    Exact for independent rows without ties; with ties it is too large, which errs to the safe
    side. With autocorrelation it is far too small: see `drift`.

    Args:
        distance: What `ks_distance` gave, [0, 1].
        reference_rows: Rows of the one sample, at least 1.
        current_rows: Rows of the other, at least 1.

    Raises:
        InvalidField: There are no rows, or it is no such distance.
    """
    check_int("reference_rows", reference_rows, 1, INT32_MAX)
    check_int("current_rows", current_rows, 1, INT32_MAX)
    if not 0.0 <= distance <= 1.0:
        raise InvalidField("distance", distance, "in [0, 1]")
    if distance <= 0.0:
        return 1.0
    few, many = sorted((reference_rows, current_rows))
    # The greatest distance that is still smaller, half a step above it.
    steps = math.floor(distance * few * many - _SAME_FRACTION)
    limit = (0.5 + steps) / few / many
    # Walks from (0, 0) to (few, many) that stay within the limit, as chances; a row of the
    # lattice at a time, and in each row only the places that lie within.
    inside: Floats = np.zeros(many + 1)
    inside[: math.floor(limit * many) + 1] = 1.0
    for row in range(1, few + 1):
        low = max(0, math.ceil((row / few - limit) * many))
        high = min(many, math.floor((row / few + limit) * many))
        chances = np.cumsum(inside[low : high + 1] * (row / (row + many)))
        inside = np.zeros(many + 1)
        inside[low : high + 1] = chances
    return float(min(1.0, max(0.0, 1.0 - inside[many])))


def wasserstein_distance(reference: Floats, current: Floats) -> float:
    """Give the area between two empirical distribution functions, in units of the number.

    Args and errors: as for `ks_distance`.
    """
    first, second = _sorted("reference", reference), _sorted("current", current)
    both = np.sort(np.concatenate((first, second)))
    below_first = np.searchsorted(first, both[:-1], side="right") / len(first)
    below_second = np.searchsorted(second, both[:-1], side="right") / len(second)
    return float(np.sum(np.abs(below_first - below_second) * np.diff(both)))


def bin_shares(
    reference: Floats, current: Floats, *, bin_count: int = PSI_BINS
) -> tuple[Floats, Floats]:
    """Give the share of each sample in the quantile bins of the reference, closed on the left.

    Returns:
        Two arrays of one length, each summing to 1; where quantiles coincide there are fewer bins.

    Args and errors: as for `ks_distance`; `bin_count` is at least 2.
    """
    check_int("bin_count", bin_count, 2, INT32_MAX)
    first, second = _sorted("reference", reference), _sorted("current", current)
    edges = np.unique(np.quantile(first, np.linspace(0.0, 1.0, bin_count + 1)))
    inner = edges[1:-1]

    def shares(values: Floats) -> Floats:
        bins = np.searchsorted(inner, values, side="right")
        return np.bincount(bins, minlength=len(inner) + 1) / len(values)

    return shares(first), shares(second)


def population_stability_index(first: Floats, second: Floats) -> float:
    """Give the PSI of two arrays of shares, an empty bin counting as `SHARE_MIN`.

    Args:
        first: Shape (bins,), float64: shares of the reference.
        second: Shape (bins,), float64: shares of the current sample.
    """
    one, other = np.maximum(first, SHARE_MIN), np.maximum(second, SHARE_MIN)
    return float(np.sum((other - one) * np.log(other / one)))


def psi_null_band(
    reference_rows: int, current_rows: int, *, bin_count: int = PSI_BINS
) -> tuple[float, float]:
    """Give the mean and the quantile `PSI_BAND` of the PSI where nothing has shifted.

    With 100 rows the quantile is above .17: the usual thresholds of .1 and .25 are folklore.
    """
    scale = 1.0 / reference_rows + 1.0 / current_rows
    freedom = bin_count - 1
    return freedom * scale, chi_square_quantile(PSI_BAND, freedom) * scale


def jensen_shannon_distance(first: Floats, second: Floats) -> float:
    """Give the root of the Jensen-Shannon divergence of two arrays of shares, in base 2, [0, 1]."""
    middle = (first + second) / 2.0
    divergence = (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2.0
    return math.sqrt(max(0.0, divergence) / math.log(2.0))


def chi_square_quantile(share: float, freedom: int) -> float:
    """Give the value below which a chi-square variable lies with chance `share`, (0, 1)."""
    low, high = 0.0, 1.0
    while _chi_square_below(high, freedom) < share:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        if _chi_square_below(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return high


def _chi_square_below(value: float, freedom: int) -> float:
    """Give the regularised lower incomplete gamma function, by its series."""
    shape, half = freedom / 2.0, value / 2.0
    term = math.exp(shape * math.log(half) - half - math.lgamma(shape + 1.0))
    total, divisor = term, shape
    while term > 1e-17 * total:
        divisor += 1.0
        term *= half / divisor
        total += term
    return total


def _relative_entropy(first: Floats, second: Floats) -> float:
    held = first > 0.0
    return float(np.sum(first[held] * np.log(first[held] / second[held])))


def _sorted(field: str, values: Floats) -> Floats:
    if values.ndim != 1 or len(values) == 0:
        raise InvalidField(field, f"shape {values.shape}", "at least one row")
    ordered: Floats = np.sort(values.astype(np.float64))
    # What is not finite sorts to an end: a NaN and infinity last, its negative first.
    if not (math.isfinite(ordered[0]) and math.isfinite(ordered[-1])):
        raise InvalidField(field, "a value that is not finite", "finite values")
    return ordered
