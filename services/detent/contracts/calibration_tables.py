"""Hold the two calibrations that are tables: isotonic and Venn-Abers, with their limits."""

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar

from detent.contracts.calibration_form import (
    CalibrationForm,
    CalibrationMethod,
    check_parameter,
)
from detent.contracts.checks import check_count
from detent.contracts.errors import InvalidField

# A table is searched for every row that is served, and read with the artifact.
KNOTS_MAX = 512


class IsotonicSpec(CalibrationForm, frozen=True, kw_only=True):
    """Fixes a monotone map: straight lines between knots, constant beyond them.

    Attributes:
        method: ISOTONIC.
        x: Raw probabilities, ascending, each once.
        y: Calibrated ones, never descending, strictly between 0 and 1.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.ISOTONIC,)

    method: CalibrationMethod = CalibrationMethod.ISOTONIC
    x: tuple[Decimal, ...]
    y: tuple[Decimal, ...]

    def __post_init__(self) -> None:
        """Refuse a table that is none, too long, or inverts two probabilities."""
        super().__post_init__()
        _check_places(self.x)
        _check_values("y", self.y, len(self.x))
        if len(self.y) < 2 or self.y[0] == self.y[-1]:  # noqa: PLR2004  A map says something.
            raise InvalidField("y", f"{len(self.y)} knots", "two values at least")


class VennAbersSpec(CalibrationForm, frozen=True, kw_only=True):
    """Fixes a Venn-Abers map: constant at each score that was seen, and between two.

    Attributes:
        method: VENN_ABERS.
        x: Raw probabilities that were seen, ascending, each once.
        at: Calibrated probability of exactly these.
        between: Calibrated probability below the first, between each two, above the last.
    """

    METHODS: ClassVar[tuple[CalibrationMethod, ...]] = (CalibrationMethod.VENN_ABERS,)

    method: CalibrationMethod = CalibrationMethod.VENN_ABERS
    x: tuple[Decimal, ...]
    at: tuple[Decimal, ...]
    between: tuple[Decimal, ...]

    def __post_init__(self) -> None:
        """Refuse a table that is none, too long, or inverts two probabilities."""
        super().__post_init__()
        _check_places(self.x)
        _check_values("at", self.at, len(self.x))
        _check_values("between", self.between, len(self.x) + 1)
        inside = zip(self.between[:-1], self.at, self.between[1:], strict=True)
        if not all(below <= value <= above for below, value, above in inside):
            raise InvalidField("at", self.at[0], "values between those on both sides")


def _check_places(x: tuple[Decimal, ...]) -> None:
    check_count("x", x, 1, KNOTS_MAX)
    for index, place in enumerate(x):
        if not 0 <= check_parameter(f"x[{index}]", place) <= 1:
            raise InvalidField(f"x[{index}]", place, "a probability in [0, 1]")
    _check_order("x", x, strict=True)


def _check_values(name: str, values: tuple[Decimal, ...], count: int) -> None:
    check_count(name, values, count, count)
    for index, value in enumerate(values):
        if not 0 < check_parameter(f"{name}[{index}]", value) < 1:
            raise InvalidField(f"{name}[{index}]", value, "a probability strictly in (0, 1)")
    _check_order(name, values, strict=False)


def _check_order(name: str, values: Sequence[Decimal], *, strict: bool) -> None:
    for index in range(1, len(values)):
        below, value = values[index - 1], values[index]
        if value < below or (strict and value == below):
            expected = f"above {below}" if strict else f"at least {below}"
            raise InvalidField(f"{name}[{index}]", value, expected)
