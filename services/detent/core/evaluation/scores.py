"""Score binary probabilities: Brier, log loss, accuracy.

Source: Brier 1950; QUANT A2.
"""

import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]

# A certain miss would cost infinitely much; part of the definition of our log loss.
LOG_LOSS_CLIP = 2.0**-52
# With another clip it is another metric, and has another name.
LOG_LOSS_NAME = "log_loss_clip2p52"
# What artifacts from before call it; they are pinned by their bytes, and built again to them.
FORMER_LOG_LOSS_NAME = "log_loss"


def brier_score(p: Floats, labels: Labels) -> float:
    """Give the mean squared distance between probability and outcome, [0, 1].

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    return float(np.mean((p - labels) ** 2))


def log_loss(p: Floats, labels: Labels) -> float:
    """Give the mean negative log-likelihood in nats, with p clipped by `LOG_LOSS_CLIP`.

    Args and errors: as for `brier_score`.
    """
    check_rows(p, labels)
    clipped = np.clip(p, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    return float(-np.mean(np.where(labels, np.log(clipped), np.log1p(-clipped))))


def accuracy(p: Floats, labels: Labels) -> float:
    """Give the share of rows on the right side of one half; exactly one half says down.

    Args and errors: as for `brier_score`.
    """
    check_rows(p, labels)
    even = 0.5
    return float(np.mean((p > even) == labels))


def check_rows(p: Floats, labels: Labels) -> None:
    """Refuse rows that no score is defined on."""
    if len(p) == 0 or p.shape != labels.shape or p.ndim != 1:
        raise InvalidField(
            "p", f"shape {p.shape} for labels {labels.shape}", "rows, one label each"
        )
    # Written so that a NaN, which is on no side of anything, is refused too.
    if not np.all((p >= 0.0) & (p <= 1.0)):
        raise InvalidField("p", p[~((p >= 0.0) & (p <= 1.0))][0], "a probability in [0, 1]")


def stated_name(metric: str) -> str:
    """Give the name that states a metric's definition, of one of today or of one of before."""
    if metric.startswith(f"{LOG_LOSS_NAME}_") or not metric.startswith(f"{FORMER_LOG_LOSS_NAME}_"):
        return metric
    return LOG_LOSS_NAME + metric.removeprefix(FORMER_LOG_LOSS_NAME)
