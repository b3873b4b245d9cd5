"""Split a proper score into miscalibration, discrimination and what nobody could know.

Source: Murphy 1973; Dimitriadis, Gneiting and Jordan 2021 (CORP); QUANT A2.
"""

from collections.abc import Callable

import msgspec
import numpy as np

from detent.core.evaluation.scores import Floats, Labels, brier_score, check_rows
from detent.core.signals.score_groups import ScoreGroups, pool_violators

Score = Callable[[Floats, Labels], float]


class MurphyParts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds Brier = reliability - resolution + uncertainty.

    Attributes:
        reliability: Mean squared distance of what was said from what happened then.
        resolution: Mean squared distance of what happened then from the base rate.
        uncertainty: Variance of the outcome.
    """

    reliability: float
    resolution: float
    uncertainty: float


class CorpParts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds score = miscalibration - discrimination + uncertainty.

    Attributes:
        miscalibration: What the best monotone map of the probabilities would win (MCB).
        discrimination: What the probabilities so mapped win over the base rate (DSC).
        uncertainty: Score of the base rate (UNC).
        score: Score of the probabilities themselves.
    """

    miscalibration: float
    discrimination: float
    uncertainty: float
    score: float


def murphy_parts(p: Floats, labels: Labels) -> MurphyParts:
    """Split the Brier score over the distinct probabilities, for which it is exact.

    In bins of several probabilities it would not be.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    said, index, counts = np.unique(p, return_inverse=True, return_counts=True)
    happened = np.bincount(index, weights=labels) / counts
    base = float(np.mean(labels))
    return MurphyParts(
        reliability=float(np.sum(counts * (said - happened) ** 2) / len(p)),
        resolution=float(np.sum(counts * (happened - base) ** 2) / len(p)),
        uncertainty=base * (1.0 - base),
    )


def corp_parts(p: Floats, labels: Labels, *, score: Score = brier_score) -> CorpParts:
    """Split a proper score without bins: by the best monotone map of the probabilities.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.
        score: The score: `brier_score` or `log_loss`.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    mapped = corp_map(p, labels)
    plain, best = score(p, labels), score(mapped, labels)
    base = score(np.full(p.shape, np.mean(labels)), labels)
    return CorpParts(
        miscalibration=plain - best, discrimination=base - best, uncertainty=base, score=plain
    )


def corp_map(p: Floats, labels: Labels) -> Floats:
    """Give what the best monotone map makes of each row: the line of a CORP diagram.

    Args and errors: as for `corp_parts`.
    """
    check_rows(p, labels)
    groups = ScoreGroups.of(p, labels)
    shares = [
        block.ups / block.rows
        for block in pool_violators(groups.rows, groups.ups)
        for _ in range(block.first, block.last + 1)
    ]
    _, place = np.unique(p, return_inverse=True)
    return np.array(shares)[place]
