"""The calibration file: exact, hashed, and never inverted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from detent.contracts.calibration import (
    CalibrationMethod,
    CalibrationSpec,
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
        pytest.param(b"platt", b"isotonic", "method", id="unknown-method"),
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
