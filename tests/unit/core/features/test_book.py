"""Proves the book's formulas against golden values and an exact reference."""

from collections.abc import Sequence
from decimal import ROUND_UP, Decimal, localcontext
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.book_scenarios import SCENARIOS, ULTRA_THIN, WALL_BID
from tests.unit.core.features.market import START_MS, book, levels

from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.market import Book, BookLevel, Quote
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.contracts.wire import from_wire, to_wire
from detent.core.features.book import (
    IMPACT_INSUFFICIENT_BPS,
    build_l2_snapshot,
    impact_bps,
    wall_score_x1000,
)
from detent.core.features.model_input import snapshot_hash
from detent.core.features.snapshot import imbalance_l1_bps, mid_price, spread_bps

QTY_REF = Decimal("0.003")
Pairs = Sequence[tuple[str, str]]


def snapshot_of(scenario: str, qty_ref: str = "0.003") -> L2FeatureSnapshot:
    return build_l2_snapshot(SCENARIOS[scenario], qty_ref=Decimal(qty_ref))


@pytest.mark.proves("R11")
@pytest.mark.parametrize(
    ("scenario", "bid_qty", "ask_qty", "imbalance_bps"),
    [
        ("normal", "3.070", "2.840", 389),
        ("ultra_thin", "0.048", "0.048", 0),
        ("wall_bid", "3.100", "0.750", 6_104),
        ("thin_insufficient", "0.087", "0.081", 357),
    ],
)
def test_depth_of_the_four_scenarios(
    scenario: str, bid_qty: str, ask_qty: str, imbalance_bps: int
) -> None:
    snapshot = snapshot_of(scenario)

    assert snapshot.depth == 5
    assert snapshot.depth_bid_qty_top_n == Decimal(bid_qty)
    assert snapshot.depth_ask_qty_top_n == Decimal(ask_qty)
    assert snapshot.depth_imbalance_top_n_bps == imbalance_bps


@pytest.mark.proves("R12", "R13")
@pytest.mark.parametrize(
    ("scenario", "small_bps", "large_bps", "large_flag"),
    [
        ("normal", 0, 0, 0),
        ("ultra_thin", 2, 500, 1),
        ("wall_bid", 0, 0, 0),
        ("thin_insufficient", 0, 500, 1),
    ],
)
def test_impact_of_the_four_scenarios(
    scenario: str, small_bps: int, large_bps: int, large_flag: int
) -> None:
    small, large = snapshot_of(scenario), snapshot_of(scenario, "0.1")

    for snapshot, bps, flag in [(small, small_bps, 0), (large, large_bps, large_flag)]:
        assert snapshot.impact_buy_top_n_bps == bps
        assert snapshot.impact_sell_top_n_bps == bps
        assert snapshot.impact_buy_top_n_insufficient_depth == flag
        assert snapshot.impact_sell_top_n_insufficient_depth == flag


@pytest.mark.proves("R14")
@pytest.mark.parametrize(
    ("scenario", "bid_score", "ask_score"),
    [
        ("normal", 2_000, 2_000),
        ("ultra_thin", 2_000, 2_000),
        ("wall_bid", 15_625, 1_267),
        ("thin_insufficient", 2_000, 2_000),
    ],
)
def test_walls_of_the_four_scenarios(scenario: str, bid_score: int, ask_score: int) -> None:
    snapshot = snapshot_of(scenario)

    assert snapshot.wall_bid_score_top_n_x1000 == bid_score
    assert snapshot.wall_ask_score_top_n_x1000 == ask_score


@pytest.mark.proves("R2", "R3", "R4")
@pytest.mark.parametrize(
    ("scenario", "mid", "spread", "imbalance_bps"),
    [
        ("normal", "70811.00", 0, 435),
        ("ultra_thin", "70829.75", 0, 0),
        ("wall_bid", "70811.00", 0, 435),
        ("thin_insufficient", "70810.00", 5, 526),
    ],
)
def test_best_levels_of_the_four_scenarios(
    scenario: str, mid: str, spread: int, imbalance_bps: int
) -> None:
    found = SCENARIOS[scenario]
    bid, ask = found.bids[0], found.asks[0]
    best = Quote(
        symbol=found.symbol,
        ts_ms=found.ts_ms,
        bid_price=bid.price,
        ask_price=ask.price,
        bid_qty=bid.qty,
        ask_qty=ask.qty,
    )

    assert mid_price(best) == Decimal(mid)
    assert spread_bps(best) == spread
    assert imbalance_l1_bps(best) == imbalance_bps


