"""Bound a mean row by row: `confidence_sequence.bernstein_bounds` as a process that may go on.

Source: Waudby-Smith and Ramdas 2023, predictable mixtures; QUANT A9.
"""

import math

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX

_STAKE_MAX = 0.5
# What a row is taken for before there are any.
_MEAN, _VARIANCE = 0.5, 0.25


class MeanProcess(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the rows so far say of their mean, for rows in [0, 1].

    Attributes:
        alpha: Chance that the mean is ever outside, in (0, 1).
        count: Rows seen.
        total: Their sum.
        variance_sum: What the variance is made of: squares around the mean of the time.
        staked: Sum of the stakes.
        won: Sum of the stakes times the rows.
        below: Margin of the lower bound, before it is divided by what was staked.
        above: The same of the upper one.
    """

    alpha: float
    count: int = 0
    total: float = 0.0
    variance_sum: float = _VARIANCE
    staked: float = 0.0
    won: float = 0.0
    below: float = 0.0
    above: float = 0.0

    def after(self, value: float) -> "MeanProcess":
        """Give the process after the next row.

        Args:
            value: In [0, 1].

        Raises:
            InvalidField: It is outside.
        """
        if not 0.0 <= value <= 1.0:
            raise InvalidField("value", value, "in [0, 1]")
        number = self.count + 1
        # The stake of a row knows only the rows before it.
        variance = self.variance_sum / number
        wanted = 2.0 * math.log(2.0 / self.alpha) / (number * math.log1p(number) * variance)
        stake = min(_STAKE_MAX, math.sqrt(wanted))
        spread = -math.log1p(-stake) - stake
        low_mean, high_mean = (self.total / self.count,) * 2 if self.count else (1.0, 0.0)
        total = self.total + value
        mean = (_MEAN + total) / (number + 1)
        return MeanProcess(
            alpha=self.alpha,
            count=number,
            total=total,
            variance_sum=self.variance_sum + (value - mean) ** 2,
            staked=self.staked + stake,
            won=self.won + stake * value,
            below=self.below + (value - low_mean) ** 2 * spread,
            above=self.above + (value - high_mean) ** 2 * spread,
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """Give the lower and the upper bound; all of [0, 1] before the first row."""
        if not self.count:
            return 0.0, 1.0
        middle, chance = self.won / self.staked, math.log(2.0 / self.alpha)
        low = middle - (chance + self.below) / self.staked
        high = middle + (chance + self.above) / self.staked
        return max(0.0, low), min(1.0, high)


class LossBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds the mean of losses in [-1, 1] whose outcomes overlap over a horizon.

    There is one process per place within the horizon, each with its share of the chance of
    error, so that all their bounds hold together; their mean bounds the mean of all.

    Attributes:
        processes: One per place.
        count: Losses seen.
    """

    processes: tuple[MeanProcess, ...]
    count: int = 0

    @classmethod
    def start(cls, *, alpha: float, horizon_bars: int = 1) -> "LossBounds":
        """Begin with no loss.

        Args:
            alpha: Chance that the mean is ever outside, in (0, 1).
            horizon_bars: How far ahead the label looks, at least 1.
        """
        check_int("horizon_bars", horizon_bars, 1, INT32_MAX)
        return cls(processes=(MeanProcess(alpha=alpha / horizon_bars),) * horizon_bars)

    def after(self, loss: float) -> "LossBounds":
        """Give the bounds after the next loss, in the order of the bars."""
        place = self.count % len(self.processes)
        processes = list(self.processes)
        # A rounding of the halving never leaves the range: both ends are exact.
        processes[place] = processes[place].after((loss + 1.0) / 2.0)
        return LossBounds(processes=tuple(processes), count=self.count + 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """Give the lower and the upper bound of the mean loss, in [-1, 1]."""
        shares = [one.count / self.count if self.count else 0.0 for one in self.processes]
        if not self.count:
            return -1.0, 1.0
        each = [one.bounds for one in self.processes]
        low = sum(share * bound[0] for share, bound in zip(shares, each, strict=True))
        high = sum(share * bound[1] for share, bound in zip(shares, each, strict=True))
        return 2.0 * low - 1.0, 2.0 * high - 1.0
