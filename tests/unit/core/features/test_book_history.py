"""Proves what becomes of order books: taken or refused, read as of an instant, given to models."""

import struct
from decimal import Decimal

import pytest
from msgspec import structs
from tests.unit.core.features.book_scenarios import SCENARIOS
from tests.unit.core.features.market import (
    MINUTE_MS,
    QUOTES_AND_BOOKS,
    READY_MADE,
    START_MS,
    SYMBOL,
    WITH_BOOKS,
    bar,
    bars_of,
    book,
    close_ms,
    delayed,
    quote,
)

from detent.contracts.calls.feature import MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import DataConflict, DataLate, InvalidField
from detent.contracts.reasons import Reason
from detent.core.features.book import build_l2_snapshot
from detent.core.features.book_history import LEVELS_HELD_MAX, BookHistory
from detent.core.features.engine import BookConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.history import SymbolHistory
from detent.core.features.market_state import MarketState
from detent.core.features.model_input import build_model_input, snapshot_hash

QTY_REF = BookConfig().l2_qty_ref
BOOK_SET = FeatureSet(
    name="book",
    features=(
        feature(FeatureTransform.RETURN_PCT, 1),
        feature(FeatureTransform.DEPTH_IMBALANCE),
        feature(FeatureTransform.IMPACT_BUY_PCT),
        feature(FeatureTransform.IMPACT_SELL_PCT),
        feature(FeatureTransform.WALL_BID_SCORE),
        feature(FeatureTransform.WALL_ASK_SCORE),
        feature(FeatureTransform.INSUFFICIENT_DEPTH_BUY),
        feature(FeatureTransform.INSUFFICIENT_DEPTH_SELL),
    ),
    engine=WITH_BOOKS,
)
BARE_SET = FeatureSet(name="bare", features=BOOK_SET.features[:1], engine=READY_MADE)


def history_of(*books: object) -> SymbolHistory:
    history = SymbolHistory(SYMBOL, WITH_BOOKS)
    for one in books:
        assert history.add_book(one)  # type: ignore[arg-type]
    return history


def read(history: SymbolHistory, as_of_ts_ms: int, feature_set: FeatureSet = BOOK_SET) -> object:
    return build_model_input(feature_set, history, as_of_ts_ms=as_of_ts_ms, view=SnapshotView.FULL)


def test_last_book_before_the_instant_is_read() -> None:
    """By the rule of quotes: a book at the instant itself is not known yet."""
    books = [
        book(START_MS + offset, [("99", str(size))], [("101", "1")])
        for offset, size in ((10, 1), (20, 2), (30, 3))
    ]
    history = history_of(*books)

    def size_at(offset_ms: int) -> Decimal | None:
        found = history.window(START_MS + offset_ms, bars_wanted=1).l2_snapshot
        return None if found is None else found.depth_bid_qty_top_n

    assert [size_at(offset) for offset in (10, 11, 20, 30, 31)] == [None, 1, 1, 2, 3]


def test_repeated_book_is_known() -> None:
    history = history_of(book(START_MS))

    assert not history.add_book(book(START_MS, [("99.0", "3.00"), ("98", "2")]))


@pytest.mark.parametrize(
    ("wrong", "kind", "field"),
    [
        (book(START_MS + 9), DataLate, "ts_ms"),
        (book(START_MS + 10, [("99", "1")], [("100", "1")]), DataConflict, "ts_ms"),
        (book(START_MS + 11, venue="COINBASE"), InvalidField, "venue"),
    ],
)
def test_book_out_of_place_is_refused(wrong: object, kind: type[InvalidField], field: str) -> None:
    history = history_of(book(START_MS + 10))
    seen = history.window(START_MS + 60, bars_wanted=1)

    with pytest.raises(InvalidField) as caught:
        history.add_book(wrong)  # type: ignore[arg-type]

    assert type(caught.value) is kind
    assert caught.value.field == field
    assert history.window(START_MS + 60, bars_wanted=1) == seen


def test_book_before_a_closed_bar_is_late() -> None:
    history = history_of(book(START_MS))
    history.add_bar(bar(0, "100"))

    with pytest.raises(InvalidField, match="the book is late"):
        history.add_book(book(close_ms(0) - 1))
    assert history.add_book(book(close_ms(0)))


