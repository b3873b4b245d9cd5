"""Name the three features that weighed most in an answer, and measure them by leaving each out.

Source: seed 003, section 12.2.2; row R27.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detent.contracts.signals import TOP_FEATURES_COUNT

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

WEIGHT_ONE = 1_000


def top_features(
    names: Sequence[str], contributions: Doubles
) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """Give the three heaviest features and their shares of all weight, heaviest first.

    Args:
        names: Name of each feature, in the order of the feature set; at least three.
        contributions: What each adds to the score; a feature's weight is its absolute size.

    Returns:
        Three names, and their shares times 1000, rounded half to even. Equal weights stand in
        the order of the feature set; where nothing weighs anything the shares are 0. None
        where a contribution is not a number.
    """
    sizes = np.abs(contributions)
    if not np.isfinite(sizes).all():
        return None
    order = np.argsort(-sizes, kind="stable")[:TOP_FEATURES_COUNT].tolist()
    greatest = float(sizes[order[0]])
    if not greatest > 0.0:
        return tuple(names[index] for index in order), (0,) * TOP_FEATURES_COUNT
    # Relative to the greatest first, so that no sum overflows.
    shares = sizes / greatest
    total = math.fsum(shares.tolist())
    weights = tuple(round(WEIGHT_ONE * float(shares[index]) / total) for index in order)
    return tuple(names[index] for index in order), weights


def occluded(row: Floats, baseline: Floats, *, columns: int, first: int, stop: int) -> Floats:
    """Give copies of a row, each with one feature as the baseline has it.

    Args:
        row: Shape (width,).
        baseline: Likewise.
        columns: Number of features; a window repeats them every so many values, and all of
            a feature's values are replaced together.
        first: First feature.
        stop: First feature that is no longer asked for.

    Returns:
        Shape (stop - first, width), float32.
    """
    copies = np.repeat(row[np.newaxis], stop - first, axis=0)
    for copy, feature in zip(copies, range(first, stop), strict=True):
        copy[feature::columns] = baseline[feature::columns]
    return copies
