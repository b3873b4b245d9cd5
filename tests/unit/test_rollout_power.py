"""The power table's simulation: its market is what it says, and its tests hold on a few runs."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.rollout.market import (
    CHAMPION_BRIER,
    draw_bars,
    said,
    stretch_of,
)
from benchmarks.rollout.power import measured


def test_the_market_is_the_one_that_is_described() -> None:
    drawn = draw_bars(40, 4_000, np.random.default_rng(1))
    p = said(drawn.log_odds)
    residuals = p - drawn.up
    correlations = np.corrcoef(residuals)[np.triu_indices(40, 1)]

    assert np.mean(residuals**2) == pytest.approx(CHAMPION_BRIER, abs=0.001)
    assert np.mean(correlations) == pytest.approx(0.4, abs=0.03)
    assert abs(np.mean(residuals)) < 0.02
    assert np.mean(drawn.up[p > 0.55]) == pytest.approx(np.mean(p[p > 0.55]), abs=0.03)


@pytest.mark.parametrize(
    ("growth", "stretch"), [(0.0, 1.0), (0.01, 2.05), (0.05, 3.55), (0.20, 7.5)]
)
def test_harm_is_as_large_as_it_says(growth: float, stretch: float) -> None:
    drawn = draw_bars(4, 50_000, np.random.default_rng(2))
    honest, sure = said(drawn.log_odds), said(drawn.log_odds, stretch_of(growth))
    scores = [np.mean((p - drawn.up) ** 2) for p in (honest, sure)]

    assert stretch_of(growth) == pytest.approx(stretch, rel=0.02)
    assert scores[1] / scores[0] - 1.0 == pytest.approx(growth, abs=0.01)


def test_a_few_runs_find_the_catastrophe_and_spare_the_healthy() -> None:
    healthy, worse = measured(1, 2, (0.0, 0.20), runs=30, seed=3, advance=lambda: None)

    assert healthy.betting_ever <= 0.10
    assert worse.betting_ever == 1.0
    assert worse.median_bars is not None
    assert 120 < worse.median_bars < 400
    assert healthy.peeked_ever > 0.15