def test_book_known_later_is_read_from_then_on() -> None:
    first, second = book(START_MS + 10, [("99", "1")], [("101", "1")]), book(START_MS + 20)
    history = history_of(first, delayed(second, 100))

    def size_at(offset_ms: int) -> Decimal | None:
        found = history.window(START_MS + offset_ms, bars_wanted=1).l2_snapshot
        return None if found is None else found.depth_bid_qty_top_n

    assert [size_at(offset) for offset in (20, 21, 119, 120)] == [1, 1, 1, 5]


def test_old_book_is_late_unless_it_was_known_after_the_reach() -> None:
    """It changes no reading up to the reach, so there is no reason to refuse it."""
    history = history_of()
    history.add_bar(bar(0, "100"))

    with pytest.raises(DataLate):
        history.add_book(delayed(book(close_ms(0) - 5), 5))
    assert history.add_book(delayed(book(close_ms(0) - 5), 6))
    assert history.window(close_ms(0), bars_wanted=1).l2_snapshot is None
    assert history.window(close_ms(0) + 1, bars_wanted=1).l2_snapshot is not None


def test_repeated_book_that_claims_another_time_is_known_and_changes_nothing() -> None:
    history = history_of(delayed(book(START_MS), 50))

    assert not history.add_book(book(START_MS))
    assert history.window(START_MS + 49, bars_wanted=1).l2_snapshot is None


def test_book_of_another_symbol_or_of_no_use_is_refused() -> None:
    with pytest.raises(InvalidField, match="symbol"):
        history_of().add_book(book(START_MS, symbol="ETHUSDT"))
    with pytest.raises(InvalidField, match="no feature reads it"):
        SymbolHistory(SYMBOL, READY_MADE).add_book(book(START_MS))


def test_number_of_levels_held_is_bounded() -> None:
    """What is no longer held is not taken for what never was."""
    books = BookHistory(BookConfig())
    for offset in range(LEVELS_HELD_MAX):
        books.add(book(START_MS + offset), known_ts_ms=0)
    kept = LEVELS_HELD_MAX // 5

    assert books.before(START_MS + LEVELS_HELD_MAX)[1]
    assert books.before(START_MS + LEVELS_HELD_MAX - kept + 1)[1]
    assert books.before(START_MS + LEVELS_HELD_MAX - kept) == (None, False)


def test_empty_books_are_bounded_and_a_deep_one_is_held() -> None:
    books = BookHistory(BookConfig())
    for offset in range(LEVELS_HELD_MAX + 3):
        books.add(book(START_MS + offset, [], []), known_ts_ms=0)

    assert books.before(START_MS + 3) == (None, False)
    assert books.before(START_MS + 4)[1]


def test_book_at_a_close_outlives_the_books_held() -> None:
    history = history_of(book(close_ms(0) - 1))
    history.add_bar(bar(0, "100"))
    seen = history.window(close_ms(0), bars_wanted=1)
    for offset in range(LEVELS_HELD_MAX):
        history.add_book(book(close_ms(0) + offset, [("98", "1")], [("99", "1")]))

    assert seen.l2_snapshot == build_l2_snapshot(book(close_ms(0) - 1), qty_ref=QTY_REF)
    assert history.window(close_ms(0), bars_wanted=1) == seen


def test_data_of_quotes_reach_as_far_as_the_books() -> None:
    history = SymbolHistory(SYMBOL, QUOTES_AND_BOOKS)
    history.add_quote(quote(START_MS + 50))
    before = history.reach_ts_ms
    history.add_book(book(START_MS + 20))

    assert (before, history.reach_ts_ms) == (0, START_MS + 20)


@pytest.mark.proves("R10", "R11", "R12", "R13", "R14", "R15")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_model_is_given_what_the_book_says(scenario: str) -> None:
    found = structs.replace(SCENARIOS[scenario], ts_ms=close_ms(1) - 1)
    history = history_of(found)
    for one in bars_of(["100", "101"]):
        history.add_bar(one)
    expected = build_l2_snapshot(found, qty_ref=QTY_REF)

    row = read(history, close_ms(1))

    assert isinstance(row, ModelInput)
    assert row.l2_snapshot == expected
    assert row.snapshot is not None
    assert row.snapshot_hashes == (snapshot_hash(row.snapshot), snapshot_hash(expected))
    values = struct.unpack("<8f", row.values)
    assert values == pytest.approx(
        (
            1.0,
            expected.depth_imbalance_top_n_bps / 10_000,
            expected.impact_buy_top_n_bps / 100,
            expected.impact_sell_top_n_bps / 100,
            expected.wall_bid_score_top_n_x1000 / 1_000,
            expected.wall_ask_score_top_n_x1000 / 1_000,
            0.0,
            0.0,
        )
    )


