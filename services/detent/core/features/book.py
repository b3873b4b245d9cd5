"""Computes the L2 snapshot of one symbol from its order book.

Sums are exact, each integer is one exact quotient rounded once, half to even, whatever decimal
context the caller's thread has. The rules are FORMULAS 1.2 with D5: that the depth does not
suffice is a flag of its own, so that a true impact of 500 basis points keeps the flag at 0.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from detent.contracts.decimals import check_decimal
from detent.contracts.market import Book, BookLevel
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.contracts.units import BPS_ONE
from detent.core.features.snapshot import DIGITS_EXACT, IMBALANCE_EPSILON

# What stands in an impact field when the side cannot fill the quantity; the flag says so.
IMPACT_INSUFFICIENT_BPS = 500
WALL_NONE_X1000 = 1_000
# With fewer levels a median says nothing about the rest of the side.
WALL_LEVELS_MIN = 3


def build_l2_snapshot(book: Book, *, qty_ref: Decimal) -> L2FeatureSnapshot:
    """Compute the snapshot of one book.

    Args:
        book: The book; valid, so sorted, uncrossed and without empty levels.
        qty_ref: Quantity that the impact is computed for, base units, above 0.

    Raises:
        InvalidField: `qty_ref` is not above 0, or a value is beyond what the contract carries.

    Source: FORMULAS 1.2, decision D5, REQUIREMENTS R10 to R15.
    """
    check_decimal("qty_ref", qty_ref, above_zero=True)
    with localcontext(DIGITS_EXACT):
        bid_qty, ask_qty = depth_qty(book.bids), depth_qty(book.asks)
        impact_buy_bps, buy_insufficient = impact_bps(book.asks, qty_ref)
        impact_sell_bps, sell_insufficient = impact_bps(book.bids, qty_ref)
        return L2FeatureSnapshot(
            ts_ms=book.ts_ms,
            symbol=book.symbol,
            venue=book.venue,
            depth=book.depth,
            depth_bid_qty_top_n=bid_qty,
            depth_ask_qty_top_n=ask_qty,
            depth_imbalance_top_n_bps=_quotient(
                (bid_qty - ask_qty) * BPS_ONE, bid_qty + ask_qty + IMBALANCE_EPSILON
            ),
            impact_buy_top_n_bps=impact_buy_bps,
            impact_sell_top_n_bps=impact_sell_bps,
            impact_buy_top_n_insufficient_depth=int(buy_insufficient),
            impact_sell_top_n_insufficient_depth=int(sell_insufficient),
            wall_bid_score_top_n_x1000=wall_score_x1000(book.bids),
            wall_ask_score_top_n_x1000=wall_score_x1000(book.asks),
            qty_ref=qty_ref,
        )


def depth_qty(levels: Sequence[BookLevel]) -> Decimal:
    """Sum the quantities of a side, exactly, in base units."""
    with localcontext(DIGITS_EXACT):
        return sum((level.qty for level in levels), Decimal(0))


def impact_bps(levels: Sequence[BookLevel], qty_ref: Decimal) -> tuple[int, bool]:
    """Walk a side until a quantity is filled and compare its mean price with the best.

    Args:
        levels: One side of a book, best first.
        qty_ref: Quantity to fill, base units, above 0.

    Returns:
        How far the mean price lies from the best, in basis points of the best, at least 0, and
        whether the side was too thin; it then stands at 500.

    Source: FORMULAS 1.2; (VWAP - best) / best, with both sides of the quotient times `qty_ref`.
    """
    with localcontext(DIGITS_EXACT):
        unfilled, cost = qty_ref, Decimal(0)
        for level in levels:
            taken = min(level.qty, unfilled)
            cost += taken * level.price
            unfilled -= taken
            if not unfilled:
                at_best = qty_ref * levels[0].price
                return _quotient(abs(cost - at_best) * BPS_ONE, at_best), False
    return IMPACT_INSUFFICIENT_BPS, True


def wall_score_x1000(levels: Sequence[BookLevel]) -> int:
    """Compare the largest quantity of a side with the median one, times 1000.

    Returns:
        At least 1000, which means no wall; exactly 1000 with fewer than three levels.

    Source: FORMULAS 1.2; the median of an even count is the mean of the middle two.
    """
    if len(levels) < WALL_LEVELS_MIN:
        return WALL_NONE_X1000
    sizes = sorted(level.qty for level in levels)
    middle = len(sizes) // 2
    with localcontext(DIGITS_EXACT):
        # Twice the median, so that the middle two need no division of their own.
        twice_median = sizes[middle] + sizes[middle if len(sizes) % 2 else middle - 1]
        return _quotient(2 * sizes[-1] * WALL_NONE_X1000, twice_median)


def _quotient(numerator: Decimal, denominator: Decimal) -> int:
    return int((numerator / denominator).to_integral_value(rounding=ROUND_HALF_EVEN))
