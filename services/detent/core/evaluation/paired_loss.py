"""Bound the difference of two series bar by bar, when bars and symbols depend on one another.

Rows of one bar move together, so a bar is one observation: the mean over its symbols. Labels
that look ahead overlap, so neighbouring bars depend too: either the variance counts that
(Newey and West), or whole blocks of bars are drawn again (Politis and Romano).

Source: Newey and West 1987; Politis and Romano 1994; QUANT A9 and C5.
"""

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField
from detent.core.evaluation.scores import LOG_LOSS_CLIP, Floats, Labels, check_rows

Ints = NDArray[np.int64]
# The share of a bound's side: one-sided, 95%.
CONFIDENCE = 0.95


class HacMean(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a mean and its standard error under autocorrelation."""

    mean: float
    standard_error: float

    @property
    def z(self) -> float:
        """Give the mean over its standard error; 0 where nothing varies."""
        return self.mean / self.standard_error if self.standard_error > 0.0 else 0.0

    @property
    def upper(self) -> float:
        """Give the value that the true mean stays below with `CONFIDENCE`, asymptotically."""
        return self.mean + NormalDist().inv_cdf(CONFIDENCE) * self.standard_error


def brier_losses(p: Floats, labels: Labels) -> Floats:
    """Give the squared distance of each row, shape (n,).

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    return np.asarray((p - labels) ** 2, dtype=np.float64)


def log_losses(p: Floats, labels: Labels) -> Floats:
    """Give the negative log-likelihood of each row in nats, p clipped by `LOG_LOSS_CLIP`.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    clipped = np.clip(p, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    return np.asarray(-np.where(labels, np.log(clipped), np.log1p(-clipped)), dtype=np.float64)


def bar_means(ts_ms: Ints, values: Floats) -> Floats:
    """Average the rows of each bar over its symbols, bars in the order of time.

    Args:
        ts_ms: Shape (n,), int64, in any order.
        values: Shape (n,), float64.
    """
    _, inverse, counts = np.unique(ts_ms, return_inverse=True, return_counts=True)
    return np.asarray(np.bincount(inverse, weights=values) / counts, dtype=np.float64)


def hac_covariance(rows: Floats, lag_count: int) -> Floats:
    """Give the covariance of the mean of rows that depend on their neighbours.

    Args:
        rows: Shape (n, k), in the order of time, n at least 1.
        lag_count: Neighbours on each side that count, with Bartlett's weights; at least 0.

    Returns:
        Shape (k, k).

    Raises:
        InvalidField: There are no rows.
    """
    count = len(rows)
    if count == 0:
        raise InvalidField("rows", 0, "at least one row")
    centred = rows - np.mean(rows, axis=0)
    total = centred.T @ centred
    for lag in range(1, min(lag_count, count - 1) + 1):
        cross = centred[lag:].T @ centred[:-lag]
        total += (1.0 - lag / (lag_count + 1.0)) * (cross + cross.T)
    return np.asarray(total / count**2, dtype=np.float64)


def hac_mean(values: Floats, lag_count: int) -> HacMean:
    """Give the mean of shape (n,) and its standard error, without a small-sample correction.

    Raises:
        InvalidField: There are no values.
    """
    variance = float(hac_covariance(values[:, np.newaxis], lag_count)[0, 0])
    # Rounding may take a sum of squares that cancels a hair below 0.
    return HacMean(mean=float(np.mean(values)), standard_error=math.sqrt(max(variance, 0.0)))


def block_bars(bar_count: int, horizon_bars: int) -> int:
    """Choose the mean length of a block: the horizon, or the cube root of the bars if longer."""
    return max(horizon_bars, math.ceil(math.cbrt(bar_count)), 1)


def stationary_blocks(restarts: Floats, starts: Floats, *, block_bar_count: int) -> Ints:
    """Turn uniform draws into the bars of one resample: blocks that start and end by chance.

    Args:
        restarts: Shape (n,), uniform on [0, 1): whether a bar begins a new block.
        starts: Shape (n,), uniform on [0, 1): where it would.
        block_bar_count: Mean length of a block, at least 1.

    Returns:
        Shape (n,), indices of bars; a block that reaches the end goes on at the beginning.
    """
    count = len(restarts)
    places = np.arange(count)
    begins = restarts < 1.0 / block_bar_count
    begins[:1] = True
    begun_at = np.maximum.accumulate(np.where(begins, places, 0))
    first = (starts * count).astype(np.int64)[begun_at]
    return np.asarray((first + places - begun_at) % count, dtype=np.int64)


def upper_bound(statistic: Callable[[Ints], float], resamples: Iterable[Ints]) -> float:
    """Give the value that a statistic stays below in `CONFIDENCE` of the resamples.

    Args:
        statistic: Takes the indices of bars.
        resamples: Each from `stationary_blocks`; the same ones for all that is compared.

    Raises:
        InvalidField: There are none.
    """
    found = np.array([statistic(indices) for indices in resamples], dtype=np.float64)
    if len(found) == 0:
        raise InvalidField("resamples", 0, "at least one")
    # "higher": a bound is a value that was seen, never one between two.
    return float(np.quantile(found, CONFIDENCE, method="higher"))
