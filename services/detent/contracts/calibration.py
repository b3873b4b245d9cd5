"""Hold a fitted calibrator: a named method with exact parameters, and its hash.

One class per form of parameters; `calibration.json` says which by its `method`.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.calibration_form import (
    CalibrationForm,
    CalibrationMethod,
    HeldOutChoice,
    MethodScore,
    check_parameter,
)
from detent.contracts.calibration_tables import IsotonicSpec, VennAbersSpec
from detent.contracts.canonical import JsonValue, canonical_bytes, parse_json
from detent.contracts.checks import check_count, check_name, check_unique
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.signals import BRACKETS_MAX

__all__ = [
    "BetaSpec",
    "BracketPlatt",
    "BracketsSpec",
    "Calibration",
    "CalibrationMethod",
    "CalibrationSpec",
    "Coupling",
    "DirichletRow",
    "DirichletSpec",
    "HeldOutChoice",
    "IsotonicSpec",
    "MethodScore",
    "TemperatureSpec",
    "VennAbersSpec",
    "calibration_bytes",
    "calibration_from",
    "parse_calibration",
]

# Beyond these a distribution is a certainty or no information; a fit that ends there failed.
TEMPERATURE_MIN = Decimal("0.05")
TEMPERATURE_MAX = Decimal(20)


class Coupling(StrEnum):
    """Names a map from one-vs-rest probabilities to a distribution (decision D15).

    `ODDS_RATIO`: logit q = logit p - c, with the one c that makes the q sum to 1. What
    sums to 1 already stays as it is.
    """

    ODDS_RATIO = "odds_ratio"


class CalibrationSpec(CalibrationForm, frozen=True, kw_only=True):
    """Fixes one fitted calibrator of a probability to the last digit.

    Attributes:
        method: The map: PLATT or IDENTITY, the latter for a head of any number of classes.
        a: Slope of the Platt map on logits, below 0; None for the identity.
        b: Offset of the Platt map; None for the identity.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (
        CalibrationMethod.PLATT,
        CalibrationMethod.IDENTITY,
    )

    a: Decimal | None
    b: Decimal | None

    def __post_init__(self) -> None:
        """Refuse parameters that the method does not have, or that invert the score."""
        super().__post_init__()
        if self.method is CalibrationMethod.IDENTITY:
            for name in ("a", "b"):
                if getattr(self, name) is not None:
                    raise InvalidField(name, getattr(self, name), "absent for identity")
            return
        _check_platt(self.a, self.b)


class TemperatureSpec(CalibrationForm, frozen=True, kw_only=True):
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
        super().__post_init__()
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


class BracketsSpec(CalibrationForm, frozen=True, kw_only=True):
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
        super().__post_init__()
        check_count("brackets", self.brackets, 2, BRACKETS_MAX)
        check_unique("brackets", [bracket.bracket_key for bracket in self.brackets])
        if not isinstance(self.coupling, Coupling):
            raise InvalidField("coupling", self.coupling, f"one of {', '.join(Coupling)}")
        _check_temperature(self.temperature)


class BetaSpec(CalibrationForm, frozen=True, kw_only=True):
    """Fixes one fitted beta map: q = 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))).

    Attributes:
        method: BETA.
        a: Weight of ln p, at least 0.
        b: Weight of -ln(1 - p), at least 0; one of both is above.
        c: Offset.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.BETA,)

    method: CalibrationMethod = CalibrationMethod.BETA
    a: Decimal
    b: Decimal
    c: Decimal

    def __post_init__(self) -> None:
        """Refuse parameters that invert the score, or leave nothing of it."""
        super().__post_init__()
        for name in ("a", "b", "c"):
            check_parameter(name, getattr(self, name))
        for name in ("a", "b"):
            if getattr(self, name) < 0:
                raise InvalidField(name, getattr(self, name), "at least 0")
        if self.a == self.b == 0:
            raise InvalidField("a", self.a, "above 0 where b is 0")


class DirichletRow(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes what makes the score of one class: its weights of the ln p, and its offset."""

    weights: tuple[Decimal, ...]
    offset: Decimal

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        for index, weight in enumerate(self.weights):
            check_parameter(f"weights[{index}]", weight)
        check_parameter("offset", self.offset)


class DirichletSpec(CalibrationForm, frozen=True, kw_only=True):
    """Fixes one fitted Dirichlet map over the classes of a head: q = softmax(W ln p + b).

    Attributes:
        method: DIRICHLET.
        rows: One per class, in the order of the artifact's classes.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.DIRICHLET,)

    method: CalibrationMethod = CalibrationMethod.DIRICHLET
    rows: tuple[DirichletRow, ...]

    def __post_init__(self) -> None:
        """Refuse a matrix that is not square."""
        super().__post_init__()
        check_count("rows", self.rows, 2, BRACKETS_MAX)
        for index, row in enumerate(self.rows):
            check_count(f"rows[{index}].weights", row.weights, len(self.rows), len(self.rows))


Calibration = (
    CalibrationSpec
    | TemperatureSpec
    | BetaSpec
    | IsotonicSpec
    | VennAbersSpec
    | DirichletSpec
    | BracketsSpec
)
_FORMS: dict[str, type[Calibration]] = {
    method: form
    for form in (
        CalibrationSpec,
        TemperatureSpec,
        BetaSpec,
        IsotonicSpec,
        VennAbersSpec,
        DirichletSpec,
        BracketsSpec,
    )
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
    if fields.get("schema") != CalibrationForm.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), CalibrationForm.SCHEMA)
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


def _check_platt(a: Decimal | None, b: Decimal | None) -> None:
    check_parameter("a", a)
    check_parameter("b", b)
    if a is None or a >= 0:
        raise InvalidField("a", a, "below 0 (at or above 0 the score is inverted)")


def _check_temperature(value: Decimal) -> None:
    check_parameter("temperature", value)
    if not TEMPERATURE_MIN <= value <= TEMPERATURE_MAX:
        raise InvalidField("temperature", value, f"in [{TEMPERATURE_MIN}, {TEMPERATURE_MAX}]")
