"""Reliability: the same bins as an independent library, and a band for what is noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from detent.contracts.errors import InvalidField
from detent.core.evaluation.reliability import (
    NULL_SHARE,
    calibration_error,
    ece_name,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.scores import Floats, Labels

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "metrics.json"


def drawn(count: int, *, seed: int, stretch: float = 1.0) -> tuple[Floats, Labels]:
    """Draw probabilities around one half, and labels of a model that stretches them."""
    chance = np.random.default_rng(seed)
    p = np.clip(0.5 + 0.12 * chance.normal(size=count), 0.001, 0.999)
    return p, chance.random(count) < 0.5 + (p - 0.5) / stretch


@pytest.mark.proves("R169")
@pytest.mark.parametrize("bin_count", [10, 15])
@pytest.mark.parametrize("seed", range(4))
def test_bins_agree_with_an_independent_implementation(seed: int, bin_count: int) -> None:
    p, labels = drawn(500, seed=seed)
    up_shares, p_means = calibration_curve(labels, p, n_bins=bin_count, strategy="uniform")
    bins = reliability_bins(p, labels, bin_count=bin_count)

    assert [bin_.up_share for bin_ in bins] == pytest.approx(up_shares, abs=1e-12)
    assert [bin_.p_mean for bin_ in bins] == pytest.approx(p_means, abs=1e-12)
    assert sum(bin_.count for bin_ in bins) == len(p)


def test_bins_are_closed_on_the_right_and_hold_both_ends() -> None:
    bins = reliability_bins(
        np.array([0.0, 0.1, 0.1 + 1e-12, 1.0]), np.array([False, True, True, True]), bin_count=10
    )

    assert [(bin_.count, round(bin_.low, 1)) for bin_ in bins] == [(2, 0.0), (1, 0.1), (1, 0.9)]


def test_error_of_one_class_is_the_mean_probability() -> None:
    p = np.array([0.02, 0.1, 0.35, 0.6, 0.9])
    bins = reliability_bins(p, np.zeros(5, dtype=np.bool_))

    assert calibration_error(bins) == pytest.approx(0.394, abs=1e-12)


def test_error_carries_its_definition_in_its_name() -> None:
    assert ece_name() == "ece_positive_width15"
    assert ece_name(10) == "ece_positive_width10"


@pytest.mark.parametrize(("count", "mean", "high"), [(250, 0.043, 0.080), (1_000, 0.021, 0.039)])
def test_band_of_a_perfect_model_is_known(count: int, mean: float, high: float) -> None:
    """Perfect probabilities of spread .05 in ten bins: simulated elsewhere beforehand."""
    chance = np.random.default_rng(count)
    p = np.clip(0.5 + 0.05 * chance.normal(size=count), 0.0, 1.0)
    band = null_band(p, chance.random((2_000, count)), bin_count=10)

    assert band.ece_mean == pytest.approx(mean, abs=0.004)
    assert band.ece_high == pytest.approx(high, abs=0.008)


def test_band_holds_a_perfect_model_and_not_an_overconfident_one() -> None:
    inside = 0
    for seed in range(40):
        p, labels = drawn(800, seed=seed)
        draws = np.random.default_rng(seed + 1_000).random((300, 800))
        inside += calibration_error(reliability_bins(p, labels)) <= null_band(p, draws).ece_high
    p, labels = drawn(2_000, seed=1, stretch=3.0)
    draws = np.random.default_rng(1).random((300, 2_000))

    assert inside >= 40 * NULL_SHARE - 5
    assert calibration_error(reliability_bins(p, labels)) > null_band(p, draws).ece_high


def test_band_follows_from_its_draws_alone() -> None:
    p, _ = drawn(300, seed=2)
    draws = np.random.default_rng(5).random((200, 300))
    band = null_band(p, draws)

    assert null_band(p, draws.copy()) == band
    assert null_band(p, 1.0 - draws) != band
    for bin_, low, high in zip(
        reliability_bins(p, draws[0] < p), band.up_low, band.up_high, strict=True
    ):
        assert 0.0 <= low <= bin_.p_mean + 1.0 / bin_.count
        assert bin_.p_mean - 1.0 / bin_.count <= high <= 1.0


@pytest.mark.parametrize("shape", [(0, 3), (5, 2), (3,)])
def test_band_of_draws_that_do_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidField):
        null_band(np.array([0.2, 0.5, 0.8]), np.zeros(shape))


def test_bins_and_error_agree_with_the_reference_values() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference values are not beside this checkout")
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    compared = 0
    for fixture in fixtures:
        wanted = fixture["id"].startswith("reliability_") and "_uniform_" in fixture["id"]
        if not wanted and not fixture["id"].endswith("_pycalib"):
            continue
        bin_count = next(size for size in (10, 15) if f"_{size}" in fixture["id"])
        labels = np.array(fixture["inputs"]["y"], dtype=np.bool_)
        bins = reliability_bins(np.array(fixture["inputs"]["p"]), labels, bin_count=bin_count)
        assert calibration_error(bins) == pytest.approx(fixture["expected"]["ece"], abs=1e-9)
        if wanted:
            up_shares = [bin_.up_share for bin_ in bins]
            assert up_shares == pytest.approx(fixture["expected"]["frac_pos"], abs=1e-9)
            assert [bin_.count for bin_ in bins] == fixture["expected"]["count"]
        compared += 1

    assert compared == 8
