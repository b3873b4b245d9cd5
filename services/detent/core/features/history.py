"""Holds the recent bars, quotes and books of one symbol and reads them as of any instant.

As of T means: bars that close at or before T, quotes and books with an event time before T, and
of all only what was known by T. What was once readable as of T never changes afterwards, because
data that come too late are refused, and a bar is never known before, or together with, the one
in front of it.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from detent.contracts.checks import check_ts_ms
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import BarOutOfOrder, DataConflict, DataLate, InvalidField
from detent.contracts.market import Bar, Book, Quote, repeats
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.core.features.book_history import BookHistory
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.snapshot import mid_price

# Bridges the time between the close of a bar and its arrival; older quotes are kept per bar.
QUOTES_HELD_MAX = 1_024
NO_VOLUME = Decimal(0)


class HistoryWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Shows what was known of one symbol as of one instant.

    Attributes:
        as_of_ts_ms: The instant.
        bars: The newest finished bars, oldest first, as many as asked for where held.
        quotes: For each bar the last quote before its close; None where there is none held.
        ordinal: Number of the newest bar, from 1; 0 where there is none.
        bar_count: Finished bars up to the instant, saturating at the engine's `max_bars`.
        quote: Last quote before the instant, if there is one.
        l2_snapshot: What the last book before the instant says, if there is one.
        l2_snapshots: For each bar what the last book before its close said, where held.
        complete: Whether everything asked for is still held.
    """

    as_of_ts_ms: int
    bars: tuple[Bar, ...]
    quotes: tuple[Quote | None, ...]
    ordinal: int
    bar_count: int
    quote: Quote | None
    l2_snapshot: L2FeatureSnapshot | None
    l2_snapshots: tuple[L2FeatureSnapshot | None, ...]
    complete: bool


class _Closed(msgspec.Struct, frozen=True):
    """Keeps a finished bar with what was known at its close.

    Attributes:
        bar: The bar.
        known_ts_ms: First instant as of which it may be read.
        ordinal: Its number, from 1.
        quote: Last quote before its close, of those known by then.
        quote_held: Whether that is certain.
    """

    bar: Bar
    known_ts_ms: int
    ordinal: int
    quote: Quote | None
    quote_held: bool
    l2_snapshot: L2FeatureSnapshot | None
    l2_held: bool


