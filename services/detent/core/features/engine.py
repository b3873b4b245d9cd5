"""Holds what a feature engine is built with: interval, periods, memory, source of bars, book."""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.market import INTERVAL_MS_MAX

BARS_HELD_MAX = 100_000
QTY_REF_BASELINE = Decimal("0.003")


class BarSource(StrEnum):
    """Says where the bars of a symbol come from."""

    READY_MADE = "ready_made"
    FROM_QUOTES = "from_quotes"


class BookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes how an order book becomes a snapshot.

    Attributes:
        l2_qty_ref: Quantity that the impact is computed for, base units, above 0.

    Source: FORMULAS 1.2; REQUIREMENTS R15.
    """

    l2_qty_ref: Decimal = QTY_REF_BASELINE

    def __post_init__(self) -> None:
        """Refuse a quantity that could never be traded."""
        check_decimal("l2_qty_ref", self.l2_qty_ref, above_zero=True)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes how bars become indicators; part of `feature_version`.

    The source is declared and not guessed from what arrives first: a model that learned from
    traded prices must not be fed bars of mid prices because a quote came a moment earlier.

    Attributes:
        bar_interval_ms: Length of a bar.
        atr_period: Number of true ranges in the ATR.
        range_horizon: Number of bar returns in the range fields.
        max_bars: Number of finished bars held per symbol.
        bar_source: Whether bars arrive finished or are built from mid prices.
        book: How books are described; None where no feature reads the book. Its keys lie flat
            in the JSON, so that a set without a book hashes as before there were books
            (ADR 0011).

    Source: FORMULAS 1.1.
    """

    JSON_FLAT: ClassVar[tuple[str, ...]] = ("book",)

    bar_interval_ms: int = 60_000
    atr_period: int = 14
    range_horizon: int = 14
    max_bars: int = 1_000
    bar_source: BarSource = BarSource.READY_MADE
    book: BookConfig | None = None

    def __post_init__(self) -> None:
        """Refuse a configuration under which an indicator could never warm up."""
        check_int("bar_interval_ms", self.bar_interval_ms, 1, INTERVAL_MS_MAX)
        check_int("max_bars", self.max_bars, 1, BARS_HELD_MAX)
        check_int("atr_period", self.atr_period, 1, BARS_HELD_MAX)
        check_int("range_horizon", self.range_horizon, 1, BARS_HELD_MAX)
        if self.snapshot_bars > self.max_bars:
            raise InvalidField("max_bars", self.max_bars, f"at least {self.snapshot_bars}")
        if not isinstance(self.bar_source, BarSource):
            raise InvalidField("bar_source", self.bar_source, f"one of {', '.join(BarSource)}")

    @property
    def snapshot_bars(self) -> int:
        """Count the bars that a snapshot reads."""
        return max(self.atr_period, self.range_horizon) + 1
