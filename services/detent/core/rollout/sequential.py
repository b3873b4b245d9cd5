"""Test, after every bar and for as long as one likes, whether a candidate does worse.

A test that is repeated on every bar at 5% ends most healthy rollouts. A process that is expected
not to grow while the candidate does no worse can be looked at after every bar: the chance that
it ever reaches 1/alpha is at most alpha (Ville).

Source: Waudby-Smith and Ramdas 2023 (betting); Lindon et al. 2022; QUANT A9; decision D18.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX

Floats = NDArray[np.float64]
ALPHA = 0.05
# What is staked on each bar, as a share: few bars of a catastrophe, many of a small loss.
STAKES: Floats = np.geomspace(0.004, 0.9, 14)


def paired_loss(candidate: Floats, champion: Floats, labels: NDArray[np.bool_]) -> float:
    """Give what a candidate lost against the champion on one bar, as a share of what it could.

    The mean over the symbols of the difference in Brier score, divided by the greatest that
    the two probabilities allow. Both are known before the outcome, so the scale is fair; without
    it the difference is far within [-1, 1] and a stake on it learns nothing.

    Args:
        candidate: Shape (symbols,), float64: probabilities of the candidate, [0, 1].
        champion: Shape (symbols,): of the model that shadows it.
        labels: Shape (symbols,), bool: what came true.

    Returns:
        In [-1, 1], above 0 where the candidate did worse; 0 where the two said the same.

    Raises:
        InvalidField: There is no symbol, the shapes differ, or a value is no probability.
    """
    if candidate.shape != champion.shape or candidate.shape != labels.shape or not len(labels):
        found = f"shapes {candidate.shape}, {champion.shape}, {labels.shape}"
        raise InvalidField("paired_loss", found, "one value each per symbol")
    for field, p in (("candidate", candidate), ("champion", champion)):
        if not np.all((p >= 0.0) & (p <= 1.0)):
            raise InvalidField(field, p.tolist(), "probabilities in [0, 1]")
    if_up = (1.0 - candidate) ** 2 - (1.0 - champion) ** 2
    if_down = candidate**2 - champion**2
    scale = float(np.mean(np.maximum(np.abs(if_up), np.abs(if_down))))
    if scale <= 0.0:
        return 0.0
    lost = float(np.mean(np.where(labels, if_up, if_down)))
    # The quotient of two means may leave the range by a rounding.
    return max(-1.0, min(1.0, lost / scale))


class BettingProcess(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what has been won by betting that the candidate does worse.

    With a horizon of several bars neighbouring outcomes overlap, so a bar is a surprise only to
    the process that saw the bar a horizon before it: there is one process per place within the
    horizon, and they are averaged. Each is valid at any time; their mean is expected to be at
    most 1 at every bar, and how often it stops a healthy candidate is counted in the tests.

    Attributes:
        log_wealth: Per process and stake, the logarithm of what a stake of 1 has become.
        bar_count: Bars seen.
    """

    log_wealth: tuple[tuple[float, ...], ...]
    bar_count: int = 0

    @classmethod
    def start(cls, *, horizon_bars: int = 1) -> "BettingProcess":
        """Begin with a stake of 1.

        Args:
            horizon_bars: How far ahead the label looks, at least 1.
        """
        check_int("horizon_bars", horizon_bars, 1, INT32_MAX)
        return cls(log_wealth=((0.0,) * len(STAKES),) * horizon_bars)

    def after(self, loss: float) -> "BettingProcess":
        """Give the process after the next bar, in the order of the bars.

        Args:
            loss: What `paired_loss` gave, [-1, 1].
        """
        if not -1.0 <= loss <= 1.0:
            raise InvalidField("loss", loss, "in [-1, 1]")
        place = self.bar_count % len(self.log_wealth)
        wealth = list(self.log_wealth)
        grown = zip(wealth[place], STAKES.tolist(), strict=True)
        wealth[place] = tuple(held + math.log1p(stake * loss) for held, stake in grown)
        return BettingProcess(log_wealth=tuple(wealth), bar_count=self.bar_count + 1)

    @property
    def e_value(self) -> float:
        """Give the evidence that the candidate does worse: 1 is none, 20 is 5%."""
        log_wealth = np.array(self.log_wealth)
        most = float(np.max(log_wealth))
        mean = float(np.mean(np.exp(log_wealth - most)))
        # Beyond what a float holds, evidence is overwhelming either way.
        return math.exp(min(700.0, most + math.log(mean)))

    def does_worse(self, alpha: float = ALPHA) -> bool:
        """Say whether the evidence suffices to roll back."""
        return self.e_value >= 1.0 / alpha


def e_values(losses: Floats, *, horizon_bars: int = 1) -> Floats:
    """Give the evidence after every bar of many runs at once: `BettingProcess` in columns.

    Args:
        losses: Shape (runs, bars), float64, in [-1, 1].
        horizon_bars: How far ahead the label looks.

    Returns:
        Shape (runs, bars), float64.
    """
    runs, bars = losses.shape
    total: Floats = np.zeros((runs, bars))
    for place in range(horizon_bars):
        for stake in STAKES:
            steps = np.zeros((runs, bars))
            steps[:, place::horizon_bars] = np.log1p(stake * losses[:, place::horizon_bars])
            total += np.exp(np.minimum(700.0, np.cumsum(steps, axis=1)))
    return total / (len(STAKES) * horizon_bars)


class SprtDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Says what Wald's test decided, and when.

    Attributes:
        rejects_first: True for the second rate, False for the first, None while undecided.
        row_count: Rows that were looked at.
        log_ratio: Logarithm of the likelihood ratio after them.
    """

    rejects_first: bool | None
    row_count: int
    log_ratio: float


def sprt_bounds(alpha: float, beta: float) -> tuple[float, float]:
    """Give the lower and the upper bound of the log likelihood ratio."""
    return math.log(beta / (1.0 - alpha)), math.log((1.0 - beta) / alpha)


def bernoulli_sprt(
    outcomes: Iterable[bool], *, rates: Sequence[float], alpha: float = ALPHA, beta: float = 0.1
) -> SprtDecision:
    """Decide between two rates of an event, such as a fallback or an error, as it happens.

    Args:
        outcomes: Whether the event happened, row by row.
        rates: The first rate and the second, each in (0, 1).
        alpha: Chance to leave the first where it is true.
        beta: Chance to keep it where the second is true.

    Returns:
        The decision at the first row that suffices for one.
    """
    first, second = rates
    lower, upper = sprt_bounds(alpha, beta)
    if_true, if_false = math.log(second / first), math.log((1.0 - second) / (1.0 - first))
    ratio, count = 0.0, 0
    for outcome in outcomes:
        ratio += if_true if outcome else if_false
        count += 1
        if ratio >= upper or ratio <= lower:
            return SprtDecision(rejects_first=ratio >= upper, row_count=count, log_ratio=ratio)
    return SprtDecision(rejects_first=None, row_count=count, log_ratio=ratio)
