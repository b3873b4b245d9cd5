"""Hold what a market store gives back; none of it crosses a wire of ours."""

import msgspec

from detent.contracts.calls.feature import MarketEvent


class StoredMarketData(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a store kept of one symbol.

    Attributes:
        symbol: Instrument.
        events: What is kept, in the order in which it was taken.
        cut_ts_ms: Event time at or before which quotes may be missing; 0 when none is.
        short_intervals_ms: Intervals of which older bars are missing than a history holds.
    """

    symbol: str
    events: tuple[MarketEvent, ...]
    cut_ts_ms: int
    short_intervals_ms: tuple[int, ...]
