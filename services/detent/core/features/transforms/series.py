"""Computes features from the last values of other features, oldest first.

Each function is given exactly as many values as its feature reads; when one of them is absent
so is the feature, never 0 (R156).
"""

import math
from collections.abc import Callable, Sequence

from detent.core.features.feature_spec import FeatureTransform


def rolling_mean(values: Sequence[float]) -> float:
    """Give the mean, in the unit of the values.

    Source: R156.
    """
    return math.fsum(values) / len(values)


def rolling_std(values: Sequence[float]) -> float:
    """Give the population deviation, in the unit of the values, as numpy's `std` has it.

    Distances are taken from the last value: where nothing moves they are exactly 0.

    Source: R156.
    """
    distances = [value - values[-1] for value in values]
    mean = math.fsum(distances) / len(values)
    squares = math.fsum((distance - mean) * (distance - mean) for distance in distances)
    return math.sqrt(squares / len(values))


def rolling_trend(values: Sequence[float]) -> float:
    """Give the slope of the least-squares line, in the unit of the values per bar.

    With n values at c = 2i - (n - 1), which sum to 0, the slope is 2 sum(c x) / sum(c c), and
    sum(c c) is n (n - 1) (n + 1) / 3.

    Source: R156.
    """
    count = len(values)
    weighted = math.fsum(
        (2 * index - count + 1) * (value - values[-1]) for index, value in enumerate(values)
    )
    return 6.0 * weighted / (count * (count - 1) * (count + 1))


def rate_of_change(values: Sequence[float]) -> float | None:
    """Give the change from the first value to the last as a share of the first.

    Returns:
        (last - first) / first; None when the first is 0.

    Source: R157.
    """
    first = values[0]
    return (values[-1] - first) / first if abs(first) > 0.0 else None


def lag(values: Sequence[float]) -> float:
    """Give the value that stood the window's bars ago."""
    return values[0]


OF_SERIES: dict[FeatureTransform, Callable[[Sequence[float]], float | None]] = {
    FeatureTransform.ROLLING_MEAN: rolling_mean,
    FeatureTransform.ROLLING_STD: rolling_std,
    FeatureTransform.ROLLING_TREND: rolling_trend,
    FeatureTransform.RATE_OF_CHANGE: rate_of_change,
    FeatureTransform.LAG: lag,
}
