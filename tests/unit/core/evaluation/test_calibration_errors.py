"""Errors of calibration: those of independent libraries, each under its own definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.reference_values import fixture, fixtures

from detent.contracts.errors import InvalidField
from detent.core.evaluation.binning import Binning, bin_edges, bin_of
from detent.core.evaluation.calibration_errors import (
    ErrorOf,
    average_error,
    classwise_bins,
    classwise_error,
    debiased_squared_error,
    error_name,
    maximum_error,
    squared_error,
    top_label,
)
from detent.core.evaluation.reliability import (
    ReliabilityBin,
    calibration_error,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.smooth_error import smooth_error

SETS = [f"{name}_{bins}" for name in ("real", "trading") for bins in (10, 15)]


def bins_of(inputs: Any, name: str, binning: Binning) -> tuple[ReliabilityBin, ...]:
    count = 10 if "_10" in name else 15
    labels = np.array(inputs["y"], dtype=np.bool_)
    return reliability_bins(np.array(inputs["p"]), labels, bin_count=count, binning=binning)


@pytest.mark.proves("R169")
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("strategy", "binning"), [("uniform", Binning.WIDTH), ("quantile", Binning.MASS)]
)
def test_curves_agree_with_the_reference_values(name: str, strategy: str, binning: Binning) -> None:
    inputs, expected = fixture("metrics.json", f"reliability_{name.replace('_', f'_{strategy}_')}")
    bins = bins_of(inputs, name, binning)

    assert [bin_.count for bin_ in bins] == expected["count"]
    assert [bin_.up_share for bin_ in bins] == pytest.approx(expected["frac_pos"], abs=1e-9)
    assert [bin_.p_mean for bin_ in bins] == pytest.approx(expected["mean_pred"], abs=1e-9)
    assert calibration_error(bins) == pytest.approx(expected["ece"], abs=1e-9)
    assert maximum_error(bins, count_min=1) == pytest.approx(expected["mce"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_errors_agree_with_three_libraries(name: str) -> None:
    wide, expected = fixture("metrics.json", f"ece_l1l2max_{name}_torchmetrics")
    bins = bins_of(wide, name, Binning.WIDTH)
    assert calibration_error(bins) == pytest.approx(expected["l1"], abs=1e-5)
    assert squared_error(bins) == pytest.approx(expected["l2"], abs=1e-5)
    assert maximum_error(bins, count_min=1) == pytest.approx(expected["max"], abs=1e-5)

    inputs, expected = fixture("metrics.json", f"ece_debiased_l2_{name}_kumar")
    bins = bins_of(inputs, name, Binning.ROWS)
    assert debiased_squared_error(bins) == pytest.approx(expected["debiased_l2"], abs=1e-9)
    assert squared_error(bins) == pytest.approx(expected["plugin_l2"], abs=1e-9)
    assert calibration_error(bins) == pytest.approx(expected["plugin_l1_equal_mass"], abs=1e-9)

    inputs, expected = fixture("metrics.json", f"ece_pos_{name}_pycalib")
    bins = bins_of(inputs, name, Binning.WIDTH)
    assert calibration_error(bins) == pytest.approx(expected["ece"], abs=1e-9)
    assert maximum_error(bins, count_min=1) == pytest.approx(expected["mce"], abs=1e-9)


@pytest.mark.parametrize("count", [10, 15])
def test_errors_of_classes_agree_with_the_reference_values(count: int) -> None:
    inputs, expected = fixture("metrics.json", f"multiclass_ece_6_{count}")
    shares, classes = np.array(inputs["P"]), np.array(inputs["y"])
    bins = reliability_bins(*top_label(shares, classes), bin_count=count)
    of_each = classwise_bins(shares, classes, bin_count=count)

    assert calibration_error(bins) == pytest.approx(expected["top_label_pycalib"], abs=1e-9)
    assert calibration_error(bins) == pytest.approx(expected["top_label_kumar"], abs=1e-9)
    assert calibration_error(bins) == pytest.approx(expected["top_label_torchmetrics_l1"], abs=1e-5)
    assert classwise_error(of_each) == pytest.approx(expected["classwise_mean"], abs=1e-9)
    largest = max(maximum_error(one, count_min=1) for one in of_each)
    assert largest == pytest.approx(expected["classwise_max"], abs=1e-9)


@pytest.mark.parametrize("name", ["10", "15", "m6_10", "m6_15"])
def test_errors_agree_with_a_fourth_library(name: str) -> None:
    inputs, expected = fixture("netcal.json", f"netcal_metrics_{name}")
    if "P" in inputs:
        p, labels = top_label(np.array(inputs["P"]), np.array(inputs["y"]))
    else:
        p, labels = np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_)
    bins = reliability_bins(p, labels, bin_count=int(name[-2:]))

    assert calibration_error(bins) == pytest.approx(expected["ece"], abs=1e-6)
    assert maximum_error(bins, count_min=1) == pytest.approx(expected["mce"], abs=1e-6)
    assert average_error(bins) == pytest.approx(expected["ace"], abs=1e-6)


def test_a_map_of_bin_means_agrees_with_a_fourth_library() -> None:
    """Histogram binning is no method of ours; it checks the bins from another side."""
    inputs, expected = fixture("netcal.json", "netcal_histogram_binning")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    edges = bin_edges(p, 10, Binning.WIDTH)
    means = {round(b.low * 10): b.up_share for b in reliability_bins(p, labels, bin_count=10)}
    # The library maps what falls into a bin without rows to the middle of the bin.
    found = [
        means.get(int(bin_), (bin_ + 0.5) / 10)
        for bin_ in bin_of(np.array(inputs["p_test"]), edges)
    ]

    assert found == pytest.approx(expected["q_test"], abs=1e-9)


def test_edges_belong_to_the_bin_below() -> None:
    """The sum 0.1 + 0.2 lies above 0.3, as the library has it too."""
    inputs, expected = fixture("metrics.json", "edge_bin_boundaries")
    bins = bins_of(inputs, "edge_10", Binning.WIDTH)

    assert [b.up_share for b in bins] == pytest.approx(expected["right_closed_frac_pos"], abs=1e-9)
    assert [b.p_mean for b in bins] == pytest.approx(expected["right_closed_mean_pred"], abs=1e-9)


def test_a_maximum_needs_a_bin_of_enough_rows() -> None:
    """A bin of one row is off by chance alone, and would be the maximum nearly always."""
    p, labels = np.array([0.9, *[0.5] * 40]), np.array([False, *[True, False] * 20])
    bins = reliability_bins(p, labels)

    assert maximum_error(bins, count_min=1) == pytest.approx(0.9)
    assert maximum_error(bins) == pytest.approx(0.0)
    with pytest.raises(InvalidField):
        maximum_error(bins, count_min=41)


def test_names_state_their_definitions() -> None:
    assert error_name("ece", ErrorOf.TOP_LABEL) == "ece_top_label_width15"
    name = error_name("mce_min30", ErrorOf.CLASSWISE, bin_count=10, binning=Binning.MASS)
    assert name == "mce_min30_classwise_mass10"


def test_the_smooth_error_agrees_with_the_reference_value() -> None:
    """The library rounds to a coarse grid of widths, so it agrees to some millionths."""
    inputs, expected = fixture("metrics.json", "smece_trading")
    found = smooth_error(np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_))

    assert found == pytest.approx(expected["smECE"], abs=5e-6)


def test_the_smooth_error_is_that_of_its_definition() -> None:
    """By brute force: every row's own reflected Gaussian, at the width that was found."""
    chance = np.random.default_rng(3)
    p = chance.random(150) ** 3
    labels = chance.random(150) < np.sqrt(p)
    width = smooth_error(p, labels)
    places = (np.arange(4_000) + 0.5) / 4_000
    images = np.concatenate([p + 2 * k for k in (-1, 0, 1)] + [-p + 2 * k for k in (0, 1, 2)])
    weights = np.tile((labels - p) / len(p), 6)
    away = (places[:, None] - images[None, :]) / width
    smoothed = (np.exp(-0.5 * away**2) * weights).sum(axis=1) / (width * np.sqrt(2 * np.pi))

    assert np.abs(smoothed).mean() == pytest.approx(width, abs=1e-5)


