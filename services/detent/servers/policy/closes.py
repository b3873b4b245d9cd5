"""Keep the newest closes of symbols, for the proxy that is computed on every bar."""

import bisect
from array import array
from collections.abc import Iterable, Mapping

from detent.contracts.proxy import PROXY_DEFAULT

CLOSES_MAX = PROXY_DEFAULT.closes_needed


class Closes:
    """Holds the newest closes of one symbol with their times, oldest first."""

    __slots__ = ("_closes", "_times_ms")

    def __init__(self, bars: Iterable[tuple[int, float]]) -> None:
        """Start with what is known of the past: close time and close of each bar, in order."""
        self._times_ms = array("q")
        self._closes = array("d")
        for ts_ms, close in bars:
            self.add(ts_ms, close)

    def add(self, ts_ms: int, close: float) -> None:
        """Add the close of the next bar."""
        self._times_ms.append(ts_ms)
        self._closes.append(close)
        # What nobody will look at goes now and then, many at a time.
        if len(self._closes) >= 2 * CLOSES_MAX:
            del self._times_ms[:-CLOSES_MAX]
            del self._closes[:-CLOSES_MAX]

    def since(self, since_ts_ms: int) -> "array[float]":
        """Give the newest closes at or after an instant, oldest first; at most `CLOSES_MAX`."""
        first = max(len(self._closes) - CLOSES_MAX, 0)
        return self._closes[bisect.bisect_left(self._times_ms, since_ts_ms, first) :]


class PastCloses:
    """Holds the closes since an instant of symbols that nobody has asked for yet.

    Attributes:
        since_ts_ms: The instant, Unix milliseconds.
    """

    __slots__ = ("_past", "since_ts_ms")

    def __init__(self, since_ts_ms: int, seen: Mapping[str, Mapping[int, float]]) -> None:
        """Take what a ledger knows: by symbol the close of each bar by its time, in order."""
        self.since_ts_ms = since_ts_ms
        self._past = {
            symbol: (array("q", bars), array("d", bars.values())) for symbol, bars in seen.items()
        }

    def take(self, symbol: str, *, before_ts_ms: int) -> Closes:
        """Give the closes of a symbol before an instant, and keep them no longer."""
        if symbol not in self._past:
            return Closes(())
        times_ms, closes = self._past.pop(symbol)
        count = bisect.bisect_left(times_ms, before_ts_ms)
        return Closes(zip(times_ms[:count], closes[:count], strict=True))
