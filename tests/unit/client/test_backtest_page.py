"""Proves that the pictures of a long back-test leave out nothing that a person looks for."""

import numpy as np
import pytest

from detent_cli.backtest_page import POINTS_MAX, shown


@pytest.mark.parametrize("at", [0, 1, 5_003, 99_998, 99_999])
@pytest.mark.parametrize("spike", [-0.5, 0.5])
def test_one_bar_out_of_a_hundred_thousand_is_drawn(at: int, spike: float) -> None:
    """A fall or a position of one bar is what the tables beside the picture speak of."""
    held = np.zeros(100_000)
    held[at] = spike
    places = shown(held)

    assert spike in held[places]
    assert (places[0], places[-1]) == (0, 99_999)
    assert len(places) <= POINTS_MAX + 2
    assert np.all(np.diff(places) > 0)


def test_a_short_back_test_is_drawn_whole() -> None:
    assert shown(np.zeros(POINTS_MAX)).tolist() == list(range(POINTS_MAX))
    assert shown(np.zeros(1)).tolist() == [0]
