"""Proves that trade sets run from flat to flat at average cost and lose no fill and no cent."""

import random
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import OTHER_SYMBOL, SYMBOL
from tests.trades import LEARNING_BOOK, TAGS, fill_of

from detent.contracts.errors import InvalidField
from detent.contracts.trades import Fill, Side
from detent.core.ledger.trade_sets import LegEffect, TradeSet, trade_sets

BUY, SELL = Side.BUY, Side.SELL
AMOUNTS = st.decimals(min_value="0.001", max_value=1_000, places=3)
FEES = st.decimals(min_value=-5, max_value=5, places=4)


@st.composite
def histories(draw: st.DrawFn) -> list[Fill]:
    """Draw fills of two symbols and two books; many of them cross zero or end flat."""
    count = draw(st.integers(1, 25))
    return [
        fill_of(
            f"f{number}",
            draw(st.sampled_from(Side)),
            draw(st.one_of(AMOUNTS, st.sampled_from([Decimal(1), Decimal(2)]))),
            draw(AMOUNTS),
            bar=draw(st.integers(0, 5)),
            fee=draw(FEES),
            sequence=draw(st.integers(0, 2)),
            symbol=draw(st.sampled_from([SYMBOL, OTHER_SYMBOL])),
            book=draw(st.sampled_from(["book-plan", "other"])),
        )
        for number in range(count)
    ]


def cash(fills: Sequence[Fill]) -> Fraction:
    """Give what came in minus what went out, by the plainest arithmetic there is."""
    return sum(
        (-Fraction(f.signed_quantity) * Fraction(f.price) - Fraction(f.fee) for f in fills),
        Fraction(0),
    )


@pytest.mark.proves("R353")
def test_partial_exits_realise_against_the_average_cost() -> None:
    """Golden: 1 at 100 and 1 at 110 cost 105; one leaves at 120, one at 130."""
    (found,) = trade_sets(
        [
            fill_of("a", BUY, price="100", bar=0, fee="0.1"),
            fill_of("b", BUY, price="110", bar=1, fee="0.1"),
            fill_of("c", SELL, price="120", bar=2, fee="0.1"),
            fill_of("d", SELL, price="130", bar=3, fee="0.1"),
        ]
    )

    assert [str(leg.realised.normalize()) for leg in found.legs] == ["0", "0", "15", "25"]
    assert [leg.average_price for leg in found.legs] == [100, 105, 105, 105]
    assert (found.realised, found.fees, found.net) == (40, Decimal("0.4"), Decimal("39.6"))
    assert (found.closed, found.direction) == (True, 1)
    assert found.trade_set_id == f"book-plan/{SYMBOL}/a"


def test_average_that_never_ends_loses_no_cent() -> None:
    """Three units for 100 cost 33.33 each for ever; out at 50, one by one, they earn 50."""
    (found,) = trade_sets(
        [
            fill_of("a", BUY, "1", "30"),
            fill_of("b", BUY, "2", "35", bar=1),
            *[fill_of(f"x{number}", SELL, "1", "50", bar=2 + number) for number in range(3)],
        ]
    )

    assert found.legs[1].average_price == Decimal("33.333333333333")
    assert found.legs[2].realised == Decimal("16.666666666667")
    assert found.realised == 50


def test_short_set_earns_when_the_price_falls() -> None:
    (found,) = trade_sets([fill_of("a", SELL, price="100"), fill_of("b", BUY, price="90", bar=1)])

    assert (found.realised, found.direction) == (10, -1)


@pytest.mark.proves("R353")
def test_reopening_in_the_same_bar_begins_another_set() -> None:
    found = trade_sets(
        [
            fill_of("a", BUY),
            fill_of("b", SELL, price="101", bar=1, sequence=0),
            fill_of("c", BUY, price="102", bar=1, sequence=1),
        ]
    )

    assert [item.closed for item in found] == [True, False]
    assert [item.legs[0].fill.fill_id for item in found] == ["a", "c"]
    assert (found[0].realised, found[1].realised, found[1].open_quantity) == (1, 0, 1)


@pytest.mark.proves("R353")
def test_fill_that_crosses_zero_closes_one_set_and_opens_the_next() -> None:
    found = trade_sets(
        [fill_of("a", BUY, "1", "100"), fill_of("b", SELL, "3", "110", bar=1, fee="0.10")]
    )

    assert [item.direction for item in found] == [1, -1]
    assert [item.realised for item in found] == [10, 0]
    assert found[1].open_quantity == -2
    assert [leg.quantity for item in found for leg in item.legs] == [1, 1, 2]
    assert found[0].fees == Decimal("0.033333333333")
    assert found[0].fees + found[1].fees == Decimal("0.10")


