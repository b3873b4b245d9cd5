"""Computes features from the last quote before the instant, under the seed's names."""

from collections.abc import Callable

from detent.contracts.market import Quote
from detent.core.features.feature_spec import FeatureTransform
from detent.core.features.snapshot import mid_price, spread_bps

OF_QUOTE: dict[FeatureTransform, Callable[[Quote], float]] = {
    FeatureTransform.PRICE_MID: lambda quote: float(mid_price(quote)),
    FeatureTransform.PRICE_BID: lambda quote: float(quote.bid_price),
    FeatureTransform.PRICE_ASK: lambda quote: float(quote.ask_price),
    FeatureTransform.SPREAD_BPS: lambda quote: float(spread_bps(quote)),
}
