"""Ask how much of a Sharpe ratio is left once it is known how many trials it is the best of.

The best of many trials without skill looks skilled. The deflated ratio is the probability that
the true one exceeds what the best of that many would have shown; it also counts how long the
record is and how far its returns are from normal.

Source: Bailey and Lopez de Prado, The deflated Sharpe ratio, 2014; QUANT A7 and C5.
"""

import math
from statistics import NormalDist

import msgspec
import numpy as np

from detent.contracts.errors import InvalidField
from detent.core.evaluation.scores import Floats

_NORMAL = NormalDist()
# Moments of the fourth order need a few returns before they mean anything.
RETURNS_MIN = 4
_EULER = 0.5772156649015329


class ReturnMoments(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a record of returns, per period and not per year.

    Attributes:
        count: Returns, at least `RETURNS_MIN`.
        sharpe: Mean over standard deviation (ddof 1).
        skew: Third standardised moment.
        kurtosis: Fourth standardised moment; 3 for a normal.
    """

    count: int
    sharpe: float
    skew: float
    kurtosis: float


def return_moments(returns: Floats) -> ReturnMoments | None:
    """Describe returns, shape (n,); None where there are too few or none differs."""
    if len(returns) < RETURNS_MIN or np.all(returns == returns[0]):
        return None
    mean = float(np.mean(returns))
    centred = returns - mean
    variance = float(np.mean(centred**2))
    return ReturnMoments(
        count=len(returns),
        sharpe=mean / float(np.std(returns, ddof=1)),
        skew=float(np.mean(centred**3)) / variance**1.5,
        kurtosis=float(np.mean(centred**4)) / variance**2,
    )


def probabilistic_sharpe(moments: ReturnMoments, benchmark: float) -> float:
    """Give the probability that the true ratio per period exceeds a benchmark.

    A record so skewed that the variance of its ratio comes out at or below 0 proves nothing,
    and gives 0.
    """
    ratio = moments.sharpe
    spread = 1.0 - moments.skew * ratio + (moments.kurtosis - 1.0) / 4.0 * ratio**2
    if spread <= 0.0:
        return 0.0
    return _NORMAL.cdf((ratio - benchmark) * math.sqrt(moments.count - 1) / math.sqrt(spread))


def best_of_trials(trial_count: int, variance: float) -> float:
    """Give the ratio per period that the best of many trials without skill is expected to show.

    Args:
        trial_count: Every trial that was made, at least 1; of one trial nothing is expected.
        variance: Variance of the trials' ratios, per period.

    Raises:
        InvalidField: There was no trial.
    """
    if trial_count < 1:
        raise InvalidField("trial_count", trial_count, "at least 1")
    if trial_count == 1:
        return 0.0
    normal = _NORMAL.inv_cdf(1.0 - 1.0 / trial_count)
    tail = _NORMAL.inv_cdf(1.0 - 1.0 / (trial_count * math.e))
    return math.sqrt(variance) * ((1.0 - _EULER) * normal + _EULER * tail)


def deflated_sharpe(
    moments: ReturnMoments, trial_count: int, *, variance: float | None = None
) -> float:
    """Give the probability that the true ratio exceeds the best of so many trials without skill.

    Args:
        moments: The record of the trial that was chosen.
        trial_count: Every trial that was made, at least 1.
        variance: Variance of the trials' ratios, per period; None where they were not kept:
            then that of the ratio of as many returns without skill, 1/n.

    Raises:
        InvalidField: There was no trial.
    """
    assumed = 1.0 / moments.count if variance is None else variance
    return probabilistic_sharpe(moments, best_of_trials(trial_count, assumed))
