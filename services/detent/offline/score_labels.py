"""Say what the heads of three classes are asked: a score of the bars to come, cut in classes.

A row carries the score as a number. The cuts that make LOW, MID and HIGH of it are learnt from
the rows that a fold trains on, so that no class knows what lies after them.

Source: seed 003, sections 12.7 and 12.13; rows R253, R254, R261.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.binding import Head
from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar
from detent.contracts.units import BPS_ONE
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.offline.datasets.rows import NEXT_SCORE, SCORE

Floats = NDArray[np.float64]
SCORED_HEADS = (Head.REGIME, Head.TOXICITY)
CLASS_COUNT = 3


class ToxicityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes what the toxicity head looks back at and how far ahead.

    Attributes:
        lookback_windows: Bars that its features look back, ascending.
        prediction_horizon_s: Length of the horizon, seconds.

    Source: seed 003, section 12.13; row R261.
    """

    lookback_windows: tuple[int, ...] = (10, 30, 60)
    prediction_horizon_s: int = 60

    def __post_init__(self) -> None:
        """Refuse windows that are none, or not in order."""
        if not self.lookback_windows or list(self.lookback_windows) != sorted(
            set(self.lookback_windows)
        ):
            raise InvalidField("lookback_windows", self.lookback_windows, "ascending windows")
        for window in self.lookback_windows:
            check_int("lookback_windows", window, 2, 10_000)
        check_int("prediction_horizon_s", self.prediction_horizon_s, 1, 86_400)

    def horizon_bars(self, bar_interval_ms: int) -> int:
        """Count the bars of the horizon.

        Raises:
            InvalidField: The horizon is no whole number of bars.
        """
        bars, rest = divmod(self.prediction_horizon_s * 1_000, bar_interval_ms)
        if rest or bars == 0:
            expected = f"a multiple of the bars' {bar_interval_ms} ms"
            raise InvalidField("prediction_horizon_s", self.prediction_horizon_s, expected)
        return bars


TOXICITY_DEFAULT = ToxicityConfig()


def toxicity_bars_v1(bar_interval_ms: int, config: ToxicityConfig = TOXICITY_DEFAULT) -> FeatureSet:
    """Give the features of the toxicity head: moves and volatility over each window."""
    features = tuple(
        feature(transform, window)
        for window in config.lookback_windows
        for transform in (
            FeatureTransform.RETURN_PCT,
            FeatureTransform.REALISED_VOL_PCT_PER_BAR,
            FeatureTransform.VOLUME_ZSCORE,
        )
    )
    shape = (feature(FeatureTransform.NATR_PCT), feature(FeatureTransform.SUM_ABS_RETURNS_PCT))
    return FeatureSet(
        name="toxicity_bars_v1",
        features=features + shape,
        engine=EngineConfig(bar_interval_ms=bar_interval_ms),
    )


def score_definition(head: Head, *, horizon_bars: int, bar_interval_ms: int) -> str:
    """Give the words of a score and of its classes, as they go into manifest and binding."""
    over = f"t+1 to t+{horizon_bars}"
    what = (
        f"sum |close / close before - 1| over {over}"
        if head is Head.REGIME
        else f"|close[t+{horizon_bars}] / close[t] - 1|"
    )
    following = "" if head is Head.REGIME else "; next: the same one horizon later"
    return (
        f"LOW, MID, HIGH: terciles, cut on the training rows, of {what}, in bps{following}; "
        f"bars of {bar_interval_ms} ms in the order of those that exist"
    )


def score_targets(
    bars: Sequence[Bar], head: Head, *, horizon_bars: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], dict[str, NDArray[np.generic]]]:
    """Give, per bar, whether its score is known, when that was, and what it is.

    Args:
        bars: Bars of one symbol, oldest first.
        head: One of `SCORED_HEADS`.
        horizon_bars: How far ahead a score looks; that of toxicity looks twice as far.
    """
    ts_ms = np.array([bar.ts_ms for bar in bars], dtype=np.int64)
    closes = np.array([float(bar.close) for bar in bars])
    reach = horizon_bars if head is Head.REGIME else 2 * horizon_bars
    count = len(bars)
    known = np.arange(count) + reach < count
    settled = ts_ms[np.minimum(np.arange(count) + reach, count - 1)]
    score = np.zeros(count)
    ahead = max(count - horizon_bars, 0)
    targets: dict[str, NDArray[np.generic]]
    if head is Head.REGIME:
        path = np.concatenate([[0.0], np.cumsum(np.abs(closes[1:] / closes[:-1] - 1.0))])
        score[:ahead] = path[horizon_bars:] - path[:ahead]
        targets = {SCORE: score * BPS_ONE}
    else:
        score[:ahead] = np.abs(closes[horizon_bars:] / closes[:ahead] - 1.0)
        following = np.zeros(count)
        following[:ahead] = score[horizon_bars:]
        targets = {SCORE: score * BPS_ONE, NEXT_SCORE: following * BPS_ONE}
    return known, settled, targets


def tercile_cuts(scores: Floats) -> tuple[float, float]:
    """Give what parts the lower, middle and upper third of the scores of training rows."""
    low, high = np.quantile(scores, [1 / CLASS_COUNT, 2 / CLASS_COUNT])
    return float(low), float(high)


def classes_of(scores: Floats, cuts: tuple[float, float]) -> NDArray[np.int64]:
    """Give 0, 1 or 2 per score: LOW up to the first cut, HIGH above the second."""
    return np.searchsorted(np.array(cuts), scores, side="left").astype(np.int64)
