"""Map whole columns of a graph's outputs to integers: the same integers as row by row.

Arrays are some hundred times as quick as rows. What they compute may differ from the map of one
row in the last bit of a float, and so in an integer where a value lies next to the middle between
two; there, and only there, the map of one row decides.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detent.contracts.units import BPS_ONE
from detent.core.signals.calibration import PROBABILITY_MAX, PROBABILITY_MIN, Calibrator

Floats = NDArray[np.floating]
Integers = NDArray[np.int32]
# Basis points around the middle between two integers in which an array does not decide. Two
# implementations of exp and log differ by some 1e-16 of a probability, a hundred thousandth of it.
UNDECIDED_BPS = 1e-6


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
    p = np.clip(p_hat_raw.astype(np.float64), PROBABILITY_MIN, PROBABILITY_MAX)
    score = calibrator.a * (np.log(p) - np.log1p(-p)) + calibrator.b
    decay = np.exp(-np.abs(score))
    return _rounded(
        np.where(score <= 0.0, 1.0, decay) / (1.0 + decay),
        lambda row: calibrator.probability(float(p_hat_raw[row])),
    )


def _rounded(shares: NDArray[np.float64], of_row: Callable[[int], float]) -> Integers:
    exact = shares * BPS_ONE
    rounded = np.rint(exact)
    undecided = np.flatnonzero(np.abs(exact - rounded) > 0.5 - UNDECIDED_BPS)
    for row in undecided.tolist():
        rounded[row] = round(of_row(row) * BPS_ONE)
    return rounded.astype(np.int32)
