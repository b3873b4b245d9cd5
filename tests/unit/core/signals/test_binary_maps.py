"""Maps of one probability: alone as in a batch, inside [0, 1], and none of two inverted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.calibration import (
    BetaSpec,
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    DirichletRow,
    DirichletSpec,
    HeldOutChoice,
    IsotonicSpec,
    MethodScore,
    TemperatureSpec,
    VennAbersSpec,
    calibration_bytes,
    parse_calibration,
)
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.reasons import Reason
from detent.core.signals import columns
from detent.core.signals.binary_maps import IdentityMap, LineMap, StepMap, binary_map
from detent.core.signals.calibration import Calibrator

WON = HeldOutChoice(
    fold_count=5,
    row_count=500,
    tried=(
        MethodScore(method=CalibrationMethod.IDENTITY, log_loss_ppm=690_000, brier_ppm=249_000),
        MethodScore(method=CalibrationMethod.PLATT, log_loss_ppm=690_001, brier_ppm=248_000),
    ),
)
weights = st.decimals("0.001", "50", places=6)
offsets = st.decimals("-50", "50", places=6)
places = st.lists(st.decimals("0", "1", places=9), min_size=2, max_size=20, unique=True)


def ascending(count: int, shares: list[Decimal]) -> tuple[Decimal, ...]:
    """Give as many values that never descend."""
    return tuple(sorted((shares * count)[:count]))


@st.composite
def specs(draw: Any) -> Calibration:
    """Draw a calibration of one probability, of any method."""
    inside = st.lists(st.decimals("0.0001", "0.9999", places=6), min_size=2, max_size=40)
    match draw(st.sampled_from(CalibrationMethod)):
        case CalibrationMethod.IDENTITY:
            identity = CalibrationMethod.IDENTITY
            return CalibrationSpec(method=identity, a=None, b=None, choice=WON)
        case CalibrationMethod.TEMPERATURE:
            return TemperatureSpec(temperature=draw(st.decimals("0.05", "20", places=6)))
        case CalibrationMethod.BETA:
            return BetaSpec(a=draw(weights), b=draw(weights), c=draw(offsets))
        case CalibrationMethod.ISOTONIC:
            x, y = tuple(sorted(draw(places))), draw(inside)
            values = ascending(len(x), y)
            low = (Decimal("0.00001"), *values[1:])
            return IsotonicSpec(x=x, y=low)
        case CalibrationMethod.VENN_ABERS:
            x, y = tuple(sorted(draw(places))), draw(inside)
            values = ascending(2 * len(x) + 1, y)
            return VennAbersSpec(x=x, at=values[1::2], between=values[::2])
        case _:
            platt = CalibrationMethod.PLATT
            return CalibrationSpec(method=platt, a=-draw(weights), b=draw(offsets))


def at_and_around(spec: Calibration) -> list[float]:
    """Give the places of a table, and their neighbours among the floats."""
    x = [float(place) for place in getattr(spec, "x", ())]
    beside = [float(np.nextafter(place, side)) for place in x for side in (0.0, 1.0)]
    return [0.0, 1.0, 0.5, *x, *beside]


@given(specs(), st.lists(st.floats(0.0, 1.0), max_size=40))
def test_a_map_never_inverts_and_stays_in_range(spec: Calibration, values: list[float]) -> None:
    calibrator = Calibrator.of(spec)
    found = [calibrator.probability(p) for p in sorted(values + at_and_around(spec))]

    assert found == sorted(found)
    assert 0.0 <= found[0] <= found[-1] <= 1.0


@given(specs(), st.lists(st.floats(0.0, 1.0, width=32), max_size=60))
def test_a_column_is_what_row_by_row_gives(spec: Calibration, values: list[float]) -> None:
    calibrator = Calibrator.of(spec)
    p_hat_raw = np.array([*values, *at_and_around(spec)])
    found = columns.calibrated_bps(calibrator, p_hat_raw).tolist()

    assert found == [round(calibrator.probability(p) * 10_000) for p in p_hat_raw.tolist()]


@given(specs(), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_a_table_is_bit_for_bit_the_same_in_an_array(
    spec: Calibration, values: list[float]
) -> None:
    mapped = binary_map(spec)
    if not isinstance(mapped, LineMap | StepMap | IdentityMap):
        return
    p = np.array(values + at_and_around(spec))

    assert mapped.many(p).tolist() == [mapped.one(value) for value in p.tolist()]


@given(specs())
def test_a_calibration_comes_back_from_its_text_with_its_hash(spec: Calibration) -> None:
    again = parse_calibration(calibration_bytes(spec))

    assert again == spec
    assert again.calibration_version == spec.calibration_version


def test_a_temperature_of_one_probability_is_the_softmax_of_two_classes() -> None:
    calibrator = Calibrator.of(TemperatureSpec(temperature=Decimal(2)))

    assert calibrator.probability(0.8) == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5), abs=1e-15)
    assert calibrator.probability(0.5) == 0.5


def test_lines_and_steps_are_where_they_should_be() -> None:
    lines = LineMap(x=(0.2, 0.4, 0.8), y=(0.1, 0.3, 0.5))
    steps = StepMap(x=(0.2, 0.4), at=(0.15, 0.35), between=(0.1, 0.2, 0.4))

    assert [lines.one(p) for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.3, 0.4, 0.5, 0.5], abs=1e-15
    )
    assert [steps.one(p) for p in (0.0, 0.2, 0.3, 0.4, 0.5)] == [0.1, 0.15, 0.2, 0.35, 0.4]


def test_an_identity_serves_as_the_winner_and_never_bare() -> None:
    bare = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)
    alone = HeldOutChoice(fold_count=1, row_count=9, tried=WON.tried[:1])
    won = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None, choice=WON)

    assert Calibrator.of(won).probability(0.123) == 0.123
    for spec in (bare, CalibrationSpec(method=bare.method, a=None, b=None, choice=alone)):
        with pytest.raises(ArtifactInvalid) as caught:
            Calibrator.of(spec)
        assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


def test_a_calibration_of_classes_is_none_of_one_probability() -> None:
    row = DirichletRow(weights=(Decimal(1), Decimal(0)), offset=Decimal(0))
    with pytest.raises(ArtifactInvalid, match="dirichlet"):
        Calibrator.of(DirichletSpec(rows=(row, row)))


HALF, THIRD = Decimal("0.5"), Decimal("0.3")


@pytest.mark.parametrize(
    ("form", "fields", "field"),
    [
        (BetaSpec, {"a": Decimal(-1), "b": Decimal(1), "c": Decimal(0)}, "a"),
        (BetaSpec, {"a": Decimal(1), "b": Decimal(-1), "c": Decimal(0)}, "b"),
        (BetaSpec, {"a": Decimal(0), "b": Decimal(0), "c": Decimal(0)}, "a"),
        (IsotonicSpec, {"x": (THIRD, THIRD), "y": (THIRD, HALF)}, "x[1]"),
        (IsotonicSpec, {"x": (HALF, THIRD), "y": (THIRD, HALF)}, "x[1]"),
        (IsotonicSpec, {"x": (THIRD, HALF), "y": (HALF, THIRD)}, "y[1]"),
        (IsotonicSpec, {"x": (THIRD, HALF), "y": (THIRD, THIRD)}, "y"),
        (IsotonicSpec, {"x": (THIRD, HALF), "y": (Decimal(0), HALF)}, "y[0]"),
        (IsotonicSpec, {"x": (THIRD, HALF), "y": (HALF, Decimal(1))}, "y[1]"),
        (IsotonicSpec, {"x": (THIRD, Decimal(2)), "y": (THIRD, HALF)}, "x[1]"),
        (IsotonicSpec, {"x": (THIRD, HALF), "y": (HALF,)}, "y"),
        (IsotonicSpec, {"x": (), "y": ()}, "x"),
        (VennAbersSpec, {"x": (HALF,), "at": (HALF,), "between": (THIRD,)}, "between"),
        (VennAbersSpec, {"x": (HALF,), "at": (THIRD,), "between": (HALF, HALF)}, "at"),
        (VennAbersSpec, {"x": (HALF,), "at": (HALF,), "between": (HALF, THIRD)}, "between[1]"),
        (DirichletSpec, {"rows": (DirichletRow(weights=(HALF,), offset=HALF),) * 2}, "rows[0]"),
    ],
)
def test_parameters_that_no_fit_gives_are_refused_by_name(
    form: Any, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        form(**fields)

    assert caught.value.field.removesuffix(".weights") == field


def test_a_table_has_a_limit() -> None:
    x = tuple(Decimal(place) / 1_000 for place in range(513))
    y = tuple(Decimal(place + 1) / 1_000 for place in range(513))

    assert len(IsotonicSpec(x=x[:512], y=y[:512]).x) == 512
    with pytest.raises(InvalidField) as caught:
        IsotonicSpec(x=x, y=y)
    assert caught.value.field == "x"