@dataclasses.dataclass(slots=True)
class _Unfinished:
    """Grows from quotes until its interval is over."""

    end_ts_ms: int
    known_ts_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class SymbolHistory:
    """Holds the recent bars, quotes and books of one symbol.

    Attributes:
        symbol: Instrument.
        engine: Interval, memory and source of the bars; how books are described, if they are.
        books: The newest books; None where the engine has no use for them.
    """

    def __init__(self, symbol: str, engine: EngineConfig) -> None:
        """Start without data."""
        self.symbol = symbol
        self.engine = engine
        self.books = None if engine.book is None else BookHistory(engine.book)
        self._closed: deque[_Closed] = deque(maxlen=engine.max_bars)
        self._unfinished: _Unfinished | None = None
        self._quotes: deque[Quote] = deque()
        self._quote_dropped: Quote | None = None

    @property
    def watermark_ts_ms(self) -> int:
        """Give the close time of the last finished bar; 0 before the first."""
        return self._closed[-1].bar.ts_ms if self._closed else 0

    @property
    def reach_ts_ms(self) -> int:
        """Give the last instant as of which the data are known to be whole; 0 before any.

        Finished bars prove it up to the instant from which the last is known. Where bars are
        built from quotes, the newest quote proves it up to itself: quotes come in order, so
        nothing older can follow. Where books are described as well, the newest book has to
        prove the same.
        """
        if self.engine.bar_source is BarSource.READY_MADE:
            return self._closed[-1].known_ts_ms if self._closed else 0
        newest_ts_ms = self._quotes[-1].ts_ms if self._quotes else 0
        return newest_ts_ms if self.books is None else min(newest_ts_ms, self.books.newest_ts_ms)

    @property
    def ordinal(self) -> int:
        """Give the number of the last finished bar, from 1; 0 before the first."""
        return self._closed[-1].ordinal if self._closed else 0

    @property
    def bar_count(self) -> int:
        """Count the finished bars held."""
        return len(self._closed)

    def add(self, item: Bar | Quote | Book) -> bool:
        """Take an item of any kind, by the rules of its kind.

        Returns:
            True when it is new, False when it is known.

        Raises:
            DetentError: It is refused.
        """
        if isinstance(item, Bar):
            return self.add_bar(item)
        if isinstance(item, Quote):
            return self.add_quote(item)
        return self.add_book(item)

    def add_bar(self, bar: Bar) -> bool:
        """Take a finished bar.

        Returns:
            True when it is new, False when the very same bar is already held.

        Raises:
            InvalidField: Not this symbol's or this interval's bar.
            DataConflict: Other content than the bar held for that close.
            BarOutOfOrder: The bar closes before the last one held.
        """
        self._check_mine("symbol", bar.symbol)
        if self.engine.bar_source is not BarSource.READY_MADE:
            raise InvalidField("bar", f"a finished bar of {bar.symbol}", "quotes to build it from")
        if bar.interval_ms != self.engine.bar_interval_ms:
            expected = f"{self.engine.bar_interval_ms}, the interval of the feature set"
            raise InvalidField("interval_ms", bar.interval_ms, expected)
        if bar.ts_ms <= self.watermark_ts_ms:
            self._check_known(bar)
            return False
        self._close(bar)
        return True

    def add_quote(self, quote: Quote) -> bool:
        """Take a quote; where bars are built from quotes, it may finish one.

        Returns:
            True when it is new, False when it repeats the last one.

        Raises:
            InvalidField: Not this symbol's, or not representable.
            DataLate: Older than what is known.
        """
        self._check_mine("symbol", quote.symbol)
        newest_ts_ms = self._quotes[-1].ts_ms if self._quotes else 0
        reach_ts_ms = self.reach_ts_ms
        # A quote that was known after the reach changes no reading up to it, however old it is.
        is_behind = quote.ts_ms < reach_ts_ms and quote.known_ts_ms <= reach_ts_ms
        if quote.ts_ms < newest_ts_ms or is_behind:
            known_ts_ms = max(newest_ts_ms, reach_ts_ms)
            raise DataLate("ts_ms", quote.ts_ms, f"at least {known_ts_ms}: the quote is late")
        if self._quotes and repeats(quote, self._quotes[-1]):
            return False
        mid = mid_price(quote)
        check_decimal("mid_price", mid, above_zero=True)
        if self.engine.bar_source is BarSource.FROM_QUOTES:
            self._fold(quote, mid)
        self._quotes.append(quote)
        if len(self._quotes) > QUOTES_HELD_MAX:
            self._quote_dropped = self._quotes.popleft()
        return True

    def add_book(self, book: Book) -> bool:
        """Take an order book.

        Returns:
            True when it is new, False when it repeats the last one.

        Raises:
            InvalidField: Not this symbol's, of no use here, late, of another venue, or not what
                is held of the same instant.
        """
        self._check_mine("symbol", book.symbol)
        if self.books is None:
            raise InvalidField("book", f"a book of {book.symbol}", "none: no feature reads it")
        # Up to both, somebody may have read already.
        return self.books.add(book, known_ts_ms=max(self.watermark_ts_ms, self.reach_ts_ms))

    def window(self, as_of_ts_ms: int, *, bars_wanted: int) -> HistoryWindow:
        """Read the newest bars, the quote and the book as of an instant.

        A bar that is being built and ends at or before the instant is finished there; it does
        not wait for the next quote.
        """
        closed = self._closed_as_of(as_of_ts_ms)
        last = next(closed, None)
        known = (
            entry
            for entry in itertools.chain((last,), closed)
            if entry is not None and entry.known_ts_ms <= as_of_ts_ms
        )
        newest = list(itertools.islice(known, bars_wanted))
        ordinal = newest[0].ordinal if newest else 0
        # What is not held any more must not pass for what has not happened yet.
        first_ordinal = self._closed[0].ordinal if self._closed else 1
        complete = first_ordinal == 1 or len(newest) == bars_wanted
        if last is not None and last.bar.ts_ms == as_of_ts_ms:
            quote, quote_held = last.quote, last.quote_held
            l2_snapshot, l2_held = last.l2_snapshot, last.l2_held
        else:
            quote, quote_held = self._quote_before(as_of_ts_ms)
            l2_snapshot, l2_held = self._book_before(as_of_ts_ms)
        return HistoryWindow(
            as_of_ts_ms=as_of_ts_ms,
            bars=tuple(entry.bar for entry in reversed(newest)),
            quotes=tuple(entry.quote for entry in reversed(newest)),
            ordinal=ordinal,
            bar_count=min(ordinal, self.engine.max_bars),
            quote=quote,
            l2_snapshot=l2_snapshot,
            l2_snapshots=tuple(entry.l2_snapshot for entry in reversed(newest)),
            complete=complete and quote_held and l2_held,
        )

    def _closed_as_of(self, as_of_ts_ms: int) -> Iterator[_Closed]:
        """Yield the bars that had closed by an instant, known then or not, newest first."""
        growing = self._unfinished
        if growing is not None and growing.end_ts_ms <= as_of_ts_ms:
            yield self._entry(self._finished(growing))
        for entry in reversed(self._closed):
            if entry.bar.ts_ms <= as_of_ts_ms:
                yield entry

    def _quote_before(self, ts_ms: int) -> tuple[Quote | None, bool]:
        """Give the last quote before an instant and known by it, and whether that is certain."""
        for quote in reversed(self._quotes):
            if quote.ts_ms < ts_ms and quote.known_ts_ms <= ts_ms:
                return quote, True
        dropped = self._quote_dropped
        if dropped is None:
            return None, True
        is_it = dropped.ts_ms < ts_ms and dropped.known_ts_ms <= ts_ms
        return (dropped, True) if is_it else (None, False)

    def _book_before(self, ts_ms: int) -> tuple[L2FeatureSnapshot | None, bool]:
        """Describe the last book before an instant, and say whether that is certain."""
        return (None, True) if self.books is None else self.books.before(ts_ms)

    def _fold(self, quote: Quote, mid: Decimal) -> None:
        """Let a midpoint grow the current bar, or finish it and begin the next."""
        interval_ms = self.engine.bar_interval_ms
        end_ts_ms = quote.ts_ms - quote.ts_ms % interval_ms + interval_ms
        check_ts_ms("ts_ms", end_ts_ms)
        growing = self._unfinished
        if growing is not None and end_ts_ms > growing.end_ts_ms:
            self._close(self._finished(growing))
            growing = None
        if growing is None:
            self._unfinished = _Unfinished(
                end_ts_ms, quote.known_ts_ms, open=mid, high=mid, low=mid, close=mid
            )
            return
        growing.known_ts_ms = max(growing.known_ts_ms, quote.known_ts_ms)
        growing.high = max(growing.high, mid)
        growing.low = min(growing.low, mid)
        growing.close = mid

    def _finished(self, growing: _Unfinished) -> Bar:
        late_ts_ms = growing.known_ts_ms
        return Bar(
            symbol=self.symbol,
            ts_ms=growing.end_ts_ms,
            interval_ms=self.engine.bar_interval_ms,
            open=growing.open,
            high=growing.high,
            low=growing.low,
            close=growing.close,
            volume=NO_VOLUME,
            # A bar is known once all that it is made of is.
            available_ts_ms=late_ts_ms if late_ts_ms > growing.end_ts_ms else None,
        )

    def _close(self, bar: Bar) -> None:
        self._closed.append(self._entry(bar))

    def _entry(self, bar: Bar) -> _Closed:
        quote, quote_held = self._quote_before(bar.ts_ms)
        l2_snapshot, l2_held = self._book_before(bar.ts_ms)
        ordinal, known_ts_ms = 1, bar.known_ts_ms
        if self._closed:
            # After the bar in front of it, or a reading as of that instant would change.
            ordinal = self._closed[-1].ordinal + 1
            known_ts_ms = max(known_ts_ms, self._closed[-1].known_ts_ms + 1)
        return _Closed(
            bar,
            known_ts_ms=known_ts_ms,
            ordinal=ordinal,
            quote=quote,
            quote_held=quote_held,
            l2_snapshot=l2_snapshot,
            l2_held=l2_held,
        )

    def _check_known(self, bar: Bar) -> None:
        held = next((entry.bar for entry in self._closed if entry.bar.ts_ms == bar.ts_ms), None)
        if held is None:
            raise BarOutOfOrder(
                f"bar of {bar.symbol}: found close time {bar.ts_ms}, "
                f"expected after {self.watermark_ts_ms}",
                found=bar.ts_ms,
                expected=f"after {self.watermark_ts_ms}",
            )
        for name in Bar.__struct_fields__:
            found, expected = getattr(bar, name), getattr(held, name)
            # When it was first known stays so, whenever it is sent again.
            if found != expected and name != "available_ts_ms":
                raise DataConflict(name, found, f"{expected}, as held for {bar.ts_ms}")

    def _check_mine(self, field: str, symbol: str) -> None:
        if symbol != self.symbol:
            raise InvalidField(field, symbol, self.symbol)
