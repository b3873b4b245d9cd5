"""Hold a fitted calibrator: a named method with exact parameters, and its hash.

One class per form of parameters; `calibration.json` says which by its `method`.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import JsonValue, canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import check_count, check_name, check_unique
from detent.contracts.decimals import DECIMAL_CHARS_MAX, format_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.signals import BRACKETS_MAX

# Parameters beyond this turn every input into 0 or 1; nothing that was fitted is near it.
PARAMETER_MAX = Decimal(1_000_000)
# Beyond these a distribution is a certainty or no information; a fit that ends there failed.
TEMPERATURE_MIN = Decimal("0.05")
TEMPERATURE_MAX = Decimal(20)


class CalibrationMethod(StrEnum):
    """Names a map from the model's probabilities to the calibrated ones.

    `PLATT`: q = 1 / (1 + exp(a * logit(p) + b)), with a below 0.
    `IDENTITY`: q = p. It can be described and measured, and is refused at serving.
    `TEMPERATURE`: q = softmax(log p / T) over the classes, with T above 0.
    `BRACKETS`: a Platt map per outcome, then a coupling, then a temperature.
    """

    PLATT = "platt"
    IDENTITY = "identity"
    TEMPERATURE = "temperature"
    BRACKETS = "brackets"


class Coupling(StrEnum):
    """Names a map from one-vs-rest probabilities to a distribution (decision D15).

    `ODDS_RATIO`: logit q = logit p - c, with the one c that makes the q sum to 1. What
    sums to 1 already stays as it is.
    """

    ODDS_RATIO = "odds_ratio"


class _Hashed(msgspec.Struct, frozen=True, kw_only=True):
    """Gives every form of calibration its one schema and its hash.

    The parameters are decimals, not floats: the text that is hashed is the value that is
    used, in every language.
    """

    SCHEMA: ClassVar[str] = "detent.calibration.v1"

    @property
    def calibration_version(self) -> str:
        """Hash the method and its parameters, in canonical form, to 64 hex."""
        return sha256_hex(canonical_bytes(self.SCHEMA, to_json(self)))


class CalibrationSpec(_Hashed, frozen=True, kw_only=True):
    """Fixes one fitted calibrator of a probability to the last digit.

    Attributes:
        method: The map: PLATT or IDENTITY.
        a: Slope of the Platt map on logits, below 0; None for the identity.
        b: Offset of the Platt map; None for the identity.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (
        CalibrationMethod.PLATT,
        CalibrationMethod.IDENTITY,
    )

    method: CalibrationMethod
    a: Decimal | None
    b: Decimal | None

    def __post_init__(self) -> None:
        """Refuse parameters that the method does not have, or that invert the score."""
        _check_method(self.method, self.METHODS)
        if self.method is CalibrationMethod.IDENTITY:
            for name in ("a", "b"):
                if getattr(self, name) is not None:
                    raise InvalidField(name, getattr(self, name), "absent for identity")
            return
        _check_platt(self.a, self.b)


class TemperatureSpec(_Hashed, frozen=True, kw_only=True):
    """Fixes one fitted temperature over the classes of a head.

    Attributes:
        method: TEMPERATURE.
        temperature: T of softmax(log p / T), in [0.05, 20]; above 1 it flattens.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.TEMPERATURE,)

    method: CalibrationMethod = CalibrationMethod.TEMPERATURE
    temperature: Decimal

    def __post_init__(self) -> None:
        """Refuse a temperature that no fit gives."""
        _check_method(self.method, self.METHODS)
        _check_temperature(self.temperature)


class BracketPlatt(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes the Platt map of one outcome against the rest."""

    bracket_key: str
    a: Decimal
    b: Decimal

    def __post_init__(self) -> None:
        """Refuse what is no outcome, or inverts its score."""
        check_name("bracket_key", self.bracket_key)
        _check_platt(self.a, self.b)


class BracketsSpec(_Hashed, frozen=True, kw_only=True):
    """Fixes how k one-vs-rest probabilities become one distribution.

    Attributes:
        method: BRACKETS.
        brackets: One Platt map per outcome, in the order of the artifact's classes.
        coupling: The map onto the simplex.
        temperature: T of softmax(log q / T) after the coupling, in [0.05, 20].
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.BRACKETS,)

    method: CalibrationMethod = CalibrationMethod.BRACKETS
    brackets: tuple[BracketPlatt, ...]
    coupling: Coupling = Coupling.ODDS_RATIO
    temperature: Decimal

    def __post_init__(self) -> None:
        """Refuse a group that is none, and parameters that no fit gives."""
        _check_method(self.method, self.METHODS)
        check_count("brackets", self.brackets, 2, BRACKETS_MAX)
        check_unique("brackets", [bracket.bracket_key for bracket in self.brackets])
        if not isinstance(self.coupling, Coupling):
            raise InvalidField("coupling", self.coupling, f"one of {', '.join(Coupling)}")
        _check_temperature(self.temperature)


Calibration = CalibrationSpec | TemperatureSpec | BracketsSpec
_FORMS: dict[str, type[CalibrationSpec] | type[TemperatureSpec] | type[BracketsSpec]] = {
    method: form
    for form in (CalibrationSpec, TemperatureSpec, BracketsSpec)
    for method in form.METHODS
}


def calibration_bytes(spec: Calibration) -> bytes:
    """Give the content of `calibration.json`."""
    return canonical_bytes(spec.SCHEMA, to_json(spec))


def parse_calibration(text: bytes) -> Calibration:
    """Read `calibration.json`.

    Raises:
        InvalidField: A field is missing, unknown, or out of range.
    """
    fields = parse_json("calibration", text)
    if fields.get("schema") != _Hashed.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), _Hashed.SCHEMA)
    return calibration_from(fields)


def calibration_from(fields: Mapping[str, JsonValue]) -> Calibration:
    """Read a calibration of the form that its method has.

    Raises:
        InvalidField: A field is missing, unknown, or out of range.
    """
    method = fields.get("method")
    form = _FORMS.get(method) if isinstance(method, str) else None
    if form is None:
        raise InvalidField("method", method, f"one of {', '.join(_FORMS)}")
    return from_json(form, fields)


def _check_method(found: CalibrationMethod, methods: tuple[CalibrationMethod, ...]) -> None:
    if found not in methods:
        raise InvalidField("method", found, f"one of {', '.join(methods)}")


def _check_platt(a: Decimal | None, b: Decimal | None) -> None:
    _check_parameter("a", a)
    _check_parameter("b", b)
    if a is None or a >= 0:
        raise InvalidField("a", a, "below 0 (at or above 0 the score is inverted)")


def _check_temperature(value: Decimal) -> None:
    _check_parameter("temperature", value)
    if not TEMPERATURE_MIN <= value <= TEMPERATURE_MAX:
        raise InvalidField("temperature", value, f"in [{TEMPERATURE_MIN}, {TEMPERATURE_MAX}]")


def _check_parameter(name: str, value: Decimal | None) -> None:
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value) > PARAMETER_MAX:
        raise InvalidField(name, value, f"a finite decimal in [-{PARAMETER_MAX}, {PARAMETER_MAX}]")
    # The exponent comes first: writing out 1E-999999999 would take the memory of a house.
    if value.adjusted() < -DECIMAL_CHARS_MAX or len(format_decimal(value)) > DECIMAL_CHARS_MAX:
        raise InvalidField(name, value, f"at most {DECIMAL_CHARS_MAX} characters, plain")
