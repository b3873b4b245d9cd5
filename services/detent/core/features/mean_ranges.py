"""Gives the ATR of every bar of a series, to the digit as `average_true_range` does.

Prices with few digits are whole numbers of their last decimal, and a sum of those is exact.
Longer ones are added as decimals in a context that refuses to round.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, Rounded, localcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detent.contracts.decimals import format_decimal
from detent.contracts.market import Bar
from detent.core.features.bar_columns import BarColumns, Floats, Ints
from detent.core.features.snapshot import DIGITS, PLACES_MAX, average_true_range

# Refuses to round, and so proves that a rolled sum is the sum of the window.
EXACT = Context(prec=DIGITS.prec, rounding=ROUND_HALF_EVEN, traps=[Rounded])
SUM_MAX = 2.0**62
# Beyond these the text of an ATR may need cutting; the snapshot code knows how.
ATR_MIN = Decimal("1e-9")
ATR_MAX = Decimal("1e20")
TEN_POWERS = 10 ** np.arange(19, dtype=np.int64)


class MeanRanges(Protocol):
    """Gives the simple mean of the last true ranges as of every bar.

    Attributes:
        floats: As floats, within two units in the last place; NaN before there are enough bars.
        usual: Where the snapshot code would neither cut nor refuse it.
    """

    floats: Floats
    usual: NDArray[np.bool_]

    def texts(self, rows: Ints) -> list[str]:
        """Give the canonical text at these bars, all of them usual."""
        ...


def mean_ranges(columns: BarColumns, period: int) -> MeanRanges | None:
    """Give the ATR of every bar, or None when its sums cannot be rolled exactly.

    Args:
        columns: The bars, more than `period` of them.
        period: Number of true ranges in the mean.
    """
    whole = _in_units(columns, period)
    if whole is not None:
        return whole
    rolled = _as_decimals(columns.bars, period)
    return None if rolled is None else _OfDecimals(rolled)


class _OfUnits:
    """Holds sums of true ranges in whole units of the last decimal."""

    def __init__(self, columns: BarColumns, sums: Ints, *, period: int) -> None:
        assert columns.places is not None
        self._columns, self._period, self._places = columns, period, columns.places
        self._whole, self._rest = np.divmod(sums, period)
        self.floats = np.full(len(columns.bars), np.nan)
        self.floats[period:] = sums / (period * 10.0**self._places)
        self.usual = np.ones(len(columns.bars), dtype=np.bool_)
        self._fractions: dict[tuple[int, int], str] = {}

    def texts(self, rows: Ints) -> list[str]:
        whole, rest = self._whole[rows - self._period], self._rest[rows - self._period]
        digits = np.searchsorted(TEN_POWERS, whole, side="right")
        # So many digits beyond the units fill the context of the division.
        more = DIGITS.prec - digits
        plain = (whole > 0) & (self._places + more <= PLACES_MAX)
        before, after = np.divmod(whole, 10**self._places)
        # Without places the second number is 0 and is not written.
        form = f"%d.%0{self._places}d%s" if self._places else "%d.%.0s%s"
        fractions = self._fractions
        columns = (before.tolist(), after.tolist(), rest.tolist(), more.tolist())
        texts = []
        for front, back, left, count in zip(*columns, strict=True):
            fraction = fractions.get((left, count))
            if fraction is None:
                fraction = fractions[left, count] = _fraction(left, self._period, count)
            text = form % (front, back, fraction)
            texts.append(text if fraction else text.rstrip("0").rstrip("."))
        for index in np.flatnonzero(~plain).tolist():
            texts[index] = self._one_text(int(rows[index]))
        return texts

    def _one_text(self, row: int) -> str:
        bars = self._columns.bars[row - self._period : row + 1]
        atr = average_true_range(bars, self._period)
        assert atr is not None, "there are as many true ranges as the mean has"
        return format_decimal(atr)


class _OfDecimals:
    """Holds the means as decimals."""

    def __init__(self, atrs: list[Decimal | None]) -> None:
        self._atrs = atrs
        self.floats = np.array([np.nan if atr is None else float(atr) for atr in atrs])
        self.usual = np.array([not atr or ATR_MIN < atr < ATR_MAX for atr in atrs])

    def texts(self, rows: Ints) -> list[str]:
        held = (self._atrs[row] for row in rows.tolist())
        return [format_decimal(atr) for atr in held if atr is not None]


def _in_units(columns: BarColumns, period: int) -> _OfUnits | None:
    if columns.places is None:
        return None
    high, low = columns.units(columns.high), columns.units(columns.low)
    close = columns.units(columns.close)[:-1]
    ranges = np.maximum(high[1:] - low[1:], np.abs(high[1:] - close))
    np.maximum(ranges, np.abs(low[1:] - close), out=ranges)
    if float(ranges.max(initial=0)) * period > SUM_MAX:
        return None
    # Sums that overflow wrap around, and so do their differences: those are exact.
    run = np.concatenate(([0], np.cumsum(ranges)))
    return _OfUnits(columns, run[period:] - run[:-period], period=period)


def _fraction(rest: int, period: int, digits: int) -> str:
    """Write the digits of rest / period behind the point, rounded half-even, zeros cut."""
    digit, left = divmod(rest * 10**digits, period)
    if 2 * left > period or (2 * left == period and digit % 2):
        digit += 1
    return str(digit).zfill(digits).rstrip("0")


def _as_decimals(bars: Sequence[Bar], period: int) -> list[Decimal | None] | None:
    atrs: list[Decimal | None] = []
    window: deque[Decimal] = deque()
    total = Decimal(0)
    try:
        with localcontext(EXACT):
            for before, bar in itertools.pairwise(itertools.chain((None,), bars)):
                assert bar is not None
                if before is not None:
                    high, low, close = bar.high, bar.low, before.close
                    true_range = max(high - low, abs(high - close), abs(low - close))
                    window.append(true_range)
                    total += true_range
                    if len(window) > period:
                        total -= window.popleft()
                full = len(window) == period
                atrs.append(DIGITS.divide(total, Decimal(period)) if full else None)
    except Rounded:
        return None
    return atrs
