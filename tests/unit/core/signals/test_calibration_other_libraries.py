"""Third opinions on the smooth maps: libraries that stop early, compared as loosely as they say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.reference_values import fixture, fixtures

from detent.contracts.errors import ArtifactInvalid
from detent.core.signals.binary_maps import binary_map
from detent.core.signals.calibration import fit_calibration, fit_platt
from detent.core.signals.calibration_beta import fit_beta
from detent.core.signals.calibration_choice import fit_binary_temperature
from detent.core.signals.calibration_temperature import fit_temperature
from detent.core.signals.class_maps import Temperature

FITS = {"temperature": fit_binary_temperature, "logistic": fit_calibration, "beta": fit_beta}
KNOWN_TOPICS = {
    "platt",
    "platt_edges",
    "temperature_binary",
    "temperature_multiclass",
    "temperature_multiclass_regularised",
    "isotonic",
    "isotonic_pav",
    "beta_calibration",
    "venn_abers",
}


@pytest.mark.parametrize("name", FITS)
def test_maps_agree_with_a_float32_library(name: str) -> None:
    inputs, expected = fixture("netcal.json", f"netcal_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    found = binary_map(FITS[name](p, labels)).many(np.array(inputs["p_test"]))

    # Our Platt map smooths its targets, which moves it by less than the library's own noise.
    assert np.abs(found - expected["q_test"]).max() < 2e-3


@pytest.mark.parametrize("name", ["m3", "m6"])
def test_temperature_agrees_with_a_library_that_mixes_in_the_uniform(name: str) -> None:
    inputs, expected = fixture("calibrators.json", f"temperature_{name}_probmetrics")
    spec = fit_temperature(np.array(inputs["P_cal"]), np.array(inputs["y_cal"]))
    one = Temperature.of(spec.temperature)
    found = np.array([one.shares(row) for row in inputs["P_test"]])

    assert np.abs(found - expected["Q_test"]).max() < 5e-3


def test_the_edges_of_platt_are_refused_or_the_reference_values() -> None:
    """Of one class the library makes a constant; we say that nothing was calibrated."""
    one_class, _ = fixture("calibrators.json", "edge_platt_single_class")
    labels = np.array(one_class["y"], dtype=np.bool_)
    with pytest.raises(ArtifactInvalid):
        fit_platt(np.array(one_class["score"]), labels)

    inputs, expected = fixture("calibrators.json", "edge_platt_separable")
    fit = fit_platt(np.array(inputs["score"]), np.array(inputs["y"], dtype=np.bool_))
    assert (fit.a, fit.b) == pytest.approx((expected["A"], expected["B"]), abs=1e-7)


def test_every_topic_of_the_reference_is_compared_somewhere() -> None:
    topics = {found["topic"] for found in fixtures("calibrators.json").values()}

    assert topics <= KNOWN_TOPICS
