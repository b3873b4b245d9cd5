"""Bound a mean after every row, all bounds at once with one chance of error.

For means of numbers in [0, 1], such as a rate or a loss; a difference d in [-1, 1] is given as
(d + 1) / 2.

Source: Waudby-Smith and Ramdas 2023, predictable mixtures; QUANT A9.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField

Floats = NDArray[np.float64]
# What a row is taken for before there are any.
_MEAN, _VARIANCE = 0.5, 0.25
_BERNSTEIN_STAKE_MAX, _HOEFFDING_STAKE_MAX = 0.5, 1.0


class MeanBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the bounds after each row.

    Attributes:
        low: Lower bounds, in [0, 1].
        high: Upper bounds.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]


def bernstein_bounds(values: Sequence[float], *, alpha: float) -> MeanBounds:
    """Bound the mean by what the values vary: narrow where they hardly do.

    Args:
        values: In [0, 1], in the order in which they came.
        alpha: Chance that the mean is ever outside, in (0, 1).

    Raises:
        InvalidField: A value is outside [0, 1], or there is none.
    """
    rows, number = _checked(values)
    # (1) The stake of a row knows only the rows before it.
    means = (_MEAN + np.cumsum(rows)) / (number + 1)
    variances = (_VARIANCE + np.cumsum((rows - means) ** 2)) / (number + 1)
    before = np.append(_VARIANCE, variances[:-1])
    wanted = np.sqrt(2.0 * np.log(2.0 / alpha) / (number * np.log1p(number) * before))
    stakes = np.minimum(_BERNSTEIN_STAKE_MAX, wanted)

    # (2) How far each row fell from the mean before it; for the first that is the far end.
    def spread(start: float) -> Floats:
        before_means = np.append(start, (np.cumsum(rows) / number)[:-1])
        found: Floats = (rows - before_means) ** 2 * (-np.log1p(-stakes) - stakes)
        return found

    return _bounds(rows, stakes, (spread(1.0), spread(0.0)), alpha)


def hoeffding_bounds(values: Sequence[float], *, alpha: float) -> MeanBounds:
    """Bound the mean by the range of the values alone.

    Args and errors: as for `bernstein_bounds`.
    """
    rows, number = _checked(values)
    wanted = np.sqrt(8.0 * np.log(2.0 / alpha) / (number * np.log1p(number)))
    stakes = np.minimum(_HOEFFDING_STAKE_MAX, wanted)
    return _bounds(rows, stakes, (stakes**2 / 8.0,) * 2, alpha)


def _checked(values: Sequence[float]) -> tuple[Floats, Floats]:
    rows = np.array(values, dtype=np.float64)
    if not len(rows) or not np.all((rows >= 0.0) & (rows <= 1.0)):
        raise InvalidField("values", values[:1], "at least one value, all in [0, 1]")
    return rows, np.arange(1.0, len(rows) + 1.0)


def _bounds(
    rows: Floats, stakes: Floats, spreads: tuple[Floats, Floats], alpha: float
) -> MeanBounds:
    """Give the bounds from what every row adds to the lower and to the upper margin."""
    staked = np.cumsum(stakes)
    middle = np.cumsum(stakes * rows) / staked
    below, above = ((np.log(2.0 / alpha) + np.cumsum(one)) / staked for one in spreads)
    return MeanBounds(
        low=tuple(np.maximum(0.0, middle - below).tolist()),
        high=tuple(np.minimum(1.0, middle + above).tolist()),
    )
