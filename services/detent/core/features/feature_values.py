"""Computes the values of features from closes and a snapshot.

Only operations that IEEE 754 rounds correctly are used (+ - * /, square root, and the exact
sum of `math.fsum`), so that every machine gets the same bits; no logarithm, no exponential.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from detent.contracts.snapshots import FeatureSnapshot
from detent.contracts.units import BPS_ONE
from detent.core.features.feature_spec import FeatureSpec, FeatureTransform

PERCENT = 100.0
BPS_PER_PERCENT = 100.0
# A path that returns to its start has a score without bound; beyond this it says nothing new.
RANGE_SCORE_CAP = 100


def feature_value(
    spec: FeatureSpec, closes: Sequence[float], snapshot: FeatureSnapshot
) -> float | None:
    """Compute one feature.

    Args:
        spec: Which feature.
        closes: Closes of finished bars, oldest first, at least as many as it needs.
        snapshot: Snapshot of the same instant.

    Returns:
        The value; None when its input is absent, as a spread is without quotes.
    """
    if spec.window_bars is not None:
        return _OF_CLOSES[spec.transform](closes, spec.window_bars)
    return _OF_SNAPSHOT[spec.transform](snapshot)


def _return_pct(closes: Sequence[float], window_bars: int) -> float:
    """Give the simple return over the window, in percent."""
    return (closes[-1] / closes[-1 - window_bars] - 1.0) * PERCENT


def _deviation_pct(closes: Sequence[float], window_bars: int) -> float:
    """Give the root mean square of the last bar returns, in percent."""
    newest = closes[-1 - window_bars :]
    returns = [after / before - 1.0 for before, after in itertools.pairwise(newest)]
    return math.sqrt(math.fsum(step * step for step in returns) / window_bars) * PERCENT


def _close_zscore(closes: Sequence[float], window_bars: int) -> float:
    """Give how many deviations the last close lies above the mean of the window.

    Distances are taken from the last close: they are exactly 0 where the price stood still,
    and then so is the score.
    """
    newest = closes[-window_bars:]
    distances = [close / newest[-1] - 1.0 for close in newest]
    mean = math.fsum(distances) / window_bars
    variance = math.fsum((distance - mean) * (distance - mean) for distance in distances)
    deviation = math.sqrt(variance / window_bars)
    return -mean / deviation if deviation > 0.0 else 0.0


def _natr_pct(snapshot: FeatureSnapshot) -> float:
    return snapshot.natr_bps / BPS_PER_PERCENT


def _sum_abs_returns_pct(snapshot: FeatureSnapshot) -> float:
    return snapshot.sum_abs_returns_bps / BPS_PER_PERCENT


def _net_return_pct(snapshot: FeatureSnapshot) -> float:
    return snapshot.net_return_bps / BPS_PER_PERCENT


def _range_score_capped(snapshot: FeatureSnapshot) -> float:
    """Give the range score as a share of its cap, [0, 1]."""
    return min(snapshot.range_score, RANGE_SCORE_CAP) / RANGE_SCORE_CAP


def _spread_pct(snapshot: FeatureSnapshot) -> float | None:
    return None if snapshot.spread_bps is None else snapshot.spread_bps / BPS_PER_PERCENT


def _imbalance_l1(snapshot: FeatureSnapshot) -> float | None:
    """Give the imbalance of the best quantities, [-1, 1]."""
    return None if snapshot.imbalance_l1_bps is None else snapshot.imbalance_l1_bps / BPS_ONE


_OF_CLOSES: dict[FeatureTransform, Callable[[Sequence[float], int], float]] = {
    FeatureTransform.RETURN_PCT: _return_pct,
    FeatureTransform.DEVIATION_PCT: _deviation_pct,
    FeatureTransform.CLOSE_ZSCORE: _close_zscore,
}
_OF_SNAPSHOT: dict[FeatureTransform, Callable[[FeatureSnapshot], float | None]] = {
    FeatureTransform.NATR_PCT: _natr_pct,
    FeatureTransform.SUM_ABS_RETURNS_PCT: _sum_abs_returns_pct,
    FeatureTransform.NET_RETURN_PCT: _net_return_pct,
    FeatureTransform.RANGE_SCORE_CAPPED: _range_score_capped,
    FeatureTransform.SPREAD_PCT: _spread_pct,
    FeatureTransform.IMBALANCE_L1: _imbalance_l1,
}
# What `feature_value` computes; the other transforms are those of `rows`.
OF_ONE_ROW = frozenset({*_OF_CLOSES, *_OF_SNAPSHOT})