@pytest.mark.proves("R12")
@pytest.mark.parametrize(
    ("side", "qty_ref", "expected"),
    [
        pytest.param([("100", ".001"), ("101", ".002")], "0.003", 67, id="asks"),
        pytest.param([("100", ".001"), ("99", ".002")], "0.003", 67, id="bids"),
        pytest.param([("100", ".003"), ("200", "9")], "0.003", 0, id="exactly the best"),
        pytest.param([("100", "1"), ("100.01", "1")], "2", 0, id="a half goes to the even 0"),
        pytest.param([("100", "1"), ("100.03", "1")], "2", 2, id="a half goes to the even 2"),
    ],
)
def test_impact_is_the_mean_price_over_the_best(side: Pairs, qty_ref: str, expected: int) -> None:
    assert impact_bps(levels(*side), Decimal(qty_ref)) == (expected, False)


@pytest.mark.proves("R13")
@pytest.mark.parametrize(
    ("side", "expected"),
    [
        pytest.param([("100", "1"), ("110", "1")], (500, False), id="a true 500"),
        pytest.param([("100", "1"), ("110", ".9999")], (500, True), id="too thin"),
        pytest.param([("100", "1"), ("110", "1.0001")], (500, False), id="some left"),
        pytest.param([], (500, True), id="nothing there"),
    ],
)
def test_insufficient_depth_is_its_own_flag(side: Pairs, expected: tuple[int, bool]) -> None:
    """Decision D5: not the number 500."""
    assert impact_bps(levels(*side), Decimal(2)) == expected


@pytest.mark.proves("R13")
def test_flags_are_per_side() -> None:
    snapshot = build_l2_snapshot(WALL_BID, qty_ref=Decimal(1))

    assert snapshot.impact_sell_top_n_insufficient_depth == 0
    assert snapshot.impact_buy_top_n_insufficient_depth == 1
    assert snapshot.impact_buy_top_n_bps == IMPACT_INSUFFICIENT_BPS


@pytest.mark.proves("R14")
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], 1_000),
        (["9"], 1_000),
        (["9", "0.1"], 1_000),
        (["0.1", "10", "0.1"], 100_000),
        (["1", "1", "1"], 1_000),
        (["1", "2", "3", "4"], 1_600),
        (["2", "2", "2", "2.001"], 1_000),
        (["2", "2", "2", "2.003"], 1_002),
    ],
)
def test_wall_score_is_the_largest_over_the_median(sizes: list[str], expected: int) -> None:
    side = [(str(100 + index), size) for index, size in enumerate(sizes)]

    assert wall_score_x1000(levels(*side)) == expected


@pytest.mark.proves("R11", "R13", "R14")
def test_empty_book_is_balanced_and_insufficient() -> None:
    snapshot = build_l2_snapshot(book(START_MS, [], []), qty_ref=QTY_REF)

    assert (snapshot.depth, snapshot.depth_imbalance_top_n_bps) == (0, 0)
    assert snapshot.impact_buy_top_n_insufficient_depth == 1
    assert snapshot.wall_ask_score_top_n_x1000 == 1_000


@pytest.mark.proves("R10", "R15")
def test_snapshot_names_its_book_and_its_quantity() -> None:
    snapshot = snapshot_of("normal")
    found = SCENARIOS["normal"]

    assert (snapshot.ts_ms, snapshot.symbol, snapshot.venue) == (
        found.ts_ms,
        found.symbol,
        found.venue,
    )
    assert snapshot.qty_ref == QTY_REF
    assert snapshot_hash(snapshot) != snapshot_hash(snapshot_of("normal", "0.004"))
    assert snapshot_hash(snapshot) == snapshot_hash(snapshot_of("normal", "0.0030"))


@pytest.mark.proves("R10")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_snapshot_round_trips_over_wire_and_json(scenario: str) -> None:
    snapshot, found = snapshot_of(scenario), SCENARIOS[scenario]

    assert from_wire(L2FeatureSnapshot, to_wire(snapshot)) == snapshot
    assert from_json(L2FeatureSnapshot, to_json(snapshot)) == snapshot
    assert from_wire(Book, to_wire(found)) == found


@pytest.mark.parametrize("qty_ref", ["0", "-1", "NaN"])
def test_quantity_that_is_none_is_refused(qty_ref: str) -> None:
    with pytest.raises(InvalidField, match="qty_ref"):
        build_l2_snapshot(ULTRA_THIN, qty_ref=Decimal(qty_ref))


def test_value_that_the_contract_cannot_carry_is_refused() -> None:
    """A basis-point field has 32 bits; a price a million times the best does not fit."""
    far = book(START_MS, [("1", "1"), ("0.5", "1")], [("2", "1"), ("9000000", "1")])

    with pytest.raises(InvalidField, match="impact_buy_topN_bps"):
        build_l2_snapshot(far, qty_ref=Decimal(2))


