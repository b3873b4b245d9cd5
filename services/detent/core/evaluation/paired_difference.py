"""Bound what one probability loses against another on the same bars, after every bar at once.

A bar is one observation, the mean over its symbols. Labels that look several bars ahead overlap,
so a bar is a surprise only to those that know the bar a horizon before it: the bars are dealt to
as many sequences as the horizon has bars, each is bounded for its share of the error, and the
bounds are averaged.

Source: Waudby-Smith and Ramdas 2023; QUANT A9.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.checks import check_int
from detent.contracts.units import INT32_MAX
from detent.core.evaluation.paired_loss import Ints, bar_means, brier_losses
from detent.core.evaluation.scores import Floats, Labels
from detent.core.rollout.confidence_sequence import bernstein_bounds

ALPHA = 0.05


class PairedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a running difference in Brier score, below 0 where the first did better.

    Attributes:
        alpha: Chance that the bounds are wrong at any bar.
        ts_ms: Close of each bar.
        mean: Mean difference of the bars up to each, in [-1, 1].
        low: Lower bounds.
        high: Upper bounds.
    """

    alpha: float
    ts_ms: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Say in a word which of the two is better, as far as the bounds go."""
        if self.high[-1] < 0.0:
            return "better"
        return "worse" if self.low[-1] > 0.0 else "undecided"


def paired_difference(
    first: Floats,
    second: Floats,
    labels: Labels,
    ts_ms: Ints,
    *,
    horizon_bars: int,
    alpha: float = ALPHA,
) -> PairedDifference:
    """Bound the difference of two Brier scores on the same rows.

    Args:
        first: Shape (n,), float64: probabilities whose loss counts up, n at least 1.
        second: Shape (n,): those whose loss is taken off.
        labels: Shape (n,), bool: what came true.
        ts_ms: Shape (n,), int64: close of each row's bar.
        horizon_bars: How far ahead the label looks, at least 1.
        alpha: Chance of error over all bars together.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_int("horizon_bars", horizon_bars, 1, INT32_MAX)
    lost = brier_losses(first, labels) - brier_losses(second, labels)
    bars = bar_means(ts_ms, lost)
    number = np.arange(1.0, len(bars) + 1.0)
    low, high = _bounds(bars, horizon_bars, alpha)
    return PairedDifference(
        alpha=alpha,
        ts_ms=tuple(np.unique(ts_ms).tolist()),
        mean=tuple((np.cumsum(bars) / number).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _bounds(bars: Floats, horizon_bars: int, alpha: float) -> tuple[Floats, Floats]:
    """Average the bounds of the sequences, each by the bars that it has seen."""
    low, high = np.zeros(len(bars)), np.zeros(len(bars))
    places = np.arange(len(bars)) % horizon_bars
    for place in range(min(horizon_bars, len(bars))):
        mine: NDArray[np.bool_] = places == place
        found = bernstein_bounds(_shares(bars[mine]), alpha=alpha / horizon_bars)
        seen = np.cumsum(mine)
        newest = np.maximum(seen - 1, 0)
        low += seen * (2.0 * np.array(found.low)[newest] - 1.0)
        high += seen * (2.0 * np.array(found.high)[newest] - 1.0)
    number = np.arange(1.0, len(bars) + 1.0)
    return low / number, high / number


def _shares(differences: Floats) -> Sequence[float]:
    shares: list[float] = np.clip((differences + 1.0) / 2.0, 0.0, 1.0).tolist()
    return shares
