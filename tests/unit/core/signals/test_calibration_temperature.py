"""The temperature: the optimum that other programs find, and nothing where there is none."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.signals.test_quantise import softmax

from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration_temperature import Classes, fit_temperature
from detent.core.signals.class_maps import Temperature

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "calibrators.json"


def references(topic: str) -> list[Any]:
    """Read the reference fits of a topic."""
    if not REFERENCE.exists():
        return []
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    return [fixture for fixture in fixtures if fixture["topic"] == topic]


def drawn(temperature: float, *, count: int = 4_000, seed: int = 5) -> tuple[Floats, Classes]:
    """Draw distributions that are too sharp by a temperature, and what came true."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0.0, 1.5, (count, 3))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = np.array([chance.choice(3, p=row) for row in truth], dtype=np.int64)
    said = np.exp(temperature * logits)
    return said / said.sum(axis=1, keepdims=True), classes


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared references are not here")
@pytest.mark.parametrize(
    "fixture", references("temperature_multiclass"), ids=lambda fixture: fixture["id"]
)
def test_fit_finds_the_reference_temperature(fixture: Any) -> None:
    given_rows = fixture["inputs"]
    spec = fit_temperature(np.array(given_rows["P_cal"]), np.array(given_rows["y_cal"]))
    temperature = Temperature.of(spec.temperature)

    assert float(spec.temperature) == pytest.approx(fixture["expected"]["T"], abs=1e-5)
    found = [temperature.shares(row) for row in given_rows["P_test"]]
    assert np.allclose(found, fixture["expected"]["Q_test"], atol=1e-6, rtol=0)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared references are not here")
@pytest.mark.parametrize(
    "fixture", references("temperature_binary"), ids=lambda fixture: fixture["id"]
)
def test_fit_of_two_classes_is_the_slope_of_a_logistic_regression(fixture: Any) -> None:
    p = np.array(fixture["inputs"]["p_cal"])
    spec = fit_temperature(np.stack([1.0 - p, p], axis=1), np.array(fixture["inputs"]["y_cal"]))

    assert float(spec.temperature) == pytest.approx(fixture["expected"]["T"], rel=1e-4)


@pytest.mark.proves("R271")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_recovers_what_was_drawn_and_is_the_same_every_time(temperature: float) -> None:
    probabilities, classes = drawn(temperature)
    first, second = (fit_temperature(probabilities.copy(), classes) for _ in range(2))

    assert first == second
    assert first.calibration_version == second.calibration_version
    assert float(first.temperature) == pytest.approx(temperature, rel=0.1)


@given(
    logits=st.lists(st.floats(-20.0, 20.0), min_size=2, max_size=8),
    temperature=st.decimals("0.05", "20", places=3),
)
def test_the_most_probable_class_stays_the_most_probable(
    logits: list[float], temperature: Decimal
) -> None:
    shares = softmax(logits)
    found = Temperature.of(temperature).shares(shares)

    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert found[shares.index(max(shares))] == max(found)


SOUND, CAME_TRUE = drawn(1.0, count=50)


@pytest.mark.parametrize(
    ("probabilities", "classes"),
    [
        pytest.param(SOUND, np.zeros(50, dtype=np.int64), id="one-class"),
        pytest.param(SOUND[:0], CAME_TRUE[:0], id="no-rows"),
        pytest.param(SOUND, CAME_TRUE[:-1], id="lengths"),
        pytest.param(SOUND, CAME_TRUE + 1, id="class-out-of-range"),
        pytest.param(SOUND * np.nan, CAME_TRUE, id="nan"),
        pytest.param(SOUND * 0.0, CAME_TRUE, id="zeros"),
        pytest.param(SOUND * 2.0, CAME_TRUE, id="above-one"),
        pytest.param(np.full((50, 3), 1 / 3), CAME_TRUE, id="no-information"),
        pytest.param(np.eye(3)[CAME_TRUE] * 0.8 + 0.05, CAME_TRUE, id="separated"),
        pytest.param(np.eye(3)[(CAME_TRUE + 1) % 3] * 0.8 + 0.05, CAME_TRUE, id="always-wrong"),
    ],
)
def test_rows_that_calibrate_nothing_are_refused(probabilities: Floats, classes: Classes) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        fit_temperature(probabilities, classes)

    assert caught.value.gate_reason is Reason.CALIBRATION_FAILED
