"""Hold the two feature snapshots of seed 003, section 12.2.1."""

from decimal import Decimal
from typing import ClassVar

import msgspec

from detent.contracts.checks import check_int, check_symbol, check_ts_ms
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.units import BPS_ONE, INT32_MAX


class FeatureSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one symbol's top of book and volatility at one instant.

    The four quote fields are None, together, when the symbol has no quotes.

    Attributes:
        ts: Event time, Unix milliseconds UTC (the seed's name).
        symbol: Instrument.
        mid_price: (bid + ask) / 2.
        spread_bps: (ask - bid) / mid, truncated toward zero.
        imbalance_l1_bps: Top-of-book imbalance, [-10000, 10000].
        thin_l1: Smaller of the two top quantities.
        natr_bps: ATR over the last close; 0 in warm-up.
        atr: Simple mean of true ranges, price units; None in warm-up.
        sum_abs_returns_bps: Sum of absolute bar returns over the horizon.
        net_return_bps: Absolute return over the horizon, never negative.
        range_score: sum_abs_returns_bps // (net_return_bps + 1).
        warmup_bars: Completed bars held.
    """

    SCHEMA: ClassVar[str] = "detent.feature_snapshot.v1"

    ts: int
    symbol: str
    mid_price: Decimal | None
    spread_bps: int | None
    imbalance_l1_bps: int | None
    thin_l1: Decimal | None
    natr_bps: int
    atr: Decimal | None
    sum_abs_returns_bps: int
    net_return_bps: int
    range_score: int
    warmup_bars: int

    def __post_init__(self) -> None:
        """Refuse values outside their ranges and a half-present quote."""
        check_ts_ms("ts", self.ts)
        check_symbol("symbol", self.symbol)
        quote = (self.mid_price, self.spread_bps, self.imbalance_l1_bps, self.thin_l1)
        if any(value is None for value in quote) and any(value is not None for value in quote):
            raise InvalidField("mid_price", quote, "all four quote fields or none")
        if self.mid_price is not None:
            check_decimal("mid_price", self.mid_price, above_zero=True)
        if self.spread_bps is not None:
            check_int("spread_bps", self.spread_bps, 0, INT32_MAX)
        if self.imbalance_l1_bps is not None:
            check_int("imbalance_l1_bps", self.imbalance_l1_bps, -BPS_ONE, BPS_ONE)
        if self.thin_l1 is not None:
            check_decimal("thin_l1", self.thin_l1, above_zero=False)
        if self.atr is not None:
            check_decimal("atr", self.atr, above_zero=False)
        for name in ("natr_bps", "sum_abs_returns_bps", "net_return_bps"):
            check_int(name, getattr(self, name), 0, INT32_MAX)
        check_int("range_score", self.range_score, 0, INT32_MAX)
        check_int("warmup_bars", self.warmup_bars, 0, INT32_MAX)


class L2FeatureSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the depth of one symbol's order book at one instant.

    Attributes:
        ts_ms: Event time, Unix milliseconds UTC.
        symbol: Instrument.
        venue: Exchange.
        depth: Levels per side.
        depth_bid_qty_top_n: Quantity over all bid levels.
        depth_ask_qty_top_n: Quantity over all ask levels.
        depth_imbalance_top_n_bps: Depth imbalance, [-10000, 10000].
        impact_buy_top_n_bps: Slippage of buying `qty_ref`.
        impact_sell_top_n_bps: Slippage of selling `qty_ref`.
        impact_buy_top_n_insufficient_depth: 1 when the asks cannot fill it.
        impact_sell_top_n_insufficient_depth: 1 when the bids cannot fill it.
        wall_bid_score_top_n_x1000: Largest over median bid quantity, times 1000.
        wall_ask_score_top_n_x1000: Largest over median ask quantity, times 1000.
        qty_ref: Quantity that the impact was computed for.
    """

    SCHEMA: ClassVar[str] = "detent.l2_feature_snapshot.v1"
    JSON_NAMES: ClassVar[dict[str, str]] = {
        "depth_bid_qty_top_n": "depth_bid_qty_topN",
        "depth_ask_qty_top_n": "depth_ask_qty_topN",
        "depth_imbalance_top_n_bps": "depth_imbalance_topN_bps",
        "impact_buy_top_n_bps": "impact_buy_topN_bps",
        "impact_sell_top_n_bps": "impact_sell_topN_bps",
        "impact_buy_top_n_insufficient_depth": "impact_buy_topN_insufficient_depth",
        "impact_sell_top_n_insufficient_depth": "impact_sell_topN_insufficient_depth",
        "wall_bid_score_top_n_x1000": "wall_bid_score_topN_x1000",
        "wall_ask_score_top_n_x1000": "wall_ask_score_topN_x1000",
    }

    ts_ms: int
    symbol: str
    venue: str
    depth: int
    depth_bid_qty_top_n: Decimal
    depth_ask_qty_top_n: Decimal
    depth_imbalance_top_n_bps: int
    impact_buy_top_n_bps: int
    impact_sell_top_n_bps: int
    impact_buy_top_n_insufficient_depth: int
    impact_sell_top_n_insufficient_depth: int
    wall_bid_score_top_n_x1000: int
    wall_ask_score_top_n_x1000: int
    qty_ref: Decimal

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        check_ts_ms("ts_ms", self.ts_ms)
        check_symbol("symbol", self.symbol)
        check_symbol("venue", self.venue)
        check_int("depth", self.depth, 0, INT32_MAX)
        check_decimal("depth_bid_qty_topN", self.depth_bid_qty_top_n, above_zero=False)
        check_decimal("depth_ask_qty_topN", self.depth_ask_qty_top_n, above_zero=False)
        imbalance_bps = self.depth_imbalance_top_n_bps
        check_int("depth_imbalance_topN_bps", imbalance_bps, -BPS_ONE, BPS_ONE)
        check_int("impact_buy_topN_bps", self.impact_buy_top_n_bps, 0, INT32_MAX)
        check_int("impact_sell_topN_bps", self.impact_sell_top_n_bps, 0, INT32_MAX)
        for name in (
            "impact_buy_top_n_insufficient_depth",
            "impact_sell_top_n_insufficient_depth",
        ):
            check_int(self.JSON_NAMES[name], getattr(self, name), 0, 1)
        for name in ("wall_bid_score_top_n_x1000", "wall_ask_score_top_n_x1000"):
            check_int(self.JSON_NAMES[name], getattr(self, name), 1000, INT32_MAX)
        check_decimal("qty_ref", self.qty_ref, above_zero=True)
