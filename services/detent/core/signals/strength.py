"""Map a probability to the magnitude that a trigger has already permitted."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from detent.contracts.plan import TriggerState
from detent.contracts.units import BPS_HALF, BPS_ONE


def signal_strength_bps(p_hat_bps: int, trigger_state: TriggerState) -> int:
    """Map a probability of an up move to a magnitude.

    The result is never negative: direction belongs to the trigger, so a belief that
    disagrees with it yields zero and not the opposite position. Integer arithmetic keeps
    the map exact and its replay byte-identical.

    Args:
        p_hat_bps: Probability of an up move in basis points, [0, 10000].
        trigger_state: What the trigger engine permits on this bar.

    Returns:
        Magnitude in basis points, [0, 10000]; zero unless a direction is allowed.

    Source: seed 000, section 3, rows R198 to R201.
    """
    assert 0 <= p_hat_bps <= BPS_ONE

    match trigger_state:
        case TriggerState.LONG_ALLOWED:
            edge_bps = p_hat_bps - BPS_HALF
        case TriggerState.SHORT_ALLOWED:
            edge_bps = BPS_HALF - p_hat_bps
        case TriggerState.INACTIVE | TriggerState.EXIT_ONLY:
            edge_bps = 0
        case _:
            assert_never(trigger_state)
    return max(0, 2 * edge_bps)


def strength_columns(
    p_hat_bps: NDArray[np.int64], direction: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Map many probabilities to magnitudes, as `signal_strength_bps` does one.

    Args:
        p_hat_bps: Of an up move, basis points; any shape.
        direction: What is permitted: 1 up, -1 down, 0 neither; the same shape.
    """
    edge_bps: NDArray[np.int64] = direction * (p_hat_bps - BPS_HALF)
    return np.maximum(2 * edge_bps, 0)
