"""Computes features from the newest finished bars.

Each function is given exactly the bars that its feature declares to need, oldest first, and so
cannot reach further back than the warm-up accounts for.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from detent.contracts.market import Bar
from detent.contracts.units import BPS_ONE
from detent.core.features.feature_spec import FeatureTransform

PERCENT = 100.0
# A year of 365 days without a session break, as markets that never close have it.
YEAR_MS = 365 * 86_400_000


def true_ranges(bars: Sequence[Bar]) -> list[float]:
    """Give the true range of every bar but the first, in price units.

    Source: FORMULAS 1.1.
    """
    return [
        max(
            float(bar.high) - float(bar.low),
            abs(float(bar.high) - float(before.close)),
            abs(float(bar.low) - float(before.close)),
        )
        for before, bar in itertools.pairwise(bars)
    ]


def wilder_atr(bars: Sequence[Bar], period: int) -> float | None:
    """Smooth the true ranges as Wilder does, in price units.

    The mean of the first `period` true ranges starts it; each further one moves it by
    (atr * (period - 1) + range) / period. The feature starts a fixed number of periods back, so
    that its value does not depend on when a service was started.

    Returns:
        The average true range; None while there are not `period` true ranges.

    Source: Wilder 1978, as in TA-Lib's ATR; decision D5.
    """
    ranges = true_ranges(bars)
    if len(ranges) < period:
        return None
    atr = math.fsum(ranges[:period]) / period
    for true_range in ranges[period:]:
        atr = (atr * (period - 1) + true_range) / period
    return atr


def wilder_natr_pct(bars: Sequence[Bar], period: int) -> float | None:
    """Give Wilder's average true range over the last close, in percent."""
    atr = wilder_atr(bars, period)
    return None if atr is None else atr / float(bars[-1].close) * PERCENT


def realised_vol_pct_per_bar(bars: Sequence[Bar], window_bars: int) -> float:
    """Give the sample deviation of the last simple bar returns, in percent per bar.

    Their mean is taken off and the sum divided by one less than their number, unlike
    `deviation_pct`, which is a root mean square.
    """
    closes = [float(bar.close) for bar in bars]
    returns = [after / before - 1.0 for before, after in itertools.pairwise(closes)]
    mean = math.fsum(returns) / window_bars
    squares = math.fsum((step - mean) * (step - mean) for step in returns)
    return math.sqrt(squares / (window_bars - 1)) * PERCENT


def realised_vol_pct_per_year(bars: Sequence[Bar], window_bars: int) -> float:
    """Give the same in percent per year of 365 days, by the square root of time."""
    bars_per_year = YEAR_MS / bars[-1].interval_ms
    return realised_vol_pct_per_bar(bars, window_bars) * math.sqrt(bars_per_year)


def volume_zscore(bars: Sequence[Bar], window_bars: int) -> float:
    """Give how many deviations the last volume lies above the mean of the window.

    Distances are taken from the last volume: they are exactly 0 where trade is even, and then
    so is the score.
    """
    newest = float(bars[-1].volume)
    distances = [float(bar.volume) - newest for bar in bars]
    mean = math.fsum(distances) / window_bars
    squares = math.fsum((distance - mean) * (distance - mean) for distance in distances)
    deviation = math.sqrt(squares / window_bars)
    return -mean / deviation if deviation > 0.0 else 0.0


def vwap_distance_pct(bars: Sequence[Bar], window_bars: int) -> float | None:
    """Give how far the last close lies above the window's volume-weighted price, in percent.

    Returns:
        The distance; None when a bar has no VWAP, or nothing was traded.
    """
    del window_bars  # All bars given are the window.
    vwaps = [bar.vwap for bar in bars if bar.vwap is not None]
    if len(vwaps) < len(bars):
        return None
    volumes = [float(bar.volume) for bar in bars]
    volume = math.fsum(volumes)
    if not volume > 0.0:
        return None
    paid = math.fsum(float(price) * size for price, size in zip(vwaps, volumes, strict=True))
    return (float(bars[-1].close) / (paid / volume) - 1.0) * PERCENT


def funding_rate_bps(bar: Bar) -> float | None:
    """Give the funding rate that holds at the close of a bar, in basis points of the notional."""
    return None if bar.funding_rate is None else float(bar.funding_rate) * BPS_ONE


OF_BARS: dict[FeatureTransform, Callable[[Sequence[Bar], int], float | None]] = {
    FeatureTransform.WILDER_ATR: wilder_atr,
    FeatureTransform.WILDER_NATR_PCT: wilder_natr_pct,
    FeatureTransform.REALISED_VOL_PCT_PER_BAR: realised_vol_pct_per_bar,
    FeatureTransform.REALISED_VOL_PCT_PER_YEAR: realised_vol_pct_per_year,
    FeatureTransform.VOLUME_ZSCORE: volume_zscore,
    FeatureTransform.VWAP_DISTANCE_PCT: vwap_distance_pct,
}
OF_BAR: dict[FeatureTransform, Callable[[Bar], float | None]] = {
    FeatureTransform.CLOSE: lambda bar: float(bar.close),
    FeatureTransform.HIGH: lambda bar: float(bar.high),
    FeatureTransform.LOW: lambda bar: float(bar.low),
    FeatureTransform.VOLUME: lambda bar: float(bar.volume),
    FeatureTransform.FUNDING_RATE_BPS: funding_rate_bps,
}
