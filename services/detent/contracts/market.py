"""Hold market data: finished bars and top-of-book quotes."""

from decimal import Decimal

import msgspec

from detent.contracts.checks import check_int, check_symbol, check_ts_ms
from detent.contracts.decimals import check_decimal, check_signed_decimal
from detent.contracts.errors import InvalidField

INTERVAL_MS_MAX = 366 * 86_400_000


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one finished bar of one symbol.

    Attributes:
        symbol: Instrument.
        ts_ms: Close time, Unix milliseconds UTC.
        interval_ms: Length of the bar.
        open: First price, above 0.
        high: Highest price.
        low: Lowest price.
        close: Last price, above 0.
        volume: Traded quantity in base units, at least 0.
        vwap: Volume-weighted price of the bar, above 0; None when the source has none.
        funding_rate: Funding rate that holds at the close, as a share of the notional per
            funding period, of either sign; None when the source has none.
    """

    symbol: str
    ts_ms: int
    interval_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    vwap: Decimal | None = None
    funding_rate: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse a bar whose prices contradict each other."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("interval_ms", self.interval_ms, 1, INTERVAL_MS_MAX)
        for name in ("open", "high", "low", "close"):
            check_decimal(name, getattr(self, name), above_zero=True)
        check_decimal("volume", self.volume, above_zero=False)
        if self.vwap is not None:
            check_decimal("vwap", self.vwap, above_zero=True)
        if self.funding_rate is not None:
            check_signed_decimal("funding_rate", self.funding_rate)
        if self.high < max(self.open, self.close, self.low):
            raise InvalidField("high", self.high, "at least open, low and close")
        if self.low > min(self.open, self.close):
            raise InvalidField("low", self.low, "at most open and close")


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the best bid and ask of one symbol at one instant.

    Attributes:
        symbol: Instrument.
        ts_ms: Event time, Unix milliseconds UTC.
        bid_price: Best bid, above 0 and below the ask.
        ask_price: Best ask.
        bid_qty: Quantity at the bid, at least 0.
        ask_qty: Quantity at the ask, at least 0.
    """

    symbol: str
    ts_ms: int
    bid_price: Decimal
    ask_price: Decimal
    bid_qty: Decimal
    ask_qty: Decimal

    def __post_init__(self) -> None:
        """Refuse a crossed or locked quote."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_decimal("bid_price", self.bid_price, above_zero=True)
        check_decimal("ask_price", self.ask_price, above_zero=True)
        check_decimal("bid_qty", self.bid_qty, above_zero=False)
        check_decimal("ask_qty", self.ask_qty, above_zero=False)
        if self.bid_price >= self.ask_price:
            raise InvalidField("bid_price", self.bid_price, f"below the ask {self.ask_price}")
