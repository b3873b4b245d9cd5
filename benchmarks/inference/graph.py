"""Name what every side knows of the graph, and draw rows for it.

Apart from the training, which imports what no server should carry while it is measured.
"""

import numpy as np
from numpy.typing import NDArray

INPUT_NAME = "input"
OUTPUT_NAME = "probabilities"
WIDTH = 15
SEED = 7


def drawn_rows(count: int, *, seed: int = SEED) -> NDArray[np.float32]:
    """Draw rows of features; the same arguments give the same rows."""
    return np.random.default_rng(seed).normal(0.0, 1.0, (count, WIDTH)).astype("<f4")