def test_the_smooth_error_of_one_sided_residuals_is_their_mean() -> None:
    """Nothing cancels at any width: here the library, which loses mass at 0 and 1, is off."""
    inputs, expected = fixture("metrics.json", "smece_real")
    p, labels = np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_)

    assert smooth_error(p, labels) == pytest.approx(abs(np.mean(p - labels)), abs=1e-9)
    assert smooth_error(p, labels) < expected["smECE"] - 0.02


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60),
    st.sampled_from(Binning),
)
def test_any_rows_fall_into_bins_whole(rows: list[tuple[float, bool]], binning: Binning) -> None:
    p, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    bins = reliability_bins(p, labels, binning=binning)

    assert sum(bin_.count for bin_ in bins) == len(rows)
    assert sum(bin_.count * bin_.up_share for bin_ in bins) == pytest.approx(labels.sum())
    assert 0.0 <= average_error(bins) <= 1.0
    assert debiased_squared_error(bins) <= squared_error(bins) + 1e-12
    assert calibration_error(bins) <= squared_error(bins) + 1e-12
    assert 0.0 <= smooth_error(p, labels) <= 1.0


@pytest.mark.parametrize("binning", Binning)
def test_the_band_of_a_perfect_model_holds_its_error(binning: Binning) -> None:
    inside = 0
    for seed in range(30):
        chance = np.random.default_rng(seed)
        p = np.clip(0.5 + 0.12 * chance.normal(size=600), 0.001, 0.999)
        error = calibration_error(reliability_bins(p, chance.random(600) < p, binning=binning))
        inside += error <= null_band(p, chance.random((200, 600)), binning=binning).ece_high

    assert inside >= 25


def test_every_metric_of_the_reference_is_compared_somewhere() -> None:
    """By the beginnings of the names: what is new there must be looked at here."""
    known = (
        "brier_",
        "logloss_",
        "reliability_",
        "ece_",
        "smece_",
        "corp_",
        "murphy_",
        "multiclass_",
        "edge_",
    )

    assert all(name.startswith(known) for name in fixtures("metrics.json"))
