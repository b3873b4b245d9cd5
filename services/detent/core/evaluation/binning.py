"""Sort probabilities into bins, closed on the right; each way of it has a name.

Source: Guo et al. 2017 (width); Kumar et al. 2019 (rows); QUANT A2; decision D21.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from detent.core.evaluation.scores import Floats


class Binning(StrEnum):
    """Names where the edges of the bins are.

    `WIDTH`: at even distances over [0, 1].
    `MASS`: at quantiles of the probabilities, linear between two of them.
    `ROWS`: as many rows in each, the edges halfway between neighbouring rows.
    """

    WIDTH = "width"
    MASS = "mass"
    ROWS = "rows"


def bin_edges(p: Floats, bin_count: int, binning: Binning) -> Floats:
    """Give the edges of the bins, ascending, from the first lower one to the last upper one.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        bin_count: How many bins are wanted; edges that coincide make fewer.
        binning: Where the edges are.
    """
    shares = np.linspace(0.0, 1.0, bin_count + 1)
    match binning:
        case Binning.WIDTH:
            return shares
        case Binning.MASS:
            return np.percentile(p, shares * 100.0)
        case Binning.ROWS:
            ordered = np.sort(p)
            # What does not divide evenly goes to the first bins, a row each.
            each, over = divmod(len(p), bin_count)
            place = np.arange(1, bin_count)
            starts = place * each + np.minimum(place, over)
            inside = starts[(starts > 0) & (starts < len(p))]
            halfway = (ordered[inside - 1] + ordered[inside]) / 2.0
            return np.concatenate([[0.0], np.unique(halfway), [1.0]])


def bin_of(p: Floats, edges: Floats) -> NDArray[np.intp]:
    """Give the bin of every row: (low, high], and what lies at or below the first edge."""
    return np.searchsorted(edges[1:-1], p, side="left")
