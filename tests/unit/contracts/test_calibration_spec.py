"""The calibration file: exact, hashed, and never inverted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from detent.contracts.calibration import (
    BracketPlatt,
    BracketsSpec,
    CalibrationMethod,
    CalibrationSpec,
    TemperatureSpec,
    calibration_bytes,
    parse_calibration,
)
from detent.contracts.errors import InvalidField

SPEC = CalibrationSpec(method=CalibrationMethod.PLATT, a=Decimal("-0.5"), b=Decimal("0.0625"))
TEXT = b'{"a":"-0.5","b":"0.0625","method":"platt","schema":"detent.calibration.v1"}'


@pytest.mark.proves("R167")
def test_calibration_text_and_hash_are_fixed() -> None:
    """The vector is for other languages: the hash must come out the same there."""
    assert calibration_bytes(SPEC) == TEXT
    assert (
        SPEC.calibration_version
        == "fa6dacd5a83a2c83fc70d122bfc4177da967a5654da6efd815315ebb5865fef6"
    )
    assert parse_calibration(TEXT) == SPEC


def test_calibration_version_covers_every_parameter() -> None:
    others = [
        CalibrationSpec(method=CalibrationMethod.PLATT, a=Decimal("-0.51"), b=Decimal("0.0625")),
        CalibrationSpec(method=CalibrationMethod.PLATT, a=Decimal("-0.5"), b=Decimal("0.0626")),
        CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None),
    ]

    assert len({spec.calibration_version for spec in [SPEC, *others]}) == 4


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        pytest.param(b'"-0.5"', b'"0.5"', "a", id="inverted"),
        pytest.param(b'"-0.5"', b'"0"', "a", id="flat"),
        pytest.param(b'"-0.5"', b"null", "a", id="no-slope"),
        pytest.param(b'"0.0625"', b"null", "b", id="no-offset"),
        pytest.param(b'"-0.5"', b"-0.5", "calibration", id="float"),
        pytest.param(b'"-0.5"', b'"-5e-1"', "a", id="exponent"),
        pytest.param(b'"-0.5"', b'"NaN"', "a", id="nan"),
        pytest.param(b'"-0.5"', b'"-1000001"', "a", id="absurd"),
        pytest.param(b"platt", b"identity", "a", id="identity-with-parameters"),
        pytest.param(b"platt", b"histogram", "method", id="unknown-method"),
        pytest.param(b'"method":"platt",', b"", "method", id="no-method"),
        pytest.param(b".v1", b".v2", "schema", id="other-schema"),
    ],
)
def test_calibration_that_cannot_serve_is_refused_by_name(
    before: bytes, after: bytes, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_calibration(TEXT.replace(before, after, 1))

    assert caught.value.field == field


@pytest.mark.parametrize("value", [Decimal("-1E-999999999"), Decimal("-Infinity"), -0.5])
def test_calibration_parameter_that_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(InvalidField):
        CalibrationSpec(method=CalibrationMethod.PLATT, a=value, b=Decimal(0))


TEMPERATURE = TemperatureSpec(temperature=Decimal("1.5"))
TEMPERATURE_TEXT = b'{"method":"temperature","schema":"detent.calibration.v1","temperature":"1.5"}'
BRACKETS = BracketsSpec(
    brackets=(
        BracketPlatt(bracket_key="less_70", a=Decimal("-0.9"), b=Decimal("0.05")),
        BracketPlatt(bracket_key="greater_70", a=Decimal(-1), b=Decimal(0)),
    ),
    temperature=Decimal("1.2"),
)
BRACKETS_TEXT = (
    b'{"brackets":[{"a":"-0.9","b":"0.05","bracket_key":"less_70"},'
    b'{"a":"-1","b":"0","bracket_key":"greater_70"}],"coupling":"odds_ratio",'
    b'"method":"brackets","schema":"detent.calibration.v1","temperature":"1.2"}'
)


@pytest.mark.parametrize(
    ("spec", "text"), [(TEMPERATURE, TEMPERATURE_TEXT), (BRACKETS, BRACKETS_TEXT)]
)
def test_each_form_has_one_text_and_comes_back_from_it(
    spec: TemperatureSpec | BracketsSpec, text: bytes
) -> None:
    assert calibration_bytes(spec) == text
    assert parse_calibration(text) == spec
    assert parse_calibration(text).calibration_version == spec.calibration_version


@pytest.mark.parametrize(
    ("text", "before", "after", "field"),
    [
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b'"0"', "temperature", id="zero"),
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b'"-1"', "temperature", id="negative"),
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b'"20.1"', "temperature", id="no-information"),
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b'"0.049"', "temperature", id="certain"),
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b"null", "temperature", id="absent"),
        pytest.param(TEMPERATURE_TEXT, b'"1.5"', b"1.5", "calibration", id="float"),
        pytest.param(TEMPERATURE_TEXT, b"temperature", b"platt", "a", id="of-another-form"),
        pytest.param(BRACKETS_TEXT, b'"1.2"', b'"0.01"', "temperature", id="brackets-certain"),
        pytest.param(BRACKETS_TEXT, b'"-0.9"', b'"0.9"', "brackets[0].a", id="inverted"),
        pytest.param(BRACKETS_TEXT, b"less_70", b"greater_70", "brackets", id="twice"),
        pytest.param(BRACKETS_TEXT, b"odds_ratio", b"softmax", "coupling", id="coupling"),
    ],
)
def test_a_form_that_cannot_serve_is_refused_by_name(
    text: bytes, before: bytes, after: bytes, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_calibration(text.replace(before, after, 1))

    assert caught.value.field == field


def test_a_method_of_another_form_is_refused_when_it_is_built() -> None:
    with pytest.raises(InvalidField) as caught:
        TemperatureSpec(method=CalibrationMethod.PLATT, temperature=Decimal(1))

    assert caught.value.field == "method"
