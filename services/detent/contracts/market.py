"""Hold market data: finished bars and top-of-book quotes."""

from decimal import Decimal

import msgspec

from detent.contracts.checks import check_int, check_symbol, check_ts_ms
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import DataCrossed, InvalidField

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
        available_ts_ms: When the bar became known, at least `ts_ms`; None when it was known as
            it closed.
    """

    symbol: str
    ts_ms: int
    interval_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    available_ts_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse a bar whose prices contradict each other."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("interval_ms", self.interval_ms, 1, INTERVAL_MS_MAX)
        for name in ("open", "high", "low", "close"):
            check_decimal(name, getattr(self, name), above_zero=True)
        check_decimal("volume", self.volume, above_zero=False)
        if self.high < max(self.open, self.close, self.low):
            raise InvalidField("high", self.high, "at least open, low and close")
        if self.low > min(self.open, self.close):
            raise InvalidField("low", self.low, "at most open and close")
        _check_available(self.ts_ms, self.available_ts_ms)

    @property
    def known_ts_ms(self) -> int:
        """Give the instant from which the bar was known, Unix milliseconds UTC."""
        return self.ts_ms if self.available_ts_ms is None else self.available_ts_ms


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the best bid and ask of one symbol at one instant.

    Attributes:
        symbol: Instrument.
        ts_ms: Event time, Unix milliseconds UTC.
        bid_price: Best bid, above 0 and below the ask.
        ask_price: Best ask.
        bid_qty: Quantity at the bid, at least 0.
        ask_qty: Quantity at the ask, at least 0.
        available_ts_ms: When the quote became known, at least `ts_ms`; None when it was known
            as it happened.
    """

    symbol: str
    ts_ms: int
    bid_price: Decimal
    ask_price: Decimal
    bid_qty: Decimal
    ask_qty: Decimal
    available_ts_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse a crossed or locked quote."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_decimal("bid_price", self.bid_price, above_zero=True)
        check_decimal("ask_price", self.ask_price, above_zero=True)
        check_decimal("bid_qty", self.bid_qty, above_zero=False)
        check_decimal("ask_qty", self.ask_qty, above_zero=False)
        if self.bid_price >= self.ask_price:
            raise DataCrossed("bid_price", self.bid_price, f"below the ask {self.ask_price}")
        _check_available(self.ts_ms, self.available_ts_ms)

    @property
    def known_ts_ms(self) -> int:
        """Give the instant from which the quote was known, Unix milliseconds UTC."""
        return self.ts_ms if self.available_ts_ms is None else self.available_ts_ms


def _check_available(ts_ms: int, available_ts_ms: int | None) -> None:
    """Refuse data that were known before they happened."""
    if available_ts_ms is None:
        return
    check_ts_ms("available_ts_ms", available_ts_ms)
    if available_ts_ms < ts_ms:
        raise InvalidField("available_ts_ms", available_ts_ms, f"at least ts_ms {ts_ms}")
