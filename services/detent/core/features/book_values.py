"""Computes the values of features that are read from the book's snapshot.

Integers over powers of ten: one division, which IEEE 754 rounds the same everywhere.
"""

from collections.abc import Callable

from detent.contracts.snapshots import L2FeatureSnapshot
from detent.contracts.units import BPS_ONE
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_spec import FeatureTransform

BPS_PER_PERCENT = 100.0
THOUSANDTHS_ONE = 1_000.0


def book_value(transform: FeatureTransform, snapshot: L2FeatureSnapshot) -> float:
    """Compute one feature of the book.

    Args:
        transform: One of `BOOK_TRANSFORMS`.
        snapshot: Snapshot of the last book before the instant.

    Source: FORMULAS 1.2.
    """
    return _OF_BOOK[transform](snapshot)


def is_stale(book: L2FeatureSnapshot, read_ts_ms: int, engine: EngineConfig) -> bool:
    """Say whether a book is more than one bar older than the instant that it is read at."""
    return read_ts_ms - book.ts_ms > engine.bar_interval_ms


def _depth_imbalance(snapshot: L2FeatureSnapshot) -> float:
    """Give the imbalance over all levels, [-1, 1]; positive is bid pressure."""
    return snapshot.depth_imbalance_top_n_bps / BPS_ONE


def _impact_buy_pct(snapshot: L2FeatureSnapshot) -> float:
    """Give what buying the reference quantity costs; 5 percent where the asks cannot fill it."""
    return snapshot.impact_buy_top_n_bps / BPS_PER_PERCENT


def _impact_sell_pct(snapshot: L2FeatureSnapshot) -> float:
    """Give what selling the reference quantity costs; 5 percent where the bids cannot fill it."""
    return snapshot.impact_sell_top_n_bps / BPS_PER_PERCENT


def _wall_bid_score(snapshot: L2FeatureSnapshot) -> float:
    """Give the largest over the median bid quantity, at least 1."""
    return snapshot.wall_bid_score_top_n_x1000 / THOUSANDTHS_ONE


def _wall_ask_score(snapshot: L2FeatureSnapshot) -> float:
    """Give the largest over the median ask quantity, at least 1."""
    return snapshot.wall_ask_score_top_n_x1000 / THOUSANDTHS_ONE


def _insufficient_depth_buy(snapshot: L2FeatureSnapshot) -> float:
    """Give 1 where the asks cannot fill the reference quantity, else 0."""
    return float(snapshot.impact_buy_top_n_insufficient_depth)


def _insufficient_depth_sell(snapshot: L2FeatureSnapshot) -> float:
    """Give 1 where the bids cannot fill the reference quantity, else 0."""
    return float(snapshot.impact_sell_top_n_insufficient_depth)


_OF_BOOK: dict[FeatureTransform, Callable[[L2FeatureSnapshot], float]] = {
    FeatureTransform.DEPTH_IMBALANCE: _depth_imbalance,
    FeatureTransform.IMPACT_BUY_PCT: _impact_buy_pct,
    FeatureTransform.IMPACT_SELL_PCT: _impact_sell_pct,
    FeatureTransform.WALL_BID_SCORE: _wall_bid_score,
    FeatureTransform.WALL_ASK_SCORE: _wall_ask_score,
    FeatureTransform.INSUFFICIENT_DEPTH_BUY: _insufficient_depth_buy,
    FeatureTransform.INSUFFICIENT_DEPTH_SELL: _insufficient_depth_sell,
}
