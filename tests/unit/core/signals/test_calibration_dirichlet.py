"""The Dirichlet map: the optimum of other programs, and a choice for heads of classes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.reference_values import fixture, fixtures

from detent.contracts.calibration import (
    CalibrationMethod,
    CalibrationSpec,
    DirichletRow,
    DirichletSpec,
    calibration_bytes,
    parse_calibration,
)
from detent.contracts.errors import ArtifactInvalid
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration_choice import choose_class_calibration
from detent.core.signals.calibration_dirichlet import (
    dirichlet_shares,
    fit_dirichlet,
    fit_dirichlet_weights,
    odir_penalty,
)
from detent.core.signals.calibration_temperature import Classes
from detent.core.signals.class_maps import Dirichlet, class_map


def drawn(
    count: int, *, stretch: float = 1.0, bias: float = 0.0, seed: int = 1
) -> tuple[Floats, Classes]:
    """Draw three classes, and what a model says that stretches the truth and is biased."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0.0, 1.0, (count, 3))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = (chance.random(count)[:, None] > truth.cumsum(axis=1)[:, :-1]).sum(axis=1)
    said = np.exp(stretch * logits + bias * np.array([0.0, 1.0, 0.0]))
    return said / said.sum(axis=1, keepdims=True), classes


@pytest.mark.parametrize("penalties", ["l0.001_mNone", "l0.01_m0.01", "l1.0_m1.0"])
@pytest.mark.parametrize("classes", ["m3", "m6"])
def test_fit_agrees_with_the_reference_values(classes: str, penalties: str) -> None:
    """The library leaves out the divisors of the paper, and has a plain penalty without mu."""
    inputs, expected = fixture("dirichlet.json", f"dirichlet_{classes}_{penalties}")
    shares, count = np.array(inputs["P_cal"]), len(inputs["P_cal"][0])
    penalty = np.full((count, count + 1), inputs["reg_lambda"])
    if inputs["reg_mu"] is not None:
        np.fill_diagonal(penalty, 0.0)
        penalty[:, -1] = inputs["reg_mu"]
    weights = fit_dirichlet_weights(shares, np.array(inputs["y_cal"]), penalty)
    found = dirichlet_shares(np.array(inputs["P_test"]), weights)

    assert np.abs(found - expected["Q_test"]).max() < 1e-8
    assert np.abs(found - expected["Q_test_scipy"]).max() < 1e-6


def test_every_fixture_of_the_reference_is_compared() -> None:
    assert len(fixtures("dirichlet.json")) == 6


def test_the_penalty_is_that_of_the_paper() -> None:
    penalty = odir_penalty(3, 0.6)

    assert penalty[0].tolist() == pytest.approx([0.0, 0.1, 0.1, 0.2], abs=1e-15)


def test_a_penalty_without_end_leaves_single_classes_and_no_constant() -> None:
    """A plain penalty would draw the map to the uniform distribution."""
    shares, classes = drawn(2_000)
    weights = fit_dirichlet_weights(shares, classes, odir_penalty(3, 1e6))

    assert np.abs(weights - np.diag(np.diag(weights)) @ np.eye(3, 4)).max() < 1e-3
    assert np.diag(weights).min() > 0.8
    plain = fit_dirichlet_weights(shares, classes, np.full((3, 4), 1e6))
    assert dirichlet_shares(shares, plain) == pytest.approx(np.full(shares.shape, 1 / 3), abs=1e-3)


def test_a_row_alone_is_mapped_as_in_an_array() -> None:
    shares, classes = drawn(600, stretch=1.5, bias=0.5)
    spec = fit_dirichlet(shares, classes)
    weights = np.array([[*map(float, row.weights), float(row.offset)] for row in spec.rows])
    one = Dirichlet.of(spec)

    found = np.array([one.shares(row) for row in shares.tolist()])
    assert found == pytest.approx(dirichlet_shares(shares, weights), abs=1e-14)


@pytest.mark.parametrize(
    ("stretch", "bias", "method"),
    [
        (1.0, 0.0, CalibrationMethod.IDENTITY),
        (2.0, 0.0, CalibrationMethod.TEMPERATURE),
        (1.0, 1.0, CalibrationMethod.DIRICHLET),
    ],
)
def test_a_head_of_classes_gets_the_map_that_mends_it(
    stretch: float, bias: float, method: CalibrationMethod
) -> None:
    found = choose_class_calibration(*drawn(1_500, stretch=stretch, bias=bias))

    assert found.spec.method is method
    assert [score.method for score in found.scores] == ["identity", "temperature", "dirichlet"]
    assert parse_calibration(calibration_bytes(found.spec)) == found.spec
    assert class_map(found.spec, class_count=3).shares([0.2, 0.3, 0.5]) is not None


def test_a_map_of_other_classes_and_a_bare_identity_are_refused() -> None:
    row = DirichletRow(weights=(Decimal(1), Decimal(0)), offset=Decimal(0))
    bare = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)

    for spec in (DirichletSpec(rows=(row, row)), bare):
        with pytest.raises(ArtifactInvalid):
            class_map(spec, class_count=3)


@given(
    st.lists(st.decimals("-20", "20", places=4), min_size=12, max_size=12),
    st.lists(st.floats(0.0, 1.0, width=32), min_size=3, max_size=3),
)
def test_any_map_of_any_row_is_a_distribution(values: list[Decimal], row: list[float]) -> None:
    spec = DirichletSpec(
        rows=tuple(
            DirichletRow(weights=tuple(values[start : start + 3]), offset=values[start + 3])
            for start in (0, 4, 8)
        )
    )
    shares = Dirichlet.of(spec).shares(row)

    assert all(0.0 <= share <= 1.0 for share in shares)
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("count", "constant"), [(0, False), (3, False), (300, True)])
def test_rows_that_calibrate_nothing_are_refused(count: int, *, constant: bool) -> None:
    shares, classes = drawn(count)
    with pytest.raises(ArtifactInvalid):
        fit_dirichlet(shares, np.zeros(count, dtype=np.int64) if constant else classes)
