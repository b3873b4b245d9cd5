"""Give the feature sets that are measured: the shipped one, and one of 250 features."""

from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import DIRECTION_BARS_V1, HOUR_MS, FeatureSet
from detent.core.features.feature_spec import FeatureTransform, derived, feature

WIDE_COUNT = 250


def wide_set() -> FeatureSet:
    """Give 250 features of shipped transforms over several windows."""
    plain = [
        feature(transform)
        for transform in (
            FeatureTransform.CLOSE,
            FeatureTransform.HIGH,
            FeatureTransform.LOW,
            FeatureTransform.VOLUME,
            FeatureTransform.NATR_PCT,
            FeatureTransform.SUM_ABS_RETURNS_PCT,
            FeatureTransform.RANGE_SCORE_CAPPED,
        )
    ]
    windows = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 36, 48, 60)
    returns = [feature(FeatureTransform.RETURN_PCT, window) for window in windows]
    scores = [
        feature(transform, window)
        for transform in (
            FeatureTransform.DEVIATION_PCT,
            FeatureTransform.CLOSE_ZSCORE,
            FeatureTransform.VOLUME_ZSCORE,
            FeatureTransform.REALISED_VOL_PCT_PER_BAR,
        )
        for window in (6, 12, 24, 36, 48)
    ]
    rolled = [
        derived(transform, source, window_bars=window)
        for source in (
            "close",
            "volume",
            "return_pct_1",
            "natr_pct",
            "close_zscore_24",
            "deviation_pct_24",
        )
        for transform in (
            FeatureTransform.ROLLING_MEAN,
            FeatureTransform.ROLLING_STD,
            FeatureTransform.ROLLING_TREND,
            FeatureTransform.RATE_OF_CHANGE,
            FeatureTransform.LAG,
        )
        for window in (2, 3, 5, 8, 13, 21, 34)
    ]
    features = (*plain, *returns, *scores, *rolled)
    assert len(features) == WIDE_COUNT
    return FeatureSet(name="wide", features=features, engine=EngineConfig(bar_interval_ms=HOUR_MS))


SETS = {"direction": DIRECTION_BARS_V1, "wide": wide_set()}
