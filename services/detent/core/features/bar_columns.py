"""Turns the bars of one symbol into columns of numbers, each read from its decimals once."""

import functools
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from detent.contracts.market import Bar

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Prices below so many of their smallest units are exact as floats, and by far.
UNITS_MAX = 2.0**50
# The largest power of ten that is exact as a float.
PLACES_MAX = 22
NEWLINE, DOT, NINE = b"\n.9"


class BarColumns:
    """Holds what features read of bars: floats, and prices as whole numbers where they fit.

    Attributes:
        bars: The bars, of one symbol and interval, oldest first.
    """

    def __init__(self, bars: Sequence[Bar]) -> None:
        """Keep the bars; a column is read when it is first asked for."""
        self.bars = bars

    @functools.cached_property
    def ts_ms(self) -> list[int]:
        """Give the close times, Unix milliseconds UTC."""
        return [bar.ts_ms for bar in self.bars]

    @functools.cached_property
    def close(self) -> Floats:
        """Give the last prices."""
        return _floats(self._texts[0])

    @functools.cached_property
    def high(self) -> Floats:
        """Give the highest prices."""
        return _floats(self._texts[1])

    @functools.cached_property
    def low(self) -> Floats:
        """Give the lowest prices."""
        return _floats(self._texts[2])

    @functools.cached_property
    def volume(self) -> Floats:
        """Give the volumes, base units."""
        return np.array([float(bar.volume) for bar in self.bars])

    @functools.cached_property
    def vwap(self) -> Floats:
        """Give the volume-weighted prices; NaN where the source has none."""
        return _floats_or_nan(bar.vwap for bar in self.bars)

    @functools.cached_property
    def funding_rate(self) -> Floats:
        """Give the funding rates as shares; NaN where the source has none."""
        return _floats_or_nan(bar.funding_rate for bar in self.bars)

    @functools.cached_property
    def places(self) -> int | None:
        """Count the decimals of the prices; None when whole numbers of 64 bits do not do."""
        places = _places(text for texts in self._texts for text in texts)
        if places is None or places > PLACES_MAX:
            return None
        fits = float(np.max(self.high, initial=0.0)) * 10.0**places < UNITS_MAX
        return places if fits else None

    def units(self, prices: Floats) -> Ints:
        """Give a column of prices in whole units of the last decimal, exactly.

        Args:
            prices: One of the columns of prices; `places` is not None.
        """
        assert self.places is not None
        # Price and product are off by half a unit in the last place each: a quarter of a whole.
        return np.rint(prices * 10.0**self.places).astype(np.int64)

    @functools.cached_property
    def _texts(self) -> tuple[list[str], list[str], list[str]]:
        # A decimal becomes a float by way of its text, so this costs nothing more.
        closes = [str(bar.close) for bar in self.bars]
        return closes, [str(bar.high) for bar in self.bars], [str(bar.low) for bar in self.bars]


def _floats(texts: Sequence[str]) -> Floats:
    return np.array(list(map(float, texts)), dtype=np.float64)


def _floats_or_nan(numbers: Iterable[Decimal | None]) -> Floats:
    return np.array([np.nan if number is None else float(number) for number in numbers])


def _places(texts: Iterable[str]) -> int | None:
    """Count the decimals of the numbers; None when one is not in plain notation."""
    joined = np.frombuffer(("\n".join(texts) + "\n").encode("ascii"), dtype=np.uint8)
    if int(joined.max()) > NINE:
        return None
    dots, ends = np.flatnonzero(joined == DOT), np.flatnonzero(joined == NEWLINE)
    after = ends[np.searchsorted(ends, dots)] - dots - 1
    return int(after.max(initial=0))
