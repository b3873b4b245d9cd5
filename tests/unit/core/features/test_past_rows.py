"""Proves that rows kept from earlier readings never change what a reading gives."""

import contextlib
import random
from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
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
    close_ms,
    delayed,
    quote,
    wave,
)

from detent.contracts.calls.feature import MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import DetentError
from detent.contracts.market import Bar, Book, Quote
from detent.core.features import model_input, past_rows
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, derived, feature
from detent.core.features.history import SymbolHistory
from detent.core.features.market_state import MarketState
from detent.core.features.model_input import build_model_input
from detent.core.features.past_rows import (
    BARS_BEHIND_MAX,
    PastRow,
    PastRows,
    names_read_again,
    past_rows_of,
    rows_read,
)
from detent.core.features.rows import RowReader

ENGINES = (READY_MADE, FROM_QUOTES, WITH_BOOKS, QUOTES_AND_BOOKS)
Item = Bar | Quote | Book


def windowed(engine: EngineConfig, *, window_rows: int = 3) -> FeatureSet:
    """Give a set that reads quote, book and snapshot at past bars, and series of series."""
    quick = structs.replace(engine, atr_period=2, range_horizon=2, max_bars=40)
    features = [
        feature(FeatureTransform.NATR_PCT),
        feature(FeatureTransform.RETURN_PCT, 2),
        derived(FeatureTransform.ROLLING_MEAN, "natr_pct", window_bars=2),
        derived(FeatureTransform.ROLLING_STD, "natr_pct_mean_2", window_bars=2),
        derived(FeatureTransform.LAG, "return_pct_2", window_bars=1),
    ]
    if engine.bar_source is BarSource.FROM_QUOTES:
        features.append(feature(FeatureTransform.IMBALANCE_L1))
        features.append(derived(FeatureTransform.ROLLING_MEAN, "imbalance_l1", window_bars=2))
    if engine.book is not None:
        features.append(feature(FeatureTransform.DEPTH_IMBALANCE))
    return FeatureSet(
        name="windowed", features=tuple(features), engine=quick, window_rows=window_rows
    )


def event_of(item: Item) -> MarketEvent:
    if isinstance(item, Bar):
        return MarketEvent(bar=item)
    return MarketEvent(quote=item) if isinstance(item, Quote) else MarketEvent(book=item)


