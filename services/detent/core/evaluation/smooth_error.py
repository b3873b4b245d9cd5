"""Measure calibration without bins: the smooth ECE, which follows the data in how wide it looks.

The residuals are smoothed by a Gaussian that is reflected at 0 and 1. A narrow one sees noise,
a wide one sees nothing; the one whose width is the error itself is the measure.

Source: Blasiok and Nakkiran 2023; QUANT A2.
"""

import numpy as np
from numpy.typing import NDArray

from detent.core.evaluation.scores import Floats, Labels, check_rows

SMOOTH_ERROR_NAME = "smooth_ece_positive"
# Places on [0, 1] that residuals are spread to: finer than any width that is found.
CELLS = 4_096
BISECTIONS = 50


def smooth_error(p: Floats, labels: Labels) -> float:
    """Give the smooth ECE of the positive class, [0, 1].

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    frequencies = np.fft.rfft(_reflected(_residuals(p, labels)))
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        width = (low + high) / 2.0
        if _smoothed_error(frequencies, width) > width:
            low = width
        else:
            high = width
    return (low + high) / 2.0


def _residuals(p: Floats, labels: Labels) -> Floats:
    """Spread each row's residual over the two places next to its probability."""
    position = p * CELLS
    cell = np.minimum(position.astype(np.int64), CELLS - 1)
    beyond = position - cell
    residual = (labels - p) / len(p)
    spread = np.zeros(CELLS + 1)
    np.add.at(spread, cell, residual * (1.0 - beyond))
    np.add.at(spread, cell + 1, residual * beyond)
    return spread


def _reflected(residuals: Floats) -> Floats:
    """Continue to both sides as in mirrors: one period of the endless reflection."""
    # What lies in a mirror itself is its own image, and counts twice.
    ends = np.ones(CELLS + 1)
    ends[[0, -1]] = 2.0
    doubled = residuals * ends
    return np.concatenate([doubled, doubled[-2:0:-1]])


def _smoothed_error(frequencies: NDArray[np.complex128], width: float) -> float:
    # A Gaussian's transform, over a period of 2 in units of [0, 1].
    decay = np.exp(-0.5 * (np.pi * width * np.arange(len(frequencies))) ** 2)
    smoothed = np.abs(np.fft.irfft(frequencies * decay)[: CELLS + 1])
    # By trapezoids: half of either end.
    return float(smoothed.sum() - (smoothed[0] + smoothed[-1]) / 2.0)
