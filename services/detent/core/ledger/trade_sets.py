"""Fold fills into trade sets: from flat, through any legs, to flat again.

A set belongs to one book and one symbol. Entries move the average cost, exits realise against
it. A fill that crosses zero closes one set and opens the next, also within one bar, and is a
leg of both; apart from that every fill is a leg of exactly one set.

Source: FORMULAS 2.4; row R353; ADR 0031.
"""

import itertools
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec

from detent.contracts.errors import InvalidField
from detent.contracts.learning import LearningTags
from detent.contracts.trades import Fill
from detent.core.ledger.exact_money import (
    EXACT,
    ZERO,
    exact_difference,
    exact_product,
    exact_sum,
    rounded,
)

FILLS_MAX = 1_000_000


class LegEffect(StrEnum):
    """Says whether a leg adds to a position or takes from it."""

    ENTRY = "entry"
    EXIT = "exit"


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the part of a fill that belongs to one set.

    Attributes:
        fill: The whole fill.
        effect: Whether it adds or takes away.
        quantity: Units of the fill in this set, above 0.
        fee: Fee of the fill in this set.
        average_price: Average cost of the position after it, to 12 places.
        realised: What an exit earned against the average cost, before fees; 0 for an entry.
            Rounded to 12 places but for the last exit of a closed set, which holds the rest,
            so that the legs of a closed set add up exactly.
    """

    fill: Fill
    effect: LegEffect
    quantity: Decimal
    fee: Decimal
    average_price: Decimal
    realised: Decimal


class TradeSet(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one position from flat to flat, or to now.

    Attributes:
        trade_set_id: Book, symbol and the fill that opened it.
        book: Book of its fills.
        symbol: Instrument.
        legs: In the order in which they were executed, at least 1.
        open_quantity: Units still held, signed; 0 when it is closed.
        realised: What its exits earned, before fees.
        fees: What its legs cost.
    """

    trade_set_id: str
    book: str
    symbol: str
    legs: tuple[Leg, ...]
    open_quantity: Decimal
    realised: Decimal
    fees: Decimal

    @property
    def closed(self) -> bool:
        """Say whether it is flat again."""
        return not self.open_quantity

    @property
    def net(self) -> Decimal:
        """Give what it earned so far, after fees."""
        return exact_difference(self.realised, self.fees)

    @property
    def direction(self) -> int:
        """Give 1 for a long set and -1 for a short one."""
        return 1 if self.legs[0].fill.signed_quantity > 0 else -1

    @property
    def learning(self) -> tuple[LearningTags, ...]:
        """Give the tags of its fills, each once; none for profit, several are a breach."""
        tags = {leg.fill.learning for leg in self.legs if leg.fill.learning is not None}
        return tuple(sorted(tags, key=_tag_key))

    @property
    def record_hashes(self) -> tuple[str, ...]:
        """Give the decisions behind its legs, each once, in order."""
        hashes = (leg.fill.record_hash for leg in self.legs)
        return tuple(dict.fromkeys(found for found in hashes if found is not None))


def _tag_key(tags: LearningTags) -> tuple[str, str]:
    return tags.experiment_id, tags.experiment_variant or ""