@pytest.mark.proves("R13")
def test_flags_reach_the_model() -> None:
    history = history_of(book(close_ms(1) - 1, [("99", "0.001")], [("101", "1")]))
    for one in bars_of(["100", "101"]):
        history.add_bar(one)

    row = read(history, close_ms(1))

    assert isinstance(row, ModelInput)
    assert struct.unpack("<8f", row.values)[-5:] == (5.0, 1.0, 1.0, 0.0, 1.0)


@pytest.mark.proves("R15")
def test_reference_quantity_changes_the_features_hash() -> None:
    hashes = set()
    for text in ("0.003", "0.004"):
        engine = structs.replace(WITH_BOOKS, book=BookConfig(l2_qty_ref=Decimal(text)))
        history = SymbolHistory(SYMBOL, engine)
        history.add_book(book(close_ms(1) - 1))
        for one in bars_of(["100", "101"]):
            history.add_bar(one)
        row = read(history, close_ms(1), structs.replace(BOOK_SET, engine=engine))
        assert isinstance(row, ModelInput)
        hashes.add((row.features_hash, row.snapshot_hashes[1]))

    assert len({one for pair in hashes for one in pair}) == 4


@pytest.mark.proves("R19")
@pytest.mark.parametrize(
    ("books", "reason"),
    [
        pytest.param([], Reason.FEATURES_MISSING, id="none"),
        pytest.param([book(close_ms(1))], Reason.FEATURES_MISSING, id="not yet known"),
        pytest.param([book(close_ms(0) - 1)], Reason.FEATURES_STALE, id="older than a bar"),
        pytest.param(
            [book(close_ms(1) - 1, [("1", "1")], [("2", "0.000001")])],
            None,
            id="thin is no gap",
        ),
        pytest.param(
            [
                book(
                    close_ms(1) - 1,
                    [("1", "1")] * 1,
                    [("2", "0.001")],
                ),
            ],
            None,
            id="one level",
        ),
        pytest.param(
            [
                book(
                    close_ms(1) - 1,
                    [("1", "0.001"), ("0.9", "1")],
                    [("2", "0.001"), ("9000000", "1")],
                ),
            ],
            Reason.FEATURES_MISSING,
            id="beyond what can be written",
        ),
    ],
)
def test_book_that_cannot_be_read_is_never_a_zero(
    books: list[object], reason: Reason | None
) -> None:
    history = history_of(*books)
    for one in bars_of(["100", "101"]):
        history.add_bar(one)

    row = read(history, close_ms(1))

    assert isinstance(row, ModelInput) if reason is None else row is reason


def test_set_that_reads_no_book_is_untouched_by_one() -> None:
    """Its inputs and hashes are those of before there were books."""
    state, alone = MarketState([BARE_SET, BOOK_SET]), MarketState([BARE_SET])
    state.take(MarketEvent(book=book(close_ms(1) - MINUTE_MS)))
    for one in bars_of(["100", "101"]):
        state.take(MarketEvent(bar=one))
        alone.take(MarketEvent(bar=one))
    rows = [
        each.model_input(BARE_SET, SYMBOL, as_of_ts_ms=close_ms(1), view=SnapshotView.FULL)
        for each in (state, alone)
    ]

    assert rows[0] == rows[1]
    assert isinstance(rows[0], ModelInput)
    assert rows[0].l2_snapshot is None
    assert len(rows[0].snapshot_hashes) == 1


def test_state_refuses_late_books_and_takes_none_that_nobody_reads() -> None:
    state = MarketState([BOOK_SET])
    assert state.take(MarketEvent(book=book(START_MS + 1)))
    assert not state.take(MarketEvent(book=book(START_MS + 1)))
    with pytest.raises(InvalidField, match="late"):
        state.take(MarketEvent(book=book(START_MS)))

    with pytest.raises(InvalidField, match="no feature set held reads them"):
        MarketState([BARE_SET]).take(MarketEvent(book=book(START_MS)))
