"""Choose the spacing that each past window should have had, within what may be risked.

A strategist's own back-test says what every spacing earned in each window; a spacing that
breaks a constraint is out, whatever it earned. What is chosen is what the regime head learns.

Source: seed 003, section 12.7, use case 1; row R253.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.signals import SPACING_X1000_MAX, SPACING_X1000_MIN
from detent.offline.cells import decimal_cell, integer_cell, invalid, invalid_at, raw_cells

COLUMNS = ("ts_ms", "symbol", "spacing_x1000", "sharpe", "rt_expectancy", "fill_rate", "max_dd")


class SpacingTarget(StrEnum):
    """Names what a spacing is chosen by."""

    SHARPE = "sharpe"
    RT_EXPECTANCY = "rt_expectancy"
    FILL_RATE = "fill_rate"


class SpacingOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a spacing did in one window.

    Attributes:
        ts_ms: Close of the bar that the window begins after.
        symbol: Instrument.
        spacing_x1000: The multiplier, times 1000.
        sharpe: Sharpe ratio of the window.
        rt_expectancy: Mean result of a round trip.
        fill_rate: Share of orders that filled, [0, 1].
        max_dd: Largest drawdown as a share of equity, [0, 1].
    """

    ts_ms: int
    symbol: str
    spacing_x1000: int
    sharpe: float
    rt_expectancy: float
    fill_rate: float
    max_dd: float

    def __post_init__(self) -> None:
        """Refuse a spacing that no signal could carry."""
        check_int("spacing_x1000", self.spacing_x1000, SPACING_X1000_MIN, SPACING_X1000_MAX)


class SpacingGoal(msgspec.Struct, frozen=True, kw_only=True):
    """States what is wanted.

    Attributes:
        target: What is to be as large as possible.
        constraints: By name of a measure, the least and the most that it may be.
    """

    target: SpacingTarget = SpacingTarget.SHARPE
    constraints: tuple[tuple[str, float, float], ...] = (("max_dd", 0.0, 0.05),)

    def __post_init__(self) -> None:
        """Refuse a constraint on what nobody measures."""
        for name, low, high in self.constraints:
            if name not in COLUMNS[3:]:
                raise InvalidField("constraints", name, f"one of {', '.join(COLUMNS[3:])}")
            if low > high:
                raise InvalidField("constraints", f"{low} to {high}", "a range")

    def allows(self, outcome: SpacingOutcome) -> bool:
        """Say whether an outcome keeps every constraint; what is not a number keeps none."""
        return all(low <= getattr(outcome, name) <= high for name, low, high in self.constraints)


def best_spacings(
    outcomes: Iterable[SpacingOutcome], goal: SpacingGoal
) -> dict[tuple[int, str], int]:
    """Choose a spacing per window; of two that did as well, the one nearer to 1.

    Returns:
        By (ts_ms, symbol) the spacing times 1000; a window in which every candidate breaks a
        constraint has none.
    """
    best: dict[tuple[int, str], tuple[tuple[float, int, int], int]] = {}
    for one in outcomes:
        value = float(getattr(one, goal.target))
        # Written so that what is not a number is never chosen.
        if not goal.allows(one) or not value > float("-inf"):
            continue
        rank = (value, -abs(one.spacing_x1000 - 1000), -one.spacing_x1000)
        key = (one.ts_ms, one.symbol)
        if key not in best or rank > best[key][0]:
            best[key] = (rank, one.spacing_x1000)
    return {key: spacing for key, (_, spacing) in best.items()}


def read_outcomes(path: Path) -> list[SpacingOutcome]:
    """Read a `.parquet` or `.csv` file with `COLUMNS`.

    Raises:
        DataInvalid: A row is not what it should be; the error names it.
    """
    found = []
    for row, cells in raw_cells(path, COLUMNS):
        try:
            numbers = {name: float(decimal_cell(name, cells[name])) for name in COLUMNS[3:]}
            found.append(
                SpacingOutcome(
                    ts_ms=integer_cell("ts_ms", cells["ts_ms"]),
                    symbol=str(cells["symbol"]),
                    spacing_x1000=integer_cell("spacing_x1000", cells["spacing_x1000"]),
                    **numbers,
                )
            )
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
    if not found:
        raise invalid(path.name, "no rows", "what each spacing earned")
    return found