class _Position:
    """Holds the set that is under way in one book and symbol."""

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self.held = ZERO
        self.cost = Fraction(0)
        self.realised = Fraction(0)
        self.realised_shown = ZERO

    @property
    def average(self) -> Fraction:
        # `abs` would round to the digits of the caller's context.
        return self.cost / Fraction(self.held.copy_abs())

    def enter(self, fill: Fill, quantity: Decimal, fee: Decimal) -> None:
        """Add to the position: the average cost moves, nothing is realised."""
        signed = quantity if fill.signed_quantity > 0 else quantity.copy_negate()
        self.held = EXACT.add(self.held, signed)
        self.cost += Fraction(quantity) * Fraction(fill.price)
        self.legs.append(
            Leg(
                fill=fill,
                effect=LegEffect.ENTRY,
                quantity=quantity,
                fee=fee,
                average_price=rounded(self.average),
                realised=ZERO,
            )
        )

    def leave(self, fill: Fill, quantity: Decimal, fee: Decimal) -> None:
        """Take from the position: the average cost stays, the difference is realised."""
        average = self.average
        direction = 1 if self.held > 0 else -1
        signed = quantity.copy_negate() if direction > 0 else quantity
        self.held = EXACT.add(self.held, signed)
        self.cost -= average * Fraction(quantity)
        self.realised += direction * (Fraction(fill.price) - average) * Fraction(quantity)
        # The sum of a closed set is a finite decimal; what legs lost to rounding comes back.
        so_far = self._exact_realised(fill) if not self.held else rounded(self.realised)
        realised = exact_difference(so_far, self.realised_shown)
        self.realised_shown = so_far
        self.legs.append(
            Leg(
                fill=fill,
                effect=LegEffect.EXIT,
                quantity=quantity,
                fee=fee,
                average_price=rounded(average),
                realised=realised,
            )
        )

    def _exact_realised(self, last: Fill) -> Decimal:
        """Give what came in minus what was paid, over all legs and the last one."""
        direction = 1 if self.legs[0].fill.signed_quantity > 0 else -1
        paid = [
            exact_product(
                leg.quantity,
                leg.fill.price,
                Decimal(-direction if leg.effect is LegEffect.ENTRY else direction),
            )
            for leg in self.legs
        ]
        taken = exact_sum(
            leg.quantity if leg.effect is LegEffect.ENTRY else leg.quantity.copy_negate()
            for leg in self.legs
        )
        return exact_sum([*paid, exact_product(taken, last.price, Decimal(direction))])

    def as_set(self) -> TradeSet:
        first = self.legs[0].fill
        return TradeSet(
            trade_set_id=f"{first.book}/{first.symbol}/{first.fill_id}",
            book=first.book,
            symbol=first.symbol,
            legs=tuple(self.legs),
            open_quantity=self.held,
            realised=exact_sum(leg.realised for leg in self.legs),
            fees=exact_sum(leg.fee for leg in self.legs),
        )


def trade_sets(fills: Sequence[Fill]) -> tuple[TradeSet, ...]:
    """Fold fills into trade sets.

    Args:
        fills: In any order, at most `FILLS_MAX`, each once.

    Returns:
        The sets, by book, symbol and opening; the last of a symbol may still be open.

    Raises:
        InvalidField: There are too many fills, or one comes twice.
    """
    if len(fills) > FILLS_MAX:
        raise InvalidField("fills", f"{len(fills)} items", f"at most {FILLS_MAX}")
    ordered = sorted(fills, key=_place)
    seen: set[str] = set()
    for fill in ordered:
        if fill.fill_id in seen:
            raise InvalidField("fills", fill.fill_id, "each fill once")
        seen.add(fill.fill_id)
    found: list[TradeSet] = []
    for _, group in itertools.groupby(ordered, key=lambda fill: (fill.book, fill.symbol)):
        found.extend(_sets_of(group))
    return tuple(found)


def _place(fill: Fill) -> tuple[str, str, int, int, str]:
    """Give the place of a fill: the venue's order within an instant, then its name."""
    return fill.book, fill.symbol, fill.ts_ms, fill.sequence, fill.fill_id


def _sets_of(fills: Iterable[Fill]) -> list[TradeSet]:
    """Fold the fills of one book and symbol, in their order."""
    found: list[TradeSet] = []
    position = _Position()
    for fill in fills:
        # A comparison of signs: products of quantities would round in the usual context.
        opposes = position.held != 0 and (position.held > 0) != (fill.signed_quantity > 0)
        if not opposes:
            position.enter(fill, fill.quantity, fill.fee)
            continue
        left = position.held.copy_abs()
        if fill.quantity <= left:
            position.leave(fill, fill.quantity, fill.fee)
        else:
            # It crosses zero: each set bears the fee of its own units.
            fee = rounded(Fraction(fill.fee) * Fraction(left) / Fraction(fill.quantity))
            position.leave(fill, left, fee)
            found.append(position.as_set())
            position = _Position()
            rest = exact_difference(fill.quantity, left)
            position.enter(fill, rest, exact_difference(fill.fee, fee))
        if not position.held:
            found.append(position.as_set())
            position = _Position()
    if position.legs:
        found.append(position.as_set())
    return found
