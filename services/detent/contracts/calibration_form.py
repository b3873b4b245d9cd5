"""What every form of calibration shares: a method, a hash, and the evidence of its choice.

Source: decision D17; ADR 0041.
"""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.checks import check_count, check_int, check_unique
from detent.contracts.decimals import DECIMAL_CHARS_MAX, format_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.units import INT64_MAX, PPM_ONE

# Parameters beyond this turn every input into 0 or 1; nothing that was fitted is near it.
PARAMETER_MAX = Decimal(1_000_000)
# A certain miss costs 87 nats at most, with the least share of a class that a float32 has.
LOG_LOSS_PPM_MAX = 100 * PPM_ONE
# The Brier score of several classes sums over them: 2 where all is wrong.
BRIER_PPM_MAX = 2 * PPM_ONE


class CalibrationMethod(StrEnum):
    """Names a map from the model's probabilities to the calibrated ones.

    The order is that of a choice: of two that score alike, the first is taken.

    `IDENTITY`: q = p. It serves only as the winner of a choice on rows held out.
    `TEMPERATURE`: q = softmax(log p / T) over the classes, with T above 0.
    `PLATT`: q = 1 / (1 + exp(a * logit(p) + b)), with a below 0.
    `BETA`: q = 1 / (1 + exp(-(a * ln p - b * ln(1 - p) + c))), with a and b at least 0.
    `ISOTONIC`: the straight lines between the knots of the best monotone fit.
    `VENN_ABERS`: q = p1 / (1 - p0 + p1), of the two monotone fits that count p as a miss
        and as a hit.
    `DIRICHLET`: q = softmax(W ln p + b) over the classes.
    `BRACKETS`: a Platt map per outcome, then a coupling, then a temperature.
    """

    IDENTITY = "identity"
    TEMPERATURE = "temperature"
    PLATT = "platt"
    BETA = "beta"
    ISOTONIC = "isotonic"
    VENN_ABERS = "venn_abers"
    DIRICHLET = "dirichlet"
    BRACKETS = "brackets"


class MethodScore(msgspec.Struct, frozen=True, kw_only=True):
    """States how one method did on the rows that it was not fitted on.

    Attributes:
        method: The method.
        log_loss_ppm: Mean log loss, nats times a million.
        brier_ppm: Mean Brier score times a million; summed over the classes where the head
            has several.
    """

    method: CalibrationMethod
    log_loss_ppm: int
    brier_ppm: int

    def __post_init__(self) -> None:
        """Refuse a score that no rows give."""
        check_int("log_loss_ppm", self.log_loss_ppm, 0, LOG_LOSS_PPM_MAX)
        check_int("brier_ppm", self.brier_ppm, 0, BRIER_PPM_MAX)


class HeldOutChoice(msgspec.Struct, frozen=True, kw_only=True):
    """States among which methods a calibration was chosen, and on how many rows.

    Attributes:
        fold_count: Blocks of rows that were scored, each by fits on earlier rows only.
        row_count: Rows in these blocks.
        tried: Every method that could be fitted on every fold, in the order of the methods.
    """

    fold_count: int
    row_count: int
    tried: tuple[MethodScore, ...]

    def __post_init__(self) -> None:
        """Refuse a choice among nothing."""
        check_int("fold_count", self.fold_count, 1, INT64_MAX)
        check_int("row_count", self.row_count, self.fold_count, INT64_MAX)
        check_count("tried", self.tried, 1, len(CalibrationMethod))
        methods = [score.method for score in self.tried]
        check_unique("tried", methods)
        if methods != sorted(methods, key=list(CalibrationMethod).index):
            raise InvalidField("tried", methods, "the methods in their order")

    @property
    def chosen(self) -> CalibrationMethod:
        """Name the least log loss; the first method of several that have it."""
        return min(self.tried, key=lambda score: score.log_loss_ppm).method


class CalibrationForm(msgspec.Struct, frozen=True, kw_only=True):
    """Gives every form of calibration its one schema, its hash, and where it came from.

    The parameters are decimals, not floats: the text that is hashed is the value that is
    used, in every language.

    Attributes:
        method: The map.
        choice: What it was chosen among; None for one that a person chose.
    """

    SCHEMA: ClassVar[str] = "detent.calibration.v1"
    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = ()
    # It came later: a calibration without it hashes as it did before (ADR 0016).
    JSON_GROWN: ClassVar[tuple[str, ...]] = ("choice",)

    method: CalibrationMethod
    choice: HeldOutChoice | None = None

    def __post_init__(self) -> None:
        """Refuse a method of another form, and one that lost the choice it cites."""
        if self.method not in self.METHODS:
            raise InvalidField("method", self.method, f"one of {', '.join(self.METHODS)}")
        if self.choice is not None and self.choice.chosen is not self.method:
            raise InvalidField("choice", self.method, f"its winner, {self.choice.chosen}")

    @property
    def calibration_version(self) -> str:
        """Hash the method and its parameters, in canonical form, to 64 hex."""
        return sha256_hex(canonical_bytes(self.SCHEMA, to_json(self)))

    @property
    def may_serve(self) -> bool:
        """Say whether it calibrates; the identity only where it won against another."""
        if self.method is not CalibrationMethod.IDENTITY:
            return True
        return self.choice is not None and len(self.choice.tried) > 1


def check_parameter(name: str, value: Decimal | None) -> Decimal:
    """Refuse what is not a finite decimal of sensible size, writable in plain notation."""
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value) > PARAMETER_MAX:
        raise InvalidField(name, value, f"a finite decimal in [-{PARAMETER_MAX}, {PARAMETER_MAX}]")
    # The exponent comes first: writing out 1E-999999999 would take the memory of a house.
    if value.adjusted() < -DECIMAL_CHARS_MAX or len(format_decimal(value)) > DECIMAL_CHARS_MAX:
        raise InvalidField(name, value, f"at most {DECIMAL_CHARS_MAX} characters, plain")
    return value
