"""Proves the corners of the map; the whole of it is in `tests/test_phat_to_signal_mapping.py`."""

import pytest

from detent.contracts.plan import TriggerState
from detent.core.signals.strength import signal_strength_bps


@pytest.mark.parametrize("p_hat_bps", [-1, 10_001])
def test_strength_is_not_computed_for_what_is_no_probability(p_hat_bps: int) -> None:
    """Our own code never asks that: ranges are refused where an answer arrives."""
    with pytest.raises(AssertionError):
        signal_strength_bps(p_hat_bps, TriggerState.LONG_ALLOWED)


@pytest.mark.proves("R198", "R199")
def test_the_two_directions_mirror_each_other() -> None:
    for p_hat_bps in range(10_001):
        long = signal_strength_bps(p_hat_bps, TriggerState.LONG_ALLOWED)
        short = signal_strength_bps(10_000 - p_hat_bps, TriggerState.SHORT_ALLOWED)
        assert long == short