def test_callers_decimal_context_changes_nothing() -> None:
    expected = snapshot_of("wall_bid")
    with localcontext() as context:
        context.prec = 3
        context.rounding = ROUND_UP

        assert snapshot_of("wall_bid") == expected


numbers = st.decimals(min_value="0.00000001", max_value="100000", places=8)


@st.composite
def books(draw: st.DrawFn) -> Book:
    """Give books of any shape."""
    depth = draw(st.integers(0, 6))
    prices = sorted(draw(st.sets(numbers, min_size=2 * depth, max_size=2 * depth)))
    sizes = draw(st.lists(numbers, min_size=2 * depth, max_size=2 * depth))
    side = [BookLevel(price=price, qty=size) for price, size in zip(prices, sizes, strict=True)]
    return Book(
        symbol="BTCUSDT",
        ts_ms=START_MS,
        venue="BINANCE",
        depth=depth,
        bids=tuple(reversed(side[:depth])),
        asks=tuple(side[depth:]),
    )


# An independent reference: exact rationals, the side walked by cumulated quantity.
def reference_impact(side: Sequence[BookLevel], qty_ref: Fraction) -> tuple[int, bool]:
    held = [(Fraction(level.price), Fraction(level.qty)) for level in side]
    if sum(qty for _, qty in held) < qty_ref:
        return 500, True
    cost, before = Fraction(0), Fraction(0)
    for price, qty in held:
        cost += price * (min(before + qty, qty_ref) - min(before, qty_ref))
        before += qty
    vwap, best = cost / qty_ref, held[0][0]
    return round(abs(vwap - best) / best * 10_000), False


def reference_wall(side: Sequence[BookLevel]) -> int:
    sizes = [Fraction(level.qty) for level in side]
    return round(max(sizes) / median(sizes) * 1_000) if len(sizes) >= 3 else 1_000


@pytest.mark.proves("R11", "R12", "R13", "R14")
@given(book=books(), qty_ref=numbers)
def test_formulas_agree_with_an_exact_reference(book: Book, qty_ref: Decimal) -> None:
    bids, asks = (sum(Fraction(level.qty) for level in side) for side in (book.bids, book.asks))
    imbalance = (bids - asks) / (bids + asks + Fraction("1e-8")) * 10_000

    try:
        snapshot = build_l2_snapshot(book, qty_ref=qty_ref)
    except InvalidField as error:
        assert error.field.startswith(("impact", "wall"))  # noqa: PT017 - beyond 32 bits
        return

    assert Fraction(snapshot.depth_bid_qty_top_n) == bids
    assert snapshot.depth_imbalance_top_n_bps == round(imbalance)
    assert -10_000 <= snapshot.depth_imbalance_top_n_bps <= 10_000
    assert (
        snapshot.impact_buy_top_n_bps,
        snapshot.impact_buy_top_n_insufficient_depth,
    ) == reference_impact(book.asks, Fraction(qty_ref))
    assert (
        snapshot.impact_sell_top_n_bps,
        snapshot.impact_sell_top_n_insufficient_depth,
    ) == reference_impact(book.bids, Fraction(qty_ref))
    assert snapshot.wall_bid_score_top_n_x1000 == reference_wall(book.bids)
    assert snapshot.wall_ask_score_top_n_x1000 == reference_wall(book.asks)


@pytest.mark.proves("R11", "R12", "R14")
@given(book=books(), qty_ref=numbers)
def test_mirrored_book_has_the_mirrored_snapshot(book: Book, qty_ref: Decimal) -> None:
    """Swapping the quantities of the sides turns the imbalance around and swaps the walls."""
    sizes = [[level.qty for level in side] for side in (book.asks, book.bids)]
    bids, asks = (
        tuple(structs.replace(level, qty=size) for level, size in zip(side, swapped, strict=True))
        for side, swapped in zip((book.bids, book.asks), sizes, strict=True)
    )
    mirrored = structs.replace(book, bids=bids, asks=asks)
    try:
        one, other = (build_l2_snapshot(each, qty_ref=qty_ref) for each in (book, mirrored))
    except InvalidField:
        return

    assert one.depth_imbalance_top_n_bps == -other.depth_imbalance_top_n_bps
    assert one.depth_bid_qty_top_n == other.depth_ask_qty_top_n
    assert one.wall_bid_score_top_n_x1000 == other.wall_ask_score_top_n_x1000
    assert one.impact_buy_top_n_insufficient_depth == other.impact_sell_top_n_insufficient_depth


def test_json_of_a_snapshot_has_the_seeds_names() -> None:
    fields = to_json(snapshot_of("normal"))

    assert fields["depth_bid_qty_topN"] == "3.07"
    assert fields["impact_buy_topN_insufficient_depth"] == 0
