"""The calibrator: the optimum, to the digit, and nothing where there is none."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from detent.contracts.calibration import CalibrationMethod, CalibrationSpec
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal
from detent.core.signals.binary_maps import Floats, LogisticMap, logit
from detent.core.signals.calibration import Calibrator, Labels, fit_calibration, fit_platt

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "calibrators.json"
SPEC = CalibrationSpec(method=CalibrationMethod.PLATT, a=Decimal("-0.5"), b=Decimal("0.0625"))


def rows(count: int, *, slope: float, offset: float, seed: int) -> tuple[Floats, Labels]:
    """Draw scores, and labels from a known map of them."""
    chance = np.random.default_rng(seed)
    scores = chance.normal(0.0, 1.5, count)
    return scores, chance.random(count) < 1.0 / (1.0 + np.exp(-(slope * scores + offset)))


def smoothed_optimum(scores: Floats, labels: Labels) -> tuple[float, float]:
    """Find the same optimum with another program: a weighted, unpenalised regression.

    A fractional target t is t of a row that went up and 1 - t of one that did not.
    """
    up, down = labels.sum(), (~labels).sum()
    targets = np.where(labels, (up + 1) / (up + 2), 1 / (down + 2))
    model = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    model.fit(
        np.concatenate([scores, scores])[:, None],
        np.concatenate([np.ones(len(scores)), np.zeros(len(scores))]),
        sample_weight=np.concatenate([targets, 1.0 - targets]),
    )
    return -float(model.coef_[0, 0]), -float(model.intercept_[0])


@pytest.mark.parametrize(
    ("slope", "offset", "count"), [(1.0, 0.0, 500), (0.2, 0.3, 3_000), (3.0, -2.0, 400)]
)
def test_fit_finds_the_optimum_that_another_program_finds(
    slope: float, offset: float, count: int
) -> None:
    scores, labels = rows(count, slope=slope, offset=offset, seed=count)
    fit = fit_platt(scores, labels)
    a, b = smoothed_optimum(scores, labels)

    assert fit.a == pytest.approx(a, abs=1e-6)
    assert fit.b == pytest.approx(b, abs=1e-6)


def test_fit_of_separable_rows_is_finite() -> None:
    """Smoothed targets are what keeps a perfect score from an infinite slope."""
    scores = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    fit = fit_platt(scores, scores > 0.0)

    assert fit.a == pytest.approx(-0.6214019550085679, abs=1e-9)
    assert fit.b == pytest.approx(0.0, abs=1e-9)


def test_fit_of_scores_of_any_size_converges() -> None:
    scores, labels = rows(400, slope=1.0, offset=0.2, seed=1)

    for scale in (1e-6, 1e-3, 1.0, 1e3, 1e6):
        fit = fit_platt(scores * scale, labels)
        assert fit.a * scale == pytest.approx(fit_platt(scores, labels).a, rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        pytest.param([], [], id="no rows"),
        pytest.param([0.1, 0.2], [True, True], id="all up"),
        pytest.param([0.1, 0.2], [False, False], id="all down"),
        pytest.param([0.1, math.nan], [True, False], id="nan"),
        pytest.param([0.1, math.inf], [True, False], id="infinite"),
        pytest.param([0.1, 0.2, 0.3], [True, False], id="lengths"),
        pytest.param([0.1, 0.1], [True, False], id="one score"),
    ],
)
def test_fit_of_rows_that_calibrate_nothing_is_refused(
    scores: list[float], labels: list[bool]
) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        fit_platt(np.array(scores), np.array(labels, dtype=np.bool_))

    assert caught.value.gate_reason is Reason.CALIBRATION_FAILED


@pytest.mark.parametrize("slope", [-1.0, 0.0])
def test_calibration_of_an_inverted_or_empty_score_is_refused(slope: float) -> None:
    """A model that is right when inverted is a model that is wrong."""
    scores, _ = rows(600, slope=1.0, offset=0.0, seed=4)
    half = np.arange(600) % 2 == 0
    labels = (scores < 0.0) if slope < 0.0 else half
    scores = scores if slope < 0.0 else np.repeat(scores[:300], 2)

    with pytest.raises(ArtifactInvalid, match="slope") as caught:
        fit_calibration(1.0 / (1.0 + np.exp(-scores)), labels)

    assert caught.value.gate_reason is Reason.CALIBRATION_FAILED


def test_calibration_is_fixed_to_the_digits_that_are_hashed() -> None:
    """What is stored is what is used: no digit beyond the text takes part."""
    scores, labels = rows(800, slope=0.7, offset=0.1, seed=9)
    spec = fit_calibration(1.0 / (1.0 + np.exp(-scores)), labels)

    assert spec.method is CalibrationMethod.PLATT
    assert spec.a is not None
    assert spec.a.as_tuple().exponent == -12
    assert spec.b is not None
    expected = LogisticMap(a=float(spec.a), b=float(spec.b))
    assert Calibrator.of(spec).map == expected


@pytest.mark.proves("R167")
@pytest.mark.parametrize(
    ("p_raw", "expected_bps"),
    [
        (0.0, (0, 2)),
        (2.0**-25, (0, 2)),
        (0.1, (1000, 2385)),
        (0.25, (2500, 3516)),
        (0.5, (5000, 4844)),
        (0.53, (5300, 4994)),
        (0.75, (7500, 6194)),
        (0.9, (9000, 7381)),
        (1.0, (10_000, 9998)),
    ],
)
def test_calibration_gives_these_integers(p_raw: float, expected_bps: tuple[int, int]) -> None:
    raw_bps, calibrated_bps = expected_bps
    found = Calibrator.of(SPEC).direction(p_raw)

    assert found == DirectionSignal(p_hat_raw_bps=raw_bps, p_hat_bps=calibrated_bps)


@pytest.mark.parametrize(
    "p_raw", [-1e-9, 1.0000001, -1.0, 2.0, math.nan, math.inf, -math.inf, 1e308]
)
def test_calibration_of_what_is_no_probability_is_a_reason(p_raw: float) -> None:
    assert Calibrator.of(SPEC).direction(p_raw) is Reason.OUTPUT_INVALID


@given(p_raw=st.floats(allow_nan=True, allow_infinity=True))
def test_calibration_answers_a_signal_or_a_reason_for_every_float(p_raw: float) -> None:
    found = Calibrator.of(SPEC).direction(p_raw)

    assert isinstance(found, DirectionSignal) == (0.0 <= p_raw <= 1.0)


@given(
    low=st.floats(0.0, 1.0),
    high=st.floats(0.0, 1.0),
    a=st.decimals("-1000000", "-0.000001", places=6),
    b=st.decimals("-1000000", "1000000", places=6),
)
def test_calibration_never_inverts_two_probabilities(
    low: float, high: float, a: Decimal, b: Decimal
) -> None:
    calibrator = Calibrator.of(CalibrationSpec(method=CalibrationMethod.PLATT, a=a, b=b))
    low, high = min(low, high), max(low, high)

    assert 0.0 <= calibrator.probability(low) <= calibrator.probability(high) <= 1.0


def test_calibration_that_changes_nothing_is_not_served() -> None:
    identity = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)

    with pytest.raises(ArtifactInvalid) as caught:
        Calibrator.of(identity)

    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


def test_logit_is_finite_and_odd() -> None:
    assert logit(0.5) == pytest.approx(0.0, abs=1e-15)
    assert logit(0.25) == pytest.approx(-math.log(3.0), abs=1e-15)
    for p in (0.0, 1e-9, 0.1, 0.4):
        assert math.isfinite(logit(p))
        assert logit(1.0 - p) == pytest.approx(-logit(p), rel=1e-9)


def reference_fixtures() -> dict[str, dict[str, Any]]:
    """Read the fixtures that other libraries computed, where a checkout has them beside it."""
    if not REFERENCE.exists():
        pytest.skip("the reference values are not beside this checkout")
    text = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return {fixture["id"]: fixture for fixture in text["fixtures"]}


@pytest.mark.parametrize("name", ["platt_real_score", "platt_real_logit", "platt_trading_logit"])
def test_fit_agrees_with_the_reference_values(name: str) -> None:
    fixture = reference_fixtures()[name]
    inputs, expected = fixture["inputs"], fixture["expected"]
    labels = np.array(inputs["y"], dtype=np.bool_)
    fit = fit_platt(np.array(inputs["score"]), labels)
    p = 1.0 / (1.0 + np.exp(fit.a * np.array(inputs["score_test"]) + fit.b))

    assert fit.a == pytest.approx(expected["A"], abs=1e-7)
    assert fit.b == pytest.approx(expected["B"], abs=1e-7)
    assert p == pytest.approx(np.array(expected["p_test"]), abs=1e-7)
