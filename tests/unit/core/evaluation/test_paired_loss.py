"""Differences of losses, bounded where bars and symbols depend on one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.evaluation.finance_reference import reference

from detent.contracts.errors import InvalidField
from detent.core.evaluation.auc_comparison import compare_auc
from detent.core.evaluation.paired_loss import (
    bar_means,
    block_bars,
    brier_losses,
    hac_mean,
    log_losses,
    stationary_blocks,
    upper_bound,
)
from detent.core.evaluation.scores import Floats, brier_score, log_loss


def test_the_error_of_a_mean_agrees_with_an_independent_library() -> None:
    fixture = reference("paired_loss_hac")
    expected, tolerance = fixture["expected"], fixture["tol"]
    found = hac_mean(np.array(fixture["inputs"]["d"]), fixture["inputs"]["maxlags"])

    assert found.mean == pytest.approx(expected["mean"], abs=tolerance)
    assert found.standard_error == pytest.approx(expected["se"], abs=tolerance)
    assert found.z == pytest.approx(expected["z"], abs=tolerance)


def test_the_comparison_of_orders_agrees_with_an_independent_library() -> None:
    fixture = reference("delong")
    given_ = fixture["inputs"]
    z, p_value = fixture["expected"]["result_z_p"]
    found = compare_auc(
        np.array(given_["p1"]), np.array(given_["p2"]), np.array(given_["y"], dtype=np.bool_)
    )

    assert abs(found.z) == pytest.approx(abs(z), abs=1e-6)
    assert found.p_value == pytest.approx(p_value, abs=1e-6)


def test_orders_that_are_alike_do_not_differ() -> None:
    p = np.linspace(0.1, 0.9, 40)
    labels = np.arange(40) % 3 == 0
    found = compare_auc(p, p**2, labels)

    assert (found.z, found.p_value, found.first) == (0.0, 1.0, found.second)
    with pytest.raises(InvalidField, match="two of each"):
        compare_auc(p, p, np.arange(40) == 3)


def test_losses_average_to_the_scores() -> None:
    chance = np.random.default_rng(1)
    p, labels = chance.random(300), chance.random(300) < 0.4

    assert brier_losses(p, labels).mean() == pytest.approx(brier_score(p, labels), abs=1e-15)
    assert log_losses(p, labels).mean() == pytest.approx(log_loss(p, labels), abs=1e-12)


def test_a_bar_is_one_observation_however_many_symbols_it_has() -> None:
    ts_ms = np.array([20, 10, 20, 30, 10, 20])
    values = np.array([1.0, 4.0, 2.0, 7.0, 6.0, 3.0])

    assert bar_means(ts_ms, values).tolist() == [5.0, 2.0, 7.0]


@given(
    count=st.integers(1, 60),
    block=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_resample_is_made_of_runs_of_bars(count: int, block: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    restarts = chance.random(count)
    indices = stationary_blocks(restarts, chance.random(count), block_bar_count=block)

    assert indices.min() >= 0
    assert indices.max() < count
    goes_on = restarts[1:] >= 1.0 / block
    assert np.all(((indices[1:] - indices[:-1]) % count == 1 % count)[goes_on])


def test_blocks_are_as_long_as_asked_in_the_mean() -> None:
    chance = np.random.default_rng(3)
    indices = stationary_blocks(chance.random(50_000), chance.random(50_000), block_bar_count=20)
    breaks = np.count_nonzero((indices[1:] - indices[:-1]) % 50_000 != 1)

    assert 50_000 / breaks == pytest.approx(20, rel=0.1)
    assert block_bars(8_000, 4) == 20
    assert block_bars(8_000, 48) == 48


def dependent(count: int, seed: int, *, hold: float = 0.6) -> Floats:
    """Draw a series of mean 0 in which each value keeps part of the last."""
    noise = np.random.default_rng(seed).normal(size=count)
    values = np.empty(count)
    last = 0.0
    for index in range(count):
        last = hold * last + noise[index]
        values[index] = last
    return values


def bootstrap_bound(values: Floats, seed: int, *, block: int, resamples: int = 200) -> float:
    chance = np.random.default_rng(seed)
    count = len(values)
    drawn = (
        stationary_blocks(chance.random(count), chance.random(count), block_bar_count=block)
        for _ in range(resamples)
    )
    return upper_bound(lambda indices: float(values[indices].mean()), drawn)


def refusals_missed(trials: int, *, block: int, first_seed: int = 0) -> float:
    """Give how often a difference that is none is bounded below 0: wrongly called better."""
    return float(
        np.mean(
            [
                bootstrap_bound(dependent(600, seed), seed, block=block) < 0.0
                for seed in range(first_seed, first_seed + trials)
            ]
        )
    )


def test_blocks_keep_the_bound_honest_and_single_bars_do_not() -> None:
    """5% were promised; bars drawn one by one call far more of nothing an improvement."""
    assert refusals_missed(60, block=12) <= 0.12
    assert refusals_missed(60, block=1) >= 0.15


@pytest.mark.long
def test_a_bound_over_blocks_is_wrong_about_as_often_as_promised() -> None:
    assert refusals_missed(1_000, block=12) <= 0.09


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidField, match="resamples"):
        upper_bound(lambda _: 0.0, [])
    with pytest.raises(InvalidField, match="rows"):
        hac_mean(np.array([]), 3)