def drawn_items(engine: EngineConfig, seed: int) -> list[Item]:
    """Draw bars or quotes, late ones and gaps among them, with books where they are read."""
    draw = random.Random(seed)
    items: list[Item] = []
    for index in range(20):
        if draw.random() < 0.05:
            continue
        at_ms = START_MS + index * MINUTE_MS
        if engine.book is not None:
            bids = [("99", str(draw.randrange(1, 9))), ("98", "2")]
            items.append(book(at_ms + draw.randrange(1, MINUTE_MS), bids))
        if engine.bar_source is BarSource.READY_MADE:
            price = str(draw.randrange(9_000, 11_000) / 100)
            late_ms = draw.choice([None, None, None, MINUTE_MS // 2, 2 * MINUTE_MS])
            items.append(delayed(bar(index, price), late_ms))
            continue
        for offset_ms in sorted(draw.sample(range(1, MINUTE_MS), 2)):
            bid, qty = draw.randrange(90, 110), str(draw.randrange(1, 9))
            one = quote(at_ms + offset_ms, str(bid), str(bid + 1), bid_qty=qty)
            items.append(delayed(one, draw.choice([None, None, None, MINUTE_MS])))
    return items


def instants_of(seed: int) -> list[int]:
    draw = random.Random(seed)
    closes = [close_ms(index) for index in range(20)]
    return [*closes, *(close - draw.randrange(1, MINUTE_MS) for close in closes)]


def differing_instants(feature_set: FeatureSet, items: Iterable[Item], seed: int) -> set[int]:
    """List the instants at which a state that was read before answers unlike a fresh one."""
    kept, taken, differing = MarketState([feature_set]), [], set()
    draw = random.Random(seed)
    for item in items:
        with contextlib.suppress(DetentError):
            kept.take(event_of(item))
            taken.append(item)
        kept.refresh()
        fresh = MarketState([feature_set])
        for before in taken:
            fresh.take(event_of(before))
        fresh.refresh()
        for at_ms in draw.sample(instants_of(seed), 8):
            view = draw.choice(list(SnapshotView))
            answers = [
                state.model_input(feature_set, SYMBOL, as_of_ts_ms=at_ms, view=view)
                for state in (kept, fresh)
            ]
            if answers[0] != answers[1]:
                differing.add(at_ms)
    return differing


@pytest.mark.parametrize("engine", ENGINES, ids=["bars", "quotes", "bars+books", "quotes+books"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_kept_rows_give_what_a_fresh_state_gives_at_every_instant(
    engine: EngineConfig, seed: int
) -> None:
    feature_set = windowed(engine)

    assert differing_instants(feature_set, drawn_items(engine, seed), seed) == set()


class IgnoresTheBar(RowReader):
    """Wrong: a row is kept by its distance from the newest bar, whichever that was."""

    def _row(self, back: int) -> PastRow:
        return self._past.setdefault(-back, PastRow())


class IgnoresTheInstant(RowReader):
    """Wrong: what was read between two bars is kept as the row of the bar before it."""

    @property
    def _back_kept(self) -> int:
        return 0

    @_back_kept.setter
    def _back_kept(self, back: int) -> None:
        del back


@pytest.mark.parametrize("wrong", [IgnoresTheBar, IgnoresTheInstant])
def test_comparison_finds_rows_that_are_kept_under_the_wrong_instant(
    monkeypatch: pytest.MonkeyPatch, wrong: type[RowReader]
) -> None:
    monkeypatch.setattr(model_input, "RowReader", wrong)
    feature_set = windowed(FROM_QUOTES)
    found = [differing_instants(feature_set, drawn_items(FROM_QUOTES, at), at) for at in range(5)]

    assert any(found)


def test_new_bar_computes_one_new_row(monkeypatch: pytest.MonkeyPatch) -> None:
    feature_set = windowed(READY_MADE, window_rows=8)
    packed: list[int] = []

    class Counts(RowReader):
        def _pack(self, back: int) -> bytes:
            packed.append(back)
            return super()._pack(back)

    monkeypatch.setattr(model_input, "RowReader", Counts)
    state = MarketState([feature_set])
    for one in wave(20):
        packed.clear()
        state.take(MarketEvent(bar=one))
        state.refresh()

    assert packed == [0]


def test_kept_rows_do_not_grow_with_the_bars() -> None:
    feature_set = windowed(READY_MADE)
    history, past = SymbolHistory(SYMBOL, feature_set.engine), PastRows(feature_set)
    counts = []
    for one in wave(300):
        history.add_bar(one)
        outcome = build_model_input(
            feature_set, history, as_of_ts_ms=one.ts_ms, view=SnapshotView.INPUT, past=past
        )
        counts.append(len(past))

    assert isinstance(outcome, ModelInput)
    assert max(counts) == counts[-1] <= rows_read(feature_set) + BARS_BEHIND_MAX


def test_reading_far_behind_the_newest_keeps_nothing() -> None:
    feature_set = windowed(READY_MADE)
    past = PastRows(feature_set)
    past.as_of_bar(100)[100] = PastRow()
    past.as_of_bar(100 - BARS_BEHIND_MAX - 1)[1] = PastRow()

    assert len(past) == 1


def test_rows_are_kept_only_where_they_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = feature(FeatureTransform.RETURN_PCT, 2)
    product = derived(FeatureTransform.PRODUCT, "return_pct_2", "close")
    once = FeatureSet(name="once", features=(plain, product), engine=READY_MADE)
    again = windowed(READY_MADE)
    expected = {"natr_pct", "natr_pct_mean_2", "return_pct_2"}

    assert past_rows_of(once) is None
    assert past_rows_of(again) is not None
    assert names_read_again(again) == expected

    monkeypatch.setattr(past_rows, "VALUES_KEPT_MAX", rows_read(again) * len(expected) - 1)
    assert past_rows_of(again) is None


def test_row_without_a_value_stays_without_one() -> None:
    """The quote of a past bar is absent for ever, and so is every input that reads it."""
    spread = feature(FeatureTransform.SPREAD_PCT)
    feature_set = FeatureSet(
        name="quoted",
        features=(spread,),
        engine=structs.replace(READY_MADE, atr_period=2, range_horizon=2),
        window_rows=2,
    )
    state = MarketState([feature_set])
    answers = []
    for index in range(4):
        if index > 1:
            at_ms = close_ms(index) - 1
            state.take(MarketEvent(quote=quote(at_ms, "99", str(Decimal(101 + index)))))
        state.take(MarketEvent(bar=bar(index, "100")))
        state.refresh()
        answers.append(
            state.model_input(
                feature_set, SYMBOL, as_of_ts_ms=close_ms(index), view=SnapshotView.INPUT
            )
        )

    assert [isinstance(answer, ModelInput) for answer in answers] == [False, False, False, True]