@pytest.mark.proves("R353")
@given(histories())
def test_sets_part_the_fills_and_every_set_but_the_last_is_flat(fills: list[Fill]) -> None:
    found = trade_sets(fills)
    parts: dict[str, list[tuple[Decimal, Decimal]]] = defaultdict(list)
    for item in found:
        held = Decimal(0)
        for leg in item.legs:
            parts[leg.fill.fill_id].append((leg.quantity, leg.fee))
            sign = 1 if leg.fill.side is BUY else -1
            held += sign * leg.quantity
            assert held * item.direction >= 0
            assert (leg is item.legs[-1]) or held != 0
        assert held == item.open_quantity

    assert set(parts) == {fill.fill_id for fill in fills}
    for fill in fills:
        assert sum(quantity for quantity, _ in parts[fill.fill_id]) == fill.quantity
        assert sum(fee for _, fee in parts[fill.fill_id]) == fill.fee
        assert len(parts[fill.fill_id]) <= 2
    open_places = [(item.book, item.symbol) for item in found if not item.closed]
    assert len(open_places) == len(set(open_places))


@given(histories())
def test_closed_sets_and_the_cash_of_the_fills_agree_to_the_last_digit(fills: list[Fill]) -> None:
    """Where everything is flat, what the sets say is what came in minus what went out."""
    flat = defaultdict(Decimal)
    for fill in fills:
        flat[fill.book, fill.symbol] += fill.signed_quantity
    closing = [
        fill_of(f"z{number}", SELL if held > 0 else BUY, abs(held), "7.77", bar=9)
        for number, held in enumerate(flat.values())
        if held
    ]
    places = [place for place, held in flat.items() if held]
    closing = [
        fill_of(f.fill_id, f.side, f.quantity, f.price, bar=9, book=book, symbol=symbol)
        for f, (book, symbol) in zip(closing, places, strict=True)
    ]
    everything = [*fills, *closing]
    found = trade_sets(everything)

    assert all(item.closed for item in found)
    assert sum((Fraction(item.net) for item in found), Fraction(0)) == cash(everything)


@given(histories(), st.randoms(use_true_random=False))
def test_order_in_which_fills_arrive_changes_nothing(
    fills: list[Fill], chance: random.Random
) -> None:
    shuffled = list(fills)
    chance.shuffle(shuffled)

    assert trade_sets(shuffled) == trade_sets(fills)


@given(histories())
def test_a_fill_that_is_lost_changes_the_sets(fills: list[Fill]) -> None:
    """The control of the partition: sets of fewer fills are other sets."""
    assert trade_sets(fills[:-1]) != trade_sets(fills)


@given(histories())
def test_digits_of_the_caller_s_context_change_nothing(fills: list[Fill]) -> None:
    with localcontext() as context:
        context.prec = 4
        few = trade_sets(fills)

    assert few == trade_sets(fills)


def test_longest_numbers_that_a_fill_takes_are_added_exactly() -> None:
    long = Decimal("1." + "1" * 38)
    (found,) = trade_sets(
        [fill_of("a", BUY, long, long), fill_of("b", SELL, long, long, bar=1, fee=long)]
    )

    assert found.realised == 0
    assert found.net == long.copy_negate()


def test_fill_that_comes_twice_is_refused() -> None:
    with pytest.raises(InvalidField) as refused:
        trade_sets([fill_of("a"), fill_of("a", bar=1)])

    assert refused.value.found == "a"


def test_set_names_its_tags_and_decisions() -> None:
    tagged: TradeSet = trade_sets(
        [
            fill_of("a", book=LEARNING_BOOK, learning=TAGS, record_hash="a" * 64),
            fill_of("b", SELL, bar=1, book=LEARNING_BOOK, learning=TAGS, record_hash="b" * 64),
        ]
    )[0]

    assert tagged.learning == (TAGS,)
    assert tagged.record_hashes == ("a" * 64, "b" * 64)
    assert [leg.effect for leg in tagged.legs] == [LegEffect.ENTRY, LegEffect.EXIT]
    assert trade_sets([fill_of("a")])[0].learning == ()
