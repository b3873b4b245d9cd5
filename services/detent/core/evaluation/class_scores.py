"""Score distributions over classes: Brier in its three scalings, log loss, accuracy.

Source: Brier 1950; QUANT A2.
"""

import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField
from detent.core.evaluation.scores import LOG_LOSS_CLIP, Floats

Classes = NDArray[np.int64]
# A float32 softmax that sums to 1 is off by a few units of its last place.
SUM_TOLERANCE = 1e-4


def brier_sum(shares: Floats, classes: Classes) -> float:
    """Give the squared distance summed over the classes, as Brier has it, [0, 2].

    Args:
        shares: Shape (n, k), float64, each row a distribution, n at least 1.
        classes: Shape (n,), int64, the class that came true, in [0, k).

    Raises:
        InvalidField: There are no rows, or a row is no distribution.
    """
    check_shares(shares, classes)
    happened = np.zeros_like(shares)
    happened[np.arange(len(classes)), classes] = 1.0
    return float(np.mean(np.sum((shares - happened) ** 2, axis=1)))


def brier_half(shares: Floats, classes: Classes) -> float:
    """Give half of `brier_sum`, [0, 1]: of two classes it is the Brier score of one."""
    return brier_sum(shares, classes) / 2.0


def brier_class_mean(shares: Floats, classes: Classes) -> float:
    """Give `brier_sum` over the number of classes, [0, 2 / k]: the mean of one against rest."""
    return brier_sum(shares, classes) / int(shares.shape[1])


def class_log_loss(shares: Floats, classes: Classes) -> float:
    """Give the mean negative log-likelihood in nats, with shares clipped by `LOG_LOSS_CLIP`.

    Args and errors: as for `brier_sum`.
    """
    check_shares(shares, classes)
    came_true = shares[np.arange(len(classes)), classes]
    return float(-np.mean(np.log(np.clip(came_true, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP))))


def top_label_accuracy(shares: Floats, classes: Classes) -> float:
    """Give the share of rows whose most probable class came true; of equals the first counts.

    Args and errors: as for `brier_sum`.
    """
    check_shares(shares, classes)
    return float(np.mean(shares.argmax(axis=1) == classes))


def check_shares(shares: Floats, classes: Classes) -> None:
    """Refuse rows that no score is defined on."""
    if shares.ndim != 2 or classes.shape != shares.shape[:1] or len(classes) == 0:  # noqa: PLR2004
        raise InvalidField("shares", f"shape {shares.shape}", "rows of classes, one label each")
    # Written so that a NaN, which is on no side of anything, is refused too.
    if not np.all((shares >= 0.0) & (shares <= 1.0)):
        raise InvalidField("shares", "a value outside", "probabilities in [0, 1]")
    if not np.all(np.abs(shares.sum(axis=1) - 1.0) <= SUM_TOLERANCE):
        raise InvalidField("shares", "a row that does not sum to 1", "distributions")
    if classes.min() < 0 or classes.max() >= shares.shape[1]:
        raise InvalidField("classes", int(classes.max()), f"a class below {shares.shape[1]}")
