"""Compare how well two models order the same rows: their AUC, and the test of DeLong.

It says nothing of calibration: a model may order better and be worth less.

Source: DeLong, DeLong and Clarke-Pearson 1988; Sun and Xu 2014 for the ranks; QUANT A9.
"""

import math
from statistics import NormalDist

import msgspec
import numpy as np

from detent.contracts.errors import InvalidField
from detent.core.evaluation.scores import Floats, Labels, check_rows


class AucComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Holds two AUCs over the same rows and how far apart they are.

    Attributes:
        first: AUC of the first model.
        second: AUC of the second.
        z: Their difference over its standard error; 0 where they order alike.
        p_value: Two-sided, of no difference.
    """

    first: float
    second: float
    z: float
    p_value: float


def compare_auc(first: Floats, second: Floats, labels: Labels) -> AucComparison:
    """Compare two models on independent rows.

    Args:
        first: Shape (n,), float64, probabilities of one model.
        second: Shape (n,), those of the other.
        labels: Shape (n,), bool, of which both values occur at least twice.

    Raises:
        InvalidField: A value is no probability, or a class has too few rows.
    """
    check_rows(first, labels)
    check_rows(second, labels)
    ups, downs = int(np.sum(labels)), int(np.sum(~labels))
    if min(ups, downs) < 2:  # noqa: PLR2004  A variance needs two.
        raise InvalidField("labels", f"{ups} up and {downs} down", "two of each at least")
    up_placements, down_placements = zip(
        *(_placements(p, labels) for p in (first, second)), strict=True
    )
    areas = [float(np.mean(placed)) for placed in up_placements]
    covariance = np.cov(up_placements) / ups + np.cov(down_placements) / downs
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    difference = areas[0] - areas[1]
    z = difference / math.sqrt(variance) if variance > 0.0 else 0.0
    p_value = 2.0 * NormalDist().cdf(-abs(z))
    return AucComparison(first=areas[0], second=areas[1], z=z, p_value=p_value)


def _placements(p: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Give, per up row, the share of down rows below it, and the reverse; ties count half."""
    ups, downs = p[labels], p[~labels]
    over = (_midranks(p)[labels] - _midranks(ups)) / len(downs)
    under = 1.0 - (_midranks(p)[~labels] - _midranks(downs)) / len(ups)
    return over, under


def _midranks(values: Floats) -> Floats:
    """Rank values from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)
