"""Sharpe ratios that know of how many trials they are the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.unit.core.evaluation.finance_reference import reference

from detent.contracts.errors import InvalidField
from detent.core.evaluation.deflated_sharpe import (
    ReturnMoments,
    best_of_trials,
    deflated_sharpe,
    probabilistic_sharpe,
    return_moments,
)


def test_the_published_example_comes_out() -> None:
    fixture = reference("dsr_published_example")
    given, expected = fixture["inputs"], fixture["expected"]
    year = given["periods"]
    moments = ReturnMoments(
        count=given["T"],
        sharpe=given["SR_annual"] / math.sqrt(year),
        skew=given["skew"],
        kurtosis=given["kurt"],
    )
    variance = given["V_annual"] / year

    assert best_of_trials(given["N"], variance) == pytest.approx(
        expected["SR0"], abs=fixture["tol"]
    )
    assert deflated_sharpe(moments, given["N"], variance=variance) == pytest.approx(
        expected["DSR"], abs=fixture["tol"]
    )


def test_moments_and_ratios_agree_with_an_independent_library() -> None:
    fixture = reference("psr_dsr")
    given, expected, tolerance = fixture["inputs"], fixture["expected"], 1e-9
    moments = return_moments(np.array(given["returns"]))
    assert moments is not None
    variance = given["var_sr_trials_per_period"]
    trials = given["n_trials"]

    assert moments.sharpe == pytest.approx(expected["sr_per_period"], abs=tolerance)
    assert moments.skew == pytest.approx(expected["skew"], abs=tolerance)
    assert moments.kurtosis == pytest.approx(expected["kurtosis_pearson"], abs=tolerance)
    assert probabilistic_sharpe(moments, 0.0) == pytest.approx(expected["psr_vs_0"], abs=tolerance)
    assert best_of_trials(trials, variance) == pytest.approx(expected["sr0"], abs=tolerance)
    assert deflated_sharpe(moments, trials, variance=variance) == pytest.approx(
        expected["dsr"], abs=tolerance
    )


def test_more_trials_deflate_more_and_one_deflates_nothing() -> None:
    moments = ReturnMoments(count=2_000, sharpe=0.06, skew=0.0, kurtosis=3.0)
    found = [deflated_sharpe(moments, trials) for trials in (1, 2, 10, 100, 1_000)]

    assert found == sorted(found, reverse=True)
    assert found[0] == probabilistic_sharpe(moments, 0.0)
    assert found[-1] < 0.5 < found[0]


def test_the_best_of_many_without_skill_is_not_taken_for_skill() -> None:
    """The control beside it: undeflated, the same record looks certain."""
    trials = 50
    returns = np.random.default_rng(4).normal(size=(trials, 1_000))
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    best = return_moments(returns[int(np.argmax(ratios))])
    assert best is not None

    assert deflated_sharpe(best, trials) < 0.95
    assert deflated_sharpe(best, trials, variance=float(np.var(ratios, ddof=1))) < 0.95
    assert probabilistic_sharpe(best, 0.0) > 0.95


def test_what_proves_nothing_gives_nothing() -> None:
    assert return_moments(np.array([0.1, 0.1, 0.1, 0.1, 0.1])) is None
    assert return_moments(np.array([0.1, 0.2])) is None
    wild = ReturnMoments(count=100, sharpe=1.0, skew=5.0, kurtosis=1.0)
    assert probabilistic_sharpe(wild, 0.0) == 0.0
    with pytest.raises(InvalidField, match="trial_count"):
        best_of_trials(0, 1.0)
