"""Map whole columns of a graph's outputs to integers: the same integers as row by row.

Arrays are some hundred times as quick as rows. What they compute may differ from the map of one
row in the last bit of a float, and so in an integer where a value lies next to the middle between
two; there, and only there, the map of one row decides.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detent.contracts.units import BPS_ONE
from detent.core.signals.calibration import Calibrator
from detent.core.signals.heads import DirectionHead, HeadMap
from detent.core.signals.quantise import SUM_TOLERANCE

Floats = NDArray[np.floating]
Integers = NDArray[np.int32]
# Basis points around the middle between two integers in which an array does not decide. Two
# implementations of exp and log differ by some 1e-16 of a probability, a hundred thousandth of it.
UNDECIDED_BPS = 1e-6
# So near to the tolerance an array does not decide whether a row is a distribution.
UNDECIDED_SUM = 1e-9


def columns_of(head: HeadMap, outputs: Sequence[Floats]) -> Mapping[str, Integers] | None:
    """Give the integers of every row by the name of their field.

    Args:
        head: The map of one row.
        outputs: Per output of the graph, shape (n, columns).

    Returns:
        Per field of the signal, shape (n,). None where the head is mapped row by row, or where
        a row may have no answer: which, and why, only the map of one row says.
    """
    if not isinstance(head, DirectionHead):
        return None
    # A class per row here: a sum over few long rows costs a tenth of one over many short ones.
    shares = outputs[0].T.astype(np.float64, order="C")
    # Written so that a NaN, which is on no side of anything, is left to the map of one row.
    if not (shares.min() >= 0.0 and shares.max() <= 1.0):
        return None
    if not np.abs(shares.sum(axis=0) - 1.0).max() <= SUM_TOLERANCE - UNDECIDED_SUM:
        return None
    up = outputs[0][:, -1]
    return {"p_hat_raw_bps": raw_bps(up), "p_hat_bps": calibrated_bps(head.calibrator, up)}


def raw_bps(p_hat_raw: Floats) -> Integers:
    """Round probabilities to basis points, half to even.

    Args:
        p_hat_raw: Shape (n,), each in [0, 1].
    """
    return np.rint(p_hat_raw.astype(np.float64) * BPS_ONE).astype(np.int32)


def calibrated_bps(calibrator: Calibrator, p_hat_raw: Floats) -> Integers:
    """Calibrate probabilities and round them to basis points, half to even.

    Args:
        calibrator: The map of one probability.
        p_hat_raw: Shape (n,), each in [0, 1].
    """
    return _rounded(
        calibrator.map.many(p_hat_raw.astype(np.float64)),
        lambda row: calibrator.probability(float(p_hat_raw[row])),
    )


def _rounded(shares: NDArray[np.float64], of_row: Callable[[int], float]) -> Integers:
    exact = shares * BPS_ONE
    rounded = np.rint(exact)
    away = np.abs(exact - rounded)
    if away.max() > 0.5 - UNDECIDED_BPS:
        for row in np.flatnonzero(away > 0.5 - UNDECIDED_BPS).tolist():
            rounded[row] = round(of_row(row) * BPS_ONE)
    return rounded.astype(np.int32)
