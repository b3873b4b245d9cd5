"""Hold a fitted calibrator: a named method with exact parameters, and its hash."""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import check_name
from detent.contracts.decimals import DECIMAL_CHARS_MAX, format_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json

# Parameters beyond this turn every input into 0 or 1; nothing that was fitted is near it.
PARAMETER_MAX = Decimal(1_000_000)


class CalibrationMethod(StrEnum):
    """Names a map from the model's probability to the calibrated one.

    `PLATT`: q = 1 / (1 + exp(a * logit(p) + b)), with a below 0.
    `IDENTITY`: q = p. It can be described and measured, and is refused at serving.
    """

    PLATT = "platt"
    IDENTITY = "identity"


class CalibrationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes one fitted calibrator to the last digit.

    The parameters are decimals, not floats: the text that is hashed is the value that is
    used, in every language.

    Attributes:
        method: The map.
        a: Slope of the Platt map on logits, below 0; None for the identity.
        b: Offset of the Platt map; None for the identity.
    """

    SCHEMA: ClassVar[str] = "detent.calibration.v1"

    method: CalibrationMethod
    a: Decimal | None
    b: Decimal | None

    def __post_init__(self) -> None:
        """Refuse parameters that the method does not have, or that invert the score."""
        check_name("method", self.method)
        if self.method is CalibrationMethod.IDENTITY:
            for name in ("a", "b"):
                if getattr(self, name) is not None:
                    raise InvalidField(name, getattr(self, name), "absent for identity")
            return
        _check_parameter("a", self.a)
        _check_parameter("b", self.b)
        if self.a is None or self.a >= 0:
            raise InvalidField("a", self.a, "below 0 (at or above 0 the score is inverted)")

    @property
    def calibration_version(self) -> str:
        """Hash the method and its parameters, in canonical form, to 64 hex."""
        return sha256_hex(calibration_bytes(self))


def calibration_bytes(spec: CalibrationSpec) -> bytes:
    """Give the content of `calibration.json`."""
    return canonical_bytes(CalibrationSpec.SCHEMA, to_json(spec))


def parse_calibration(text: bytes) -> CalibrationSpec:
    """Read `calibration.json`.

    Raises:
        InvalidField: A field is missing, unknown, or out of range.
    """
    fields = parse_json("calibration", text)
    if fields.get("schema") != CalibrationSpec.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), CalibrationSpec.SCHEMA)
    return from_json(CalibrationSpec, fields)


def _check_parameter(name: str, value: Decimal | None) -> None:
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value) > PARAMETER_MAX:
        raise InvalidField(name, value, f"a finite decimal in [-{PARAMETER_MAX}, {PARAMETER_MAX}]")
    # The exponent comes first: writing out 1E-999999999 would take the memory of a house.
    if value.adjusted() < -DECIMAL_CHARS_MAX or len(format_decimal(value)) > DECIMAL_CHARS_MAX:
        raise InvalidField(name, value, f"at most {DECIMAL_CHARS_MAX} characters, plain")
