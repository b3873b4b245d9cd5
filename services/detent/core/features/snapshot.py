"""Computes the L1 and volatility snapshot of one symbol from finished bars and a quote.

Decimal arithmetic in 28 digits, whatever context the caller's thread has; each integer is
rounded once. The rules are FORMULAS 1.1 to the digit (D5).
"""

import itertools
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from detent.contracts.decimals import DECIMAL_CHARS_MAX
from detent.contracts.market import Bar, Quote
from detent.contracts.snapshots import FeatureSnapshot
from detent.contracts.units import BPS_ONE
from detent.core.features.engine import EngineConfig

DIGITS = Context(prec=28, rounding=ROUND_HALF_EVEN)
# Twice the longest price that the contract admits, so that a midpoint is never rounded.
DIGITS_EXACT = Context(prec=4 * DECIMAL_CHARS_MAX, rounding=ROUND_HALF_EVEN)
# Keeps an empty book from dividing by zero; part of the formula.
IMBALANCE_EPSILON = Decimal("1e-8")
# "0." and these places are as much as plain notation carries.
PLACES_MAX = DECIMAL_CHARS_MAX - 2
SMALLEST_STEP = Decimal(1).scaleb(-PLACES_MAX)


def build_feature_snapshot(
    engine: EngineConfig,
    *,
    symbol: str,
    ts_ms: int,
    bars: Sequence[Bar],
    warmup_bars: int,
    quote: Quote | None,
) -> FeatureSnapshot:
    """Compute the snapshot of one symbol at one instant.

    Args:
        engine: Periods of the indicators.
        symbol: Instrument.
        ts_ms: The instant; nothing given may be younger.
        bars: The newest finished bars, oldest first: all, or `engine.snapshot_bars` of them.
        warmup_bars: Number of finished bars held at the instant.
        quote: Last quote before the instant, if there is one.

    Raises:
        InvalidField: A value is beyond what the contract carries.

    Source: FORMULAS 1.1.
    """
    with localcontext(DIGITS):
        atr = average_true_range(bars, engine.atr_period)
        natr_bps = 0 if atr is None else _round(atr / bars[-1].close * BPS_ONE)
        path_bps, net_bps = _range_bps(bars, engine.range_horizon)
        return FeatureSnapshot(
            ts=ts_ms,
            symbol=symbol,
            mid_price=None if quote is None else mid_price(quote),
            spread_bps=None if quote is None else spread_bps(quote),
            imbalance_l1_bps=None if quote is None else imbalance_l1_bps(quote),
            thin_l1=None if quote is None else min(quote.bid_qty, quote.ask_qty),
            natr_bps=natr_bps,
            atr=atr,
            sum_abs_returns_bps=path_bps,
            net_return_bps=net_bps,
            range_score=path_bps // (net_bps + 1),
            warmup_bars=warmup_bars,
        )


def mid_price(quote: Quote) -> Decimal:
    """Give the midpoint of a quote, exactly."""
    return DIGITS_EXACT.divide(DIGITS_EXACT.add(quote.bid_price, quote.ask_price), Decimal(2))


def spread_bps(quote: Quote) -> int:
    """Give the spread over the midpoint, in basis points, cut off toward zero."""
    with localcontext(DIGITS):
        share = (quote.ask_price - quote.bid_price) / mid_price(quote) * BPS_ONE
    # By way of a float because the rule says so: 9.9999999999999999999 is 10 there.
    return int(float(share))


def imbalance_l1_bps(quote: Quote) -> int:
    """Weigh the bid against the ask quantity, in basis points; positive is bid pressure."""
    with localcontext(DIGITS):
        total = quote.bid_qty + quote.ask_qty + IMBALANCE_EPSILON
        return _round((quote.bid_qty - quote.ask_qty) / total * BPS_ONE)


def average_true_range(bars: Sequence[Bar], period: int) -> Decimal | None:
    """Average the last true ranges without weights, in price units.

    Returns:
        The mean of `period` true ranges; None while there are not so many.
    """
    if len(bars) < period + 1:
        return None
    with localcontext(DIGITS):
        newest = bars[-period - 1 :]
        ranges = [
            max(bar.high - bar.low, abs(bar.high - before.close), abs(bar.low - before.close))
            for before, bar in itertools.pairwise(newest)
        ]
        return _writable(sum(ranges, Decimal(0)) / period)


def _range_bps(bars: Sequence[Bar], horizon: int) -> tuple[int, int]:
    if len(bars) < horizon + 1:
        return 0, 0
    closes = [bar.close for bar in bars[-horizon - 1 :]]
    steps = (abs((after - c) / c) for c, after in itertools.pairwise(closes))
    path = sum(steps, Decimal(0))
    return _round(path * BPS_ONE), _round(abs(closes[-1] / closes[0] - 1) * BPS_ONE)


def _round(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_HALF_EVEN))


def _writable(value: Decimal) -> Decimal:
    """Cut the places of a tiny price that plain notation could not carry."""
    exponent = value.as_tuple().exponent
    return value.quantize(SMALLEST_STEP) if int(exponent) < -PLACES_MAX else value
