"""Holds one feature: which transform makes it, over which bars, of which other features.

A feature that no input provides cannot be named: it is refused when it is built. Features
are named one by one; `feature_set` puts them in order, `feature_value` and `rows` compute them.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from detent.contracts.checks import check_count, check_int
from detent.contracts.decimals import check_decimal, check_signed_decimal
from detent.contracts.errors import InvalidField
from detent.core.features.engine import BARS_HELD_MAX, EngineConfig
from detent.core.features.feature_names import check_feature_name

# Rows of a window and points of a rolling value; both are read again for every new bar.
ROWS_READ_MAX = 1_024
ROLLING_BARS = 10
# Periods that Wilder's smoothing looks back: what lies before weighs less than 1e-8.
WILDER_PERIODS = 20


class FeatureTransform(StrEnum):
    """Names every way to make a value; `feature_values` computes them.

    The value is the stem of the feature's name. Shares are in percent, so that values are of
    the order of one whatever the price of the instrument.
    """

    RETURN_PCT = "return_pct"
    DEVIATION_PCT = "deviation_pct"
    CLOSE_ZSCORE = "close_zscore"
    REALISED_VOL_PCT_PER_BAR = "realised_vol_pct_per_bar"
    REALISED_VOL_PCT_PER_YEAR = "realised_vol_pct_per_year"
    WILDER_ATR = "wilder_atr"
    WILDER_NATR_PCT = "wilder_natr_pct"
    VOLUME_ZSCORE = "volume_zscore"
    VWAP_DISTANCE_PCT = "vwap_distance_pct"
    CLOSE = "close"
    HIGH = "high"
    LOW = "low"
    VOLUME = "volume"
    FUNDING_RATE_BPS = "funding_rate_bps"
    PRICE_MID = "price_mid"
    PRICE_BID = "price_bid"
    PRICE_ASK = "price_ask"
    SPREAD_BPS = "spread_bps"
    ROLLING_MEAN = "mean"
    ROLLING_STD = "std"
    ROLLING_TREND = "trend"
    RATE_OF_CHANGE = "roc"
    LAG = "lag"
    PRODUCT = "x"
    CALLER = "caller"
    NATR_PCT = "natr_pct"
    SUM_ABS_RETURNS_PCT = "sum_abs_returns_pct"
    NET_RETURN_PCT = "net_return_pct"
    RANGE_SCORE_CAPPED = "range_score_capped"
    SPREAD_PCT = "spread_pct"
    IMBALANCE_L1 = "imbalance_l1"
    DEPTH_IMBALANCE = "depth_imbalance"
    IMPACT_BUY_PCT = "impact_buy_pct"
    IMPACT_SELL_PCT = "impact_sell_pct"
    WALL_BID_SCORE = "wall_bid_score"
    WALL_ASK_SCORE = "wall_ask_score"
    INSUFFICIENT_DEPTH_BUY = "insufficient_depth_buy"
    INSUFFICIENT_DEPTH_SELL = "insufficient_depth_sell"


# What each transform with a window reads: bars beyond the window, up to and with the newest.
_BARS_BEYOND_WINDOW = {
    FeatureTransform.RETURN_PCT: 1,
    FeatureTransform.DEVIATION_PCT: 1,
    FeatureTransform.CLOSE_ZSCORE: 0,
    FeatureTransform.REALISED_VOL_PCT_PER_BAR: 1,
    FeatureTransform.REALISED_VOL_PCT_PER_YEAR: 1,
    FeatureTransform.VOLUME_ZSCORE: 0,
    FeatureTransform.VWAP_DISTANCE_PCT: 0,
}
_WILDER = frozenset({FeatureTransform.WILDER_ATR, FeatureTransform.WILDER_NATR_PCT})
# What each transform of another feature reads: rows beyond the window, up to the newest.
_ROWS_BEYOND_WINDOW = {
    FeatureTransform.ROLLING_MEAN: 0,
    FeatureTransform.ROLLING_STD: 0,
    FeatureTransform.ROLLING_TREND: 0,
    FeatureTransform.RATE_OF_CHANGE: 1,
    FeatureTransform.LAG: 1,
}
_WINDOWED = frozenset({*_BARS_BEYOND_WINDOW, *_WILDER, *_ROWS_BEYOND_WINDOW})
# A deviation and a slope of one point say nothing.
_TWO_AT_LEAST = frozenset(
    {
        FeatureTransform.CLOSE_ZSCORE,
        FeatureTransform.REALISED_VOL_PCT_PER_BAR,
        FeatureTransform.REALISED_VOL_PCT_PER_YEAR,
        FeatureTransform.VOLUME_ZSCORE,
        FeatureTransform.ROLLING_MEAN,
        FeatureTransform.ROLLING_STD,
        FeatureTransform.ROLLING_TREND,
    }
)
# What bars that are built from quotes do not have.
FROM_TRADES = frozenset(
    {
        FeatureTransform.VOLUME,
        FeatureTransform.VOLUME_ZSCORE,
        FeatureTransform.VWAP_DISTANCE_PCT,
        FeatureTransform.FUNDING_RATE_BPS,
    }
)
_FROM_ATR = frozenset({FeatureTransform.NATR_PCT})
_FROM_RANGE = frozenset(
    {
        FeatureTransform.SUM_ABS_RETURNS_PCT,
        FeatureTransform.NET_RETURN_PCT,
        FeatureTransform.RANGE_SCORE_CAPPED,
    }
)
# What is read from the order book; `book_values` computes them.
BOOK_TRANSFORMS = frozenset(
    {
        FeatureTransform.DEPTH_IMBALANCE,
        FeatureTransform.IMPACT_BUY_PCT,
        FeatureTransform.IMPACT_SELL_PCT,
        FeatureTransform.WALL_BID_SCORE,
        FeatureTransform.WALL_ASK_SCORE,
        FeatureTransform.INSUFFICIENT_DEPTH_BUY,
        FeatureTransform.INSUFFICIENT_DEPTH_SELL,
    }
)


class Normalisation(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a value is brought to the order of one: (value - offset) / scale.

    Attributes:
        offset: What is taken away, in the unit of the feature.
        scale: What is divided by, in the unit of the feature, above 0.

    Source: R155.
    """

    offset: Decimal
    scale: Decimal

    def __post_init__(self) -> None:
        """Refuse a scale that is none."""
        check_signed_decimal("offset", self.offset)
        check_decimal("scale", self.scale, above_zero=True)


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Names one feature and how it is made.

    Attributes:
        name: The one name of this transform, see `feature_name`; a caller feature's own.
        transform: How the value is made.
        window_bars: Bars that it looks back; None for one that has no window.
        sources: Names of the features that it is made of, as they are before normalisation.
        normalisation: How the model sees the value; None for as it is.
    """

    name: str
    transform: FeatureTransform
    window_bars: int | None
    sources: tuple[str, ...] = ()
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        """Refuse a feature that no input provides."""
        if not isinstance(self.transform, FeatureTransform):
            known = ", ".join(FeatureTransform)
            raise InvalidField("transform", self.transform, f"one that an input provides: {known}")
        self._check_window()
        count = self.source_count
        check_count("sources", self.sources, count, count)
        check_feature_name("name", self.name)
        if self.transform is FeatureTransform.CALLER:
            return
        provided = feature_name(self.transform, self.window_bars, self.sources)
        if self.name != provided:
            raise InvalidField("name", self.name, f"the name of what is provided, {provided}")

    def _check_window(self) -> None:
        if self.transform not in _WINDOWED:
            if self.window_bars is not None:
                raise InvalidField("window_bars", self.window_bars, f"none for {self.transform}")
            return
        if self.window_bars is None:
            raise InvalidField("window_bars", None, f"a window for {self.transform}")
        low = 2 if self.transform in _TWO_AT_LEAST else 1
        high = ROWS_READ_MAX if self.transform in _ROWS_BEYOND_WINDOW else BARS_HELD_MAX
        check_int("window_bars", self.window_bars, low, high)

    @property
    def source_count(self) -> int:
        """Count the features that it is made of."""
        if self.transform is FeatureTransform.PRODUCT:
            return 2
        return 1 if self.transform in _ROWS_BEYOND_WINDOW else 0

    @property
    def rows_read(self) -> int:
        """Count the rows of its sources that one value is made of."""
        if self.window_bars is None:
            return 1
        return self.window_bars + _ROWS_BEYOND_WINDOW.get(self.transform, 0)

    def bars_needed(self, engine: EngineConfig) -> int:
        """Count the finished bars that one value needs, those of its sources aside."""
        if self.transform in _WILDER:
            assert self.window_bars is not None, "checked when it was built"
            return WILDER_PERIODS * self.window_bars + 1
        if self.transform in _BARS_BEYOND_WINDOW:
            assert self.window_bars is not None, "checked when it was built"
            return self.window_bars + _BARS_BEYOND_WINDOW[self.transform]
        if self.transform in _FROM_ATR:
            return engine.atr_period + 1
        if self.transform in _FROM_RANGE:
            return engine.range_horizon + 1
        return 1


def feature_name(
    transform: FeatureTransform, window_bars: int | None, sources: tuple[str, ...] = ()
) -> str:
    """Give the one name of a transform, for example `return_pct_6` or `close_mean_10`."""
    if transform is FeatureTransform.PRODUCT:
        return f"_{transform.value}_".join(sources)
    words = [*sources, transform.value]
    return "_".join(words if window_bars is None else [*words, str(window_bars)])


def feature(
    transform: FeatureTransform,
    window_bars: int | None = None,
    *,
    normalisation: Normalisation | None = None,
) -> FeatureSpec:
    """Give the feature of a transform over a window, under its one name."""
    name = feature_name(transform, window_bars)
    return FeatureSpec(
        name=name, transform=transform, window_bars=window_bars, normalisation=normalisation
    )


def derived(
    transform: FeatureTransform,
    *sources: str,
    window_bars: int | None = ROLLING_BARS,
    normalisation: Normalisation | None = None,
) -> FeatureSpec:
    """Give the feature that a transform makes of other features, under its one name.

    Args:
        transform: How the value is made; a product has no window.
        sources: Names of features of the same set, or of columns of a bar.
        window_bars: Bars that it looks back.
        normalisation: How the model sees the value.
    """
    window_bars = None if transform is FeatureTransform.PRODUCT else window_bars
    return FeatureSpec(
        name=feature_name(transform, window_bars, sources),
        transform=transform,
        window_bars=window_bars,
        sources=sources,
        normalisation=normalisation,
    )


def caller_feature(name: str, *, normalisation: Normalisation | None = None) -> FeatureSpec:
    """Give a feature that only the strategist knows and sends with the row (D2)."""
    return FeatureSpec(
        name=name,
        transform=FeatureTransform.CALLER,
        window_bars=None,
        normalisation=normalisation,
    )


# What every bar has: a source that need not be a feature of the model.
COLUMNS = {
    transform.value: feature(transform)
    for transform in (
        FeatureTransform.CLOSE,
        FeatureTransform.HIGH,
        FeatureTransform.LOW,
        FeatureTransform.VOLUME,
    )
}
