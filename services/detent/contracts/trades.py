"""Hold what happened after a decision: its fills, and how the bar turned out."""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.checks import (
    check_exactly_one,
    check_hash64,
    check_int,
    check_name,
    check_symbol,
    check_ts_ms,
)
from detent.contracts.decimals import check_decimal, check_signed_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.learning import LearningTags, check_learning_book
from detent.contracts.units import INT32_MAX

HORIZON_BARS_MAX = INT32_MAX


class Side(StrEnum):
    """Says which way a fill went."""

    BUY = "buy"
    SELL = "sell"


class OutcomeLabel(StrEnum):
    """Says where the price stood at the end of the horizon."""

    UP = "up"
    DOWN = "down"
    FLAT = "flat"


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """States one execution, as the venue reports it.

    Attributes:
        fill_id: The venue's name for it; a ledger holds it once.
        plan_id: Plan that asked for it.
        book: Book of the plan.
        symbol: Instrument.
        ts_ms: When it was executed.
        sequence: Order among the fills of one instant, as the venue reports them.
        side: Bought or sold.
        quantity: Units of the instrument, above 0.
        price: Account currency per unit, above 0.
        fee: Account currency; a rebate is below 0.
        record_hash: Decision that asked for it; None when a client answered by itself.
        learning: Tags of the experiment; None is for profit.
    """

    SCHEMA: ClassVar[str] = "detent.fill.v1"
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"record_hash", "learning"})

    fill_id: str
    plan_id: str
    book: str
    symbol: str
    ts_ms: int
    sequence: int
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    record_hash: str | None = None
    learning: LearningTags | None = None

    def __post_init__(self) -> None:
        """Refuse a fill of nothing, and one whose book and tags contradict each other."""
        check_name("fill_id", self.fill_id)
        check_name("plan_id", self.plan_id)
        check_name("book", self.book)
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("sequence", self.sequence, 0, INT32_MAX)
        check_decimal("quantity", self.quantity, above_zero=True)
        check_decimal("price", self.price, above_zero=True)
        check_signed_decimal("fee", self.fee)
        if self.record_hash is not None:
            check_hash64("record_hash", self.record_hash)
        check_learning_book(self.book, learns=self.learning is not None)

    @property
    def signed_quantity(self) -> Decimal:
        """Give the change of the position, in units."""
        # A copy, because negating rounds to the digits of the context.
        return self.quantity if self.side is Side.BUY else self.quantity.copy_negate()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """States how a bar turned out, once the horizon was over.

    Attributes:
        plan_id: Plan that decided the bar.
        symbol: Instrument.
        ts_ms: Close of the decided bar.
        known_ts_ms: When the outcome was known; later than the bar (R360).
        horizon_bars: Bars from the one to the other, at least 1.
        label: Where the price stood; None for brackets.
        bracket_key: Which of exclusive outcomes came true; None for a direction.
    """

    SCHEMA: ClassVar[str] = "detent.outcome.v1"
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"label", "bracket_key"})

    plan_id: str
    symbol: str
    ts_ms: int
    known_ts_ms: int
    horizon_bars: int
    label: OutcomeLabel | None = None
    bracket_key: str | None = None

    def __post_init__(self) -> None:
        """Refuse an outcome that was known before the decision, or that says nothing or two."""
        check_name("plan_id", self.plan_id)
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_ts_ms("known_ts_ms", self.known_ts_ms)
        if self.known_ts_ms <= self.ts_ms:
            raise InvalidField("known_ts_ms", self.known_ts_ms, f"later than {self.ts_ms}")
        check_int("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        check_exactly_one("outcome", label=self.label, bracket_key=self.bracket_key)
        if self.bracket_key is not None:
            check_name("bracket_key", self.bracket_key)
