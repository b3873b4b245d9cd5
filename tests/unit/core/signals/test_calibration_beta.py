"""The beta map: the optimum of other programs, never inverted, nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.reference_values import fixture

from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import BetaMap, Floats, binary_map, clipped
from detent.core.signals.calibration_beta import fit_beta, fit_beta_weights, fit_logistic

# How far the other library stays from the optimum that a third one and we agree on.
STOPPED_EARLY = {"real": 1e-4, "trading": 1e-3}


def loss(weights: tuple[float, ...], p: Floats, labels: Floats) -> float:
    a, b, c = weights
    score = a * np.log(p) - b * np.log1p(-p) + c
    return float(np.mean(np.logaddexp(0.0, -np.where(labels, score, -score))))


@pytest.mark.parametrize("name", ["real", "trading"])
def test_fit_agrees_with_the_reference_values(name: str) -> None:
    """The weights are those of the converged optimum, to the digits that are given.

    The other library stops early, so what it maps to is held to the digit only where it did
    not, and what it fitted is held to be no better.
    """
    inputs, expected = fixture("calibrators.json", f"beta_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    found = fit_beta_weights(np.log(p), -np.log1p(-p), labels)
    optimum = expected["glm_unconstrained"]
    stopped_a, stopped_b, middle = expected["abm"]["map_a_b_m"]
    stopped_c = stopped_b * np.log1p(-middle) - stopped_a * np.log(middle)
    mapped = BetaMap(a=found[0], b=found[1], c=found[2]).many(np.array(inputs["grid"]))

    assert found == pytest.approx([optimum[name] for name in "abc"], abs=1e-9)
    assert loss(found, p, labels) == pytest.approx(optimum["nll"], abs=1e-9)
    assert loss(found, p, labels) <= loss((stopped_a, stopped_b, stopped_c), p, labels)
    assert mapped == pytest.approx(expected["abm"]["q_grid"], abs=STOPPED_EARLY[name])


@pytest.mark.parametrize("name", ["real", "trading"])
def test_the_two_poorer_forms_agree_with_the_reference_values(name: str) -> None:
    """One weight for both sides, and no offset: the same solver on other columns."""
    inputs, expected = fixture("calibrators.json", f"beta_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    grid = np.array(inputs["grid"])
    slope, offset = fit_logistic(
        np.stack([np.log(p) - np.log1p(-p), np.ones(len(p))], axis=1), labels
    )
    one_weight = BetaMap(a=slope, b=slope, c=offset).many(grid)
    # Without an offset the map crosses one half where the input does.
    halves = np.stack([np.log(2.0 * p), -np.log(2.0 * (1.0 - p))], axis=1)
    a, b = fit_logistic(halves, labels)
    no_offset = BetaMap(a=a, b=b, c=(a - b) * np.log(2.0)).many(grid)

    assert one_weight == pytest.approx(expected["am"]["q_grid"], abs=1e-4)
    assert no_offset == pytest.approx(expected["ab"]["q_grid"], abs=STOPPED_EARLY[name])


@pytest.mark.parametrize("name", ["real", "trading"])
def test_a_slope_alone_is_the_reference_temperature(name: str) -> None:
    inputs, expected = fixture("calibrators.json", f"temperature_binary_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    (slope,) = fit_logistic((np.log(p) - np.log1p(-p))[:, None], labels)

    assert 1.0 / slope == pytest.approx(expected["T"], abs=1e-6)


def test_a_weight_below_zero_is_left_out_and_the_other_fitted_again() -> None:
    """What a curve of the wrong shape would invert in part is never written."""
    chance = np.random.default_rng(3)
    p = clipped(chance.uniform(0.02, 0.98, 4_000))
    labels = chance.random(4_000) < 1.0 / (
        1.0 + np.exp(-(1.5 * np.log(p) + 0.4 * np.log1p(-p) + 1))
    )
    inputs = np.stack([np.log(p), -np.log1p(-p), np.ones(len(p))], axis=1)
    spec = fit_beta(p, labels)

    assert fit_logistic(inputs, labels)[1] < 0.0
    assert (float(spec.a) > 0.0, spec.b) == (True, 0)
    a, c = fit_logistic(inputs[:, [0, 2]], labels)
    assert (float(spec.a), float(spec.c)) == pytest.approx((a, c), abs=1e-9)


def test_a_fit_of_what_is_calibrated_is_near_the_identity() -> None:
    chance = np.random.default_rng(4)
    p = chance.uniform(0.05, 0.95, 40_000)
    mapped = binary_map(fit_beta(p, chance.random(40_000) < p)).many(p)

    assert np.abs(mapped - p).max() < 0.02


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(np.ones(50, dtype=np.bool_), id="one class"),
        pytest.param(np.arange(50) > 24, id="separable"),
        pytest.param(np.arange(50) < 25, id="inverted"),
    ],
)
def test_rows_without_an_optimum_are_refused(labels: Floats) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        fit_beta(np.linspace(0.1, 0.9, 50), np.asarray(labels, dtype=np.bool_))

    assert caught.value.gate_reason is Reason.CALIBRATION_FAILED


def test_a_fit_is_the_same_again() -> None:
    chance = np.random.default_rng(8)
    p = chance.uniform(0.3, 0.7, 999)
    labels = chance.random(999) < p

    assert fit_beta(p.copy(), labels.copy()) == fit_beta(p, labels)
