"""Sums many windows of floats at once, each to the bit as `math.fsum` sums it.

A running sum keeps beside it what each addition lost (Knuth's TwoSum), so the two together are
the exact sum but for an error that is bounded. Where every number within the bound rounds to
the same float, that float is the correctly rounded sum. The few windows where it is not so, on
a tie or beyond the range of floats, are summed by `math.fsum` itself.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
# Half a unit in the last place of 1.0: the relative error of one rounded operation.
UNIT = 2.0**-53
# Each step of a sum of what was lost errs by a unit, at most two steps to an item; four times
# that leaves room for the roundings of the bound itself.
STEPS = 8.0


class Partial(msgspec.Struct, frozen=True):
    """Holds sums of many windows, not rounded yet.

    Attributes:
        total: The sums as floats add up.
        lost: What the additions lost, added up.
        size: The same without signs; nothing was lost where it is 0.
    """

    total: Floats
    lost: Floats
    size: Floats


def zero(count: int) -> Partial:
    """Give so many sums of nothing."""
    return Partial(np.zeros(count), np.zeros(count), np.zeros(count))


def plus(partial: Partial, items: Floats) -> Partial:
    """Add one item to each sum.

    Args:
        partial: The sums so far.
        items: One item each.
    """
    total, lost = _two_sum(partial.total, items)
    return Partial(total, partial.lost + lost, partial.size + np.abs(lost))


def joined(left: Partial, right: Partial) -> Partial:
    """Add two sums each.

    Args:
        left: Sums of some windows.
        right: Sums of as many others.
    """
    total, lost = _two_sum(left.total, right.total)
    size = left.size + right.size + np.abs(lost)
    return Partial(total, left.lost + right.lost + lost, size)


def rounded(partial: Partial, count: int, items_of: Callable[[Indices], Floats]) -> Floats:
    """Round each sum once; NaN for one that no float holds.

    Args:
        partial: The sums.
        count: Items of each sum.
        items_of: Gives the items of some sums again, one row each.
    """
    error = partial.size * (STEPS * count * UNIT)
    sums: Floats = partial.total + partial.lost + 0.0
    low, high = partial.total + (partial.lost - error), partial.total + (partial.lost + error)
    # Of what is no number nothing becomes one, in no order of addition.
    again = ~((low == high) & np.isfinite(sums) | np.isnan(partial.total))
    if again.any():
        indices = np.flatnonzero(again)
        sums[indices] = [_one_sum(items) for items in items_of(indices).tolist()]
    return sums


class SlidingSums:
    """Sums every window of a series, for as many window lengths as asked.

    Windows of 2, 4, 8, ... items are sums of two half as long; any other length is made of
    those. They are kept, because features over one series come in several lengths.
    """

    def __init__(self, items: Floats) -> None:
        """Start with windows of one item.

        Args:
            items: The series, oldest first.
        """
        self._items = items
        nothing = np.zeros_like(items)
        self._doubled = [Partial(items, nothing, nothing)]

    def of(self, count: int) -> Floats:
        """Give the sum of each full window, the one that ends first at index 0.

        Args:
            count: Items of a window, at least 1 and at most as many as there are.
        """
        windows = len(self._items) - count + 1
        assert count >= 1
        assert windows >= 1
        whole: Partial | None = None
        begin = 0
        for power in range(count.bit_length()):
            if count >> power & 1:
                part = _cut(self._of_doubled(power), begin, windows)
                whole = part if whole is None else joined(whole, part)
                begin += 1 << power
        assert whole is not None, "some bit of the count is set"
        items = sliding_window_view(self._items, count)
        return rounded(whole, count, lambda indices: items[indices])

    def _of_doubled(self, power: int) -> Partial:
        while len(self._doubled) <= power:
            half = self._doubled[-1]
            step = 1 << (len(self._doubled) - 1)
            windows = len(half.total) - step
            self._doubled.append(joined(_cut(half, 0, windows), _cut(half, step, windows)))
        return self._doubled[power]


def _cut(partial: Partial, begin: int, count: int) -> Partial:
    window = slice(begin, begin + count)
    return Partial(partial.total[window], partial.lost[window], partial.size[window])


def _two_sum(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Give the rounded sums and what the rounding lost, exactly.

    Source: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B.
    """
    total = left + right
    of_right = total - left
    lost = total - of_right
    np.subtract(left, lost, out=lost)
    np.subtract(right, of_right, out=of_right)
    lost += of_right
    return total, lost


def _one_sum(items: list[float]) -> float:
    try:
        return math.fsum(items)
    except (OverflowError, ValueError):
        # A sum beyond what a float holds, or of infinities.
        return math.nan
