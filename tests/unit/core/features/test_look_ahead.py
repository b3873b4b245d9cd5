"""Proves that no reading of the past depends on what came later."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.look_ahead import changed_instants
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    QUOTES_AND_BOOKS,
    READY_MADE,
    START_MS,
    SYMBOL,
    WITH_BOOKS,
    bar,
    book,
    delayed,
    quote,
    wave,
)

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.market import Bar, Book, Quote
from detent.core.features import model_input, rows
from detent.core.features.book_history import BookHistory
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import (
    BOOK_TRANSFORMS,
    FeatureSpec,
    FeatureTransform,
    derived,
    feature,
)
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input
from detent.core.features.snapshot import mid_price


def short_set(engine: EngineConfig) -> FeatureSet:
    quick = structs.replace(engine, atr_period=2, range_horizon=2)
    features = [feature(FeatureTransform.RETURN_PCT, 1), feature(FeatureTransform.NATR_PCT)]
    if engine.book is not None:
        features.append(feature(FeatureTransform.DEPTH_IMBALANCE))
    return FeatureSet(name="short", features=tuple(features), engine=quick)


OF_TRADES = (
    feature(FeatureTransform.VOLUME),
    feature(FeatureTransform.FUNDING_RATE_BPS),
    feature(FeatureTransform.VOLUME_ZSCORE, 2),
    feature(FeatureTransform.VWAP_DISTANCE_PCT, 2),
)
ALL_TRANSFORMS: tuple[FeatureSpec, ...] = (
    *(
        feature(transform)
        for transform in (
            FeatureTransform.CLOSE,
            FeatureTransform.HIGH,
            FeatureTransform.LOW,
            FeatureTransform.NATR_PCT,
            FeatureTransform.SUM_ABS_RETURNS_PCT,
            FeatureTransform.NET_RETURN_PCT,
            FeatureTransform.RANGE_SCORE_CAPPED,
            FeatureTransform.SPREAD_PCT,
            FeatureTransform.IMBALANCE_L1,
            FeatureTransform.PRICE_MID,
            FeatureTransform.PRICE_BID,
            FeatureTransform.PRICE_ASK,
            FeatureTransform.SPREAD_BPS,
        )
    ),
    *(
        feature(transform, 2)
        for transform in (
            FeatureTransform.RETURN_PCT,
            FeatureTransform.DEVIATION_PCT,
            FeatureTransform.CLOSE_ZSCORE,
            FeatureTransform.REALISED_VOL_PCT_PER_BAR,
            FeatureTransform.REALISED_VOL_PCT_PER_YEAR,
        )
    ),
    feature(FeatureTransform.WILDER_ATR, 1),
    feature(FeatureTransform.WILDER_NATR_PCT, 1),
    derived(FeatureTransform.ROLLING_MEAN, "spread_pct", window_bars=2),
    derived(FeatureTransform.ROLLING_STD, "price_mid", window_bars=2),
    derived(FeatureTransform.ROLLING_TREND, "close", window_bars=3),
    derived(FeatureTransform.RATE_OF_CHANGE, "high", window_bars=2),
    derived(FeatureTransform.LAG, "natr_pct", window_bars=1),
    derived(FeatureTransform.PRODUCT, "imbalance_l1", "close"),
)


def sets_of_each(engine: EngineConfig) -> list[FeatureSet]:
    """Give a set of two rows per transform, so that one that is absent hides no other."""
    quick = structs.replace(engine, atr_period=2, range_horizon=2)
    ready_made = engine.bar_source is BarSource.READY_MADE
    specs = (*ALL_TRANSFORMS, *OF_TRADES) if ready_made else ALL_TRANSFORMS
    known = {spec.name: spec for spec in specs}
    return [
        FeatureSet(
            name="one",
            features=(
                spec,
                *(known[source] for source in spec.sources if source in known),
            ),
            engine=quick,
            window_rows=2,
        )
        for spec in specs
    ]


def read_each(history: SymbolHistory, as_of_ts_ms: int) -> object:
    sets = sets_of_each(FROM_QUOTES if is_from_quotes(history) else READY_MADE)
    return [
        build_model_input(one, history, as_of_ts_ms=as_of_ts_ms, view=SnapshotView.FULL)
        for one in sets
    ]


def is_from_quotes(history: SymbolHistory) -> bool:
    return history.engine.bar_source is BarSource.FROM_QUOTES


def read_input(history: SymbolHistory, as_of_ts_ms: int) -> object:
    feature_set = short_set(history.engine)
    return build_model_input(feature_set, history, as_of_ts_ms=as_of_ts_ms, view=SnapshotView.FULL)


def read_newest(history: SymbolHistory, as_of_ts_ms: int) -> object:
    """Leak: the newest data under the name of an older instant."""
    del as_of_ts_ms
    return read_input(history, history.reach_ts_ms)


class FoldsLateQuotes(SymbolHistory):
    """Leak: a late quote goes into the last finished bar."""

    def add_quote(self, quote: Quote) -> bool:
        if quote.ts_ms >= self.reach_ts_ms or not self._closed:
            return super().add_quote(quote)
        last, mid = self._closed[-1], mid_price(quote)
        late = structs.replace(
            last.bar, high=max(last.bar.high, mid), low=min(last.bar.low, mid), close=mid
        )
        self._closed[-1] = structs.replace(last, bar=late)
        return True


class TakesLateBooks(BookHistory):
    """Leak: a book that comes late is taken in the place of one that was read."""

    def add(self, book: Book, *, known_ts_ms: int) -> bool:
        del known_ts_ms
        self._books.append(book)
        self._books = type(self._books)(sorted(self._books, key=lambda held: held.ts_ms))
        return True


@st.composite
def arrivals(draw: st.DrawFn, *, books: bool = False) -> list[Bar | Quote | Book]:
    """Give bars, quotes and books: early, late, twice, with gaps, and known with delay."""
    events: list[Bar | Quote | Book] = []
    delays_ms = st.none() | st.integers(0, 3 * MINUTE_MS)
    for _ in range(draw(st.integers(4, 40))):
        price = draw(st.integers(100, 200))
        if books and draw(st.booleans()):
            offset_ms = draw(st.integers(0, 12 * MINUTE_MS // 10_000)) * 10_000
            bids = [(str(price), str(draw(st.integers(1, 3))))]
            events.append(book(START_MS + offset_ms, bids, [(str(price + 2), "1")]))
        elif draw(st.booleans()):
            index = draw(st.integers(0, 12))
            plain = bar(index, str(price), high=str(price + 5), low=str(price - 5))
            told = draw(st.integers(-9, 9))
            events.append(
                structs.replace(
                    plain,
                    volume=Decimal(abs(told)),
                    vwap=Decimal(price + 1) if told else None,
                    funding_rate=Decimal(told) / 10_000,
                )
            )
        else:
            offset_ms = draw(st.integers(0, 12 * MINUTE_MS // 10_000)) * 10_000
            events.append(quote(START_MS + offset_ms, str(price), str(price + 2)))
        events[-1] = delayed(events[-1], draw(delays_ms))
    if draw(st.booleans()):
        events.sort(key=lambda event: event.ts_ms)
    return events


@pytest.mark.parametrize("engine", [READY_MADE, FROM_QUOTES])
@given(events=arrivals())
def test_no_later_event_changes_an_earlier_reading(
    engine: EngineConfig, events: list[Bar | Quote | Book]
) -> None:
    history = SymbolHistory(SYMBOL, short_set(engine).engine)

    assert changed_instants(history, events, read_input) == set()


@pytest.mark.parametrize("engine", [WITH_BOOKS, QUOTES_AND_BOOKS])
@given(events=arrivals(books=True))
def test_no_later_book_changes_an_earlier_reading(
    engine: EngineConfig, events: list[Bar | Quote | Book]
) -> None:
    history = SymbolHistory(SYMBOL, short_set(engine).engine)

    assert changed_instants(history, events, read_input) == set()


def test_every_transform_is_read_for_the_future_it_must_not_know() -> None:
    read = {spec.transform for spec in (*ALL_TRANSFORMS, *OF_TRADES)}

    # A caller feature comes with the question and has no past that a bar could change; what is
    # read from the book has a test of its own, with books that come late.
    assert set(FeatureTransform) - read == {FeatureTransform.CALLER, *BOOK_TRANSFORMS}


@pytest.mark.parametrize("engine", [READY_MADE, FROM_QUOTES])
@settings(max_examples=25)
@given(events=arrivals())
def test_no_later_event_changes_an_earlier_value_of_any_transform(
    engine: EngineConfig, events: list[Bar | Quote]
) -> None:
    history = SymbolHistory(SYMBOL, short_set(engine).engine)

    assert changed_instants(history, events, read_each) == set()


def test_every_transform_has_a_value_in_the_market_that_the_checker_sees() -> None:
    """A transform that is absent throughout would pass for one that knows no future."""
    history = SymbolHistory(SYMBOL, short_set(READY_MADE).engine)
    events: list[Bar | Quote] = []
    for one in wave(24):
        events.append(quote(one.ts_ms - 1, str(one.close), str(one.close + 1)))
        rate = Decimal(one.ts_ms % 7) / 10_000
        events.append(structs.replace(one, vwap=one.close, funding_rate=rate))

    assert changed_instants(history, events, read_each) == set()

    found = read_each(history, history.watermark_ts_ms)

    assert isinstance(found, list)
    assert all(isinstance(outcome, ModelInput) for outcome in found)


class ReadsOneBarAhead(rows.RowReader):
    """Leak: an earlier row is given the bar after it."""

    def value(self, spec: FeatureSpec, back: int) -> float | None:
        return super().value(spec, max(back - 1, 0))


def test_checker_finds_a_row_that_reads_one_bar_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of a bar inside a window must be what stood alone at that bar's close."""
    windowed = sets_of_each(READY_MADE)[0]
    single = structs.replace(windowed, window_rows=1)
    history = SymbolHistory(SYMBOL, single.engine)
    for one in wave(6):
        history.add_bar(one)

    def older_row_differs() -> bool:
        at_ms = history.watermark_ts_ms
        both = build_model_input(windowed, history, as_of_ts_ms=at_ms, view=SnapshotView.INPUT)
        alone = build_model_input(
            single, history, as_of_ts_ms=at_ms - MINUTE_MS, view=SnapshotView.INPUT
        )
        assert isinstance(both, ModelInput)
        assert isinstance(alone, ModelInput)
        return both.values[: len(alone.values)] != alone.values

    assert not older_row_differs()
    monkeypatch.setattr(model_input, "RowReader", ReadsOneBarAhead)
    assert older_row_differs()


