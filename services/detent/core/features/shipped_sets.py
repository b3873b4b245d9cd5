"""Holds feature sets that come with the product under names of their own."""

from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, caller_feature, feature

MINUTE_MS = 60_000


def grinder_feature_order_v1(
    bar_interval_ms: int = MINUTE_MS, *, bar_source: BarSource = BarSource.FROM_QUOTES
) -> FeatureSet:
    """Give the fifteen names of seed 003 in their order.

    Four are read from the quote. The others are the caller's: positions and the grid are nobody
    else's to know, and of the volumes, volatilities, trend and momentum the seed gives the name
    and no formula, so that any that we made up would be another number under the same name.
    Where the seed fills in zeros, a row without one of them is refused (D2, D7).

    Args:
        bar_interval_ms: Length of the bars, by whose closes a row is dated.
        bar_source: Where the bars come from.

    Source: FORMULAS 1.5, R83.
    """
    prices = (
        feature(FeatureTransform.PRICE_MID),
        feature(FeatureTransform.PRICE_BID),
        feature(FeatureTransform.PRICE_ASK),
        feature(FeatureTransform.SPREAD_BPS),
    )
    said = (
        caller_feature("volume_24h"),
        caller_feature("volume_1h"),
        caller_feature("volatility_1h_bps"),
        caller_feature("volatility_24h_bps"),
        caller_feature("position_size"),
        caller_feature("position_notional"),
        caller_feature("position_pnl_bps"),
        caller_feature("grid_levels_active"),
        caller_feature("grid_utilization_pct"),
        caller_feature("trend_strength"),
        caller_feature("momentum_1h"),
    )
    return FeatureSet(
        name="grinder_feature_order_v1",
        features=prices + said,
        engine=EngineConfig(bar_interval_ms=bar_interval_ms, bar_source=bar_source),
    )


def direction_window_v1(bar_interval_ms: int) -> FeatureSet:
    """Give the twelve features of a direction model over its last 64 bars, oldest first.

    Args:
        bar_interval_ms: Length of the bars.

    Source: seed 000, section 5.
    """
    bars = direction_bars_v1(bar_interval_ms)
    return FeatureSet(
        name="direction_window_v1",
        features=(*bars.features, feature(FeatureTransform.NET_RETURN_PCT)),
        engine=bars.engine,
        window_rows=64,
    )


GRINDER_FEATURE_ORDER_V1 = grinder_feature_order_v1()