def test_checker_finds_a_reading_of_the_newest_data() -> None:
    """The checker is worth nothing unless it catches a leak that was planted."""
    history = SymbolHistory(SYMBOL, short_set(READY_MADE).engine)

    assert changed_instants(history, wave(6), read_newest) != set()


def test_checker_finds_a_late_quote_in_the_wrong_bar() -> None:
    history = FoldsLateQuotes(SYMBOL, short_set(FROM_QUOTES).engine)
    offsets_ms = [0, 60_000, 120_000, 180_000, 185_000, 170_000]
    events = [
        quote(START_MS + offset_ms, str(90 + index), str(92 + index * 2))
        for index, offset_ms in enumerate(offsets_ms)
    ]

    assert START_MS + 180_000 in changed_instants(history, events, read_input)


def test_checker_finds_a_late_book_in_the_place_of_one_that_was_read() -> None:
    history = SymbolHistory(SYMBOL, short_set(QUOTES_AND_BOOKS).engine)
    assert history.engine.book is not None
    history.books = TakesLateBooks(history.engine.book)
    minutes = [
        event
        for index in range(8)
        for event in (
            book(START_MS + index * MINUTE_MS // 2),
            quote(START_MS + index * MINUTE_MS // 2, str(90 + index), "101"),
        )
    ]
    late = book(START_MS + 7 * MINUTE_MS // 2 - 5, [("99", "30")], [("101", "1")])

    assert changed_instants(history, [*minutes, late], read_input) != set()


class ForgetsWhenBooksWereKnown(BookHistory):
    """Leak: a book that is known later is read as if it had been known as it happened."""

    def add(self, book: Book, *, known_ts_ms: int) -> bool:
        is_new = super().add(book, known_ts_ms=known_ts_ms)
        if is_new:
            self._books[-1] = structs.replace(book, available_ts_ms=None)
        return is_new


def test_checker_finds_a_book_that_is_read_before_it_was_known() -> None:
    """It comes after the bar that it would have changed, and is not late: it was known later."""
    minutes = [event for one in wave(6) for event in (book(one.ts_ms - 9), one)]
    last = minutes[-1]
    later = delayed(book(last.ts_ms - 5, [("99", "30")], [("101", "1")]), MINUTE_MS)
    leaking, sound = (SymbolHistory(SYMBOL, short_set(WITH_BOOKS).engine) for _ in range(2))
    assert sound.engine.book is not None
    leaking.books = ForgetsWhenBooksWereKnown(sound.engine.book)
    at_ms = last.ts_ms + MINUTE_MS // 2

    def readings(history: SymbolHistory) -> list[object]:
        for event in minutes:
            history.add(event)
        before = read_input(history, at_ms)
        assert history.add(later)
        return [before, read_input(history, at_ms)]

    before, after = readings(leaking)
    assert before != after
    before, after = readings(sound)
    assert before == after
