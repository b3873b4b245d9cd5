"""Proves that nothing is read before it was known, however early it happened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    READY_MADE,
    START_MS,
    SYMBOL,
    bar,
    book,
    close_ms,
    delayed,
    quote,
    wave,
)
from tests.unit.core.features.test_look_ahead import arrivals, read_input

from detent.contracts.calls.feature import MarketEvent, SnapshotView
from detent.contracts.errors import DataLate, DetentError, InvalidField
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import Reason
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import direction_bars_v1
from detent.core.features.history import HistoryWindow, SymbolHistory
from detent.core.features.market_state import MarketState
from detent.core.features.offline_rows import iter_model_inputs

MINUTES = direction_bars_v1(MINUTE_MS)
# Every ten seconds, and the millisecond before: where bars close and quotes happen.
INSTANTS = [START_MS + step * 10_000 - early for step in range(18 * 6) for early in (1, 0)]
Events = list[Bar | Quote]


class ForgetsAvailability(SymbolHistory):
    """Leak: what is known later is read as if it had been known as it happened."""

    def add_bar(self, bar: Bar) -> bool:
        return super().add_bar(structs.replace(bar, available_ts_ms=None))

    def add_quote(self, quote: Quote) -> bool:
        return super().add_quote(structs.replace(quote, available_ts_ms=None))


class ReadsTheNewest(SymbolHistory):
    """Leak: the newest data under the name of an older instant."""

    def window(self, as_of_ts_ms: int, *, bars_wanted: int) -> HistoryWindow:
        newest = super().window(max(as_of_ts_ms, self.reach_ts_ms), bars_wanted=bars_wanted)
        return structs.replace(newest, as_of_ts_ms=as_of_ts_ms)


def fed(history: SymbolHistory, events: Events) -> SymbolHistory:
    """Feed a history; what it refuses is left out."""
    for event in events:
        try:
            if isinstance(event, Bar):
                history.add_bar(event)
            else:
                history.add_quote(event)
        except DetentError:
            pass
    return history


def read_early(history: SymbolHistory, events: Events) -> list[tuple[int, Bar | Quote]]:
    """List what is read before it was known, with the instant.

    A bar is found by its close time among the events, so that a history cannot hide when it
    was known.
    """
    known: dict[int, int] = {}
    for event in events:
        if isinstance(event, Bar):
            known.setdefault(event.ts_ms, event.known_ts_ms)
    found: list[tuple[int, Bar | Quote]] = []
    for instant in INSTANTS:
        window = history.window(instant, bars_wanted=20)
        found += [(instant, one) for one in window.bars if known[one.ts_ms] > instant]
        quotes = [one for one in events if isinstance(one, Quote) and _same(one, window.quote)]
        if quotes and min(one.known_ts_ms for one in quotes) > instant:
            found.append((instant, quotes[0]))
    return found


def _same(quote: Quote, read: Quote | None) -> bool:
    bare = structs.replace(quote, available_ts_ms=None)
    return read is not None and bare == structs.replace(read, available_ts_ms=None)


def bars_first(events: Events) -> Events:
    """Keep one bar per close, as a feed of ready-made bars sends them, in order of time."""
    once = {event.ts_ms: event for event in events if isinstance(event, Bar)}
    quotes = [event for event in events if isinstance(event, Quote)]
    return sorted([*once.values(), *quotes], key=lambda event: event.ts_ms)


@given(events=arrivals())
def test_nothing_is_read_before_it_was_known(events: Events) -> None:
    ordered = bars_first(events)

    assert read_early(fed(SymbolHistory(SYMBOL, READY_MADE), ordered), ordered) == []


def test_checker_finds_what_is_read_too_early() -> None:
    """The checker is worth nothing unless it catches a leak that was planted."""
    late_bar: Events = [bar(0, "100"), delayed(bar(1, "101"), 90_000)]
    late_quote: Events = [delayed(quote(START_MS), 90_000)]
    for events in (late_bar, late_quote):
        assert read_early(fed(ForgetsAvailability(SYMBOL, READY_MADE), events), events) != []
        assert read_early(fed(SymbolHistory(SYMBOL, READY_MADE), events), events) == []


def changed_by_delay(
    history: type[SymbolHistory], engine: EngineConfig, events: Events, which: int, delay_ms: int
) -> list[int]:
    """List the instants before an item was known whose reading changes when it is delayed."""
    later = [*events]
    later[which] = delayed(events[which], delay_ms)
    before, after = fed(history(SYMBOL, engine), events), fed(history(SYMBOL, engine), later)
    instants = [one for one in INSTANTS if one < events[which].known_ts_ms]
    return [one for one in instants if _shown(before, one) != _shown(after, one)]


def test_checker_finds_a_delay_that_changes_the_past() -> None:
    """A reading of the newest data shows the bar early, and then the quote as well."""
    events: Events = [bar(0, "100"), bar(1, "101"), quote(close_ms(1))]
    quick = structs.replace(READY_MADE, atr_period=2, range_horizon=2)

    assert changed_by_delay(ReadsTheNewest, quick, events, 1, MINUTE_MS) != []
    assert changed_by_delay(SymbolHistory, quick, events, 1, MINUTE_MS) == []


def _shown(history: SymbolHistory, instant: int) -> tuple[HistoryWindow, object]:
    return history.window(instant, bars_wanted=20), read_input(history, instant)


@pytest.mark.parametrize("engine", [READY_MADE, FROM_QUOTES])
@given(events=arrivals(), which=st.integers(0, 39), delay_ms=st.integers(1, 5 * MINUTE_MS))
def test_a_longer_delay_changes_nothing_that_was_read_before(
    engine: EngineConfig, events: Events, which: int, delay_ms: int
) -> None:
    quick = structs.replace(engine, atr_period=2, range_horizon=2)

    assert changed_by_delay(SymbolHistory, quick, events, which % len(events), delay_ms) == []


@pytest.mark.parametrize("engine", [READY_MADE, FROM_QUOTES])
@given(events=arrivals())
def test_data_known_as_they_happen_are_read_as_if_nothing_was_said(
    engine: EngineConfig, events: Events
) -> None:
    quick = structs.replace(engine, atr_period=2, range_horizon=2)
    silent = [structs.replace(event, available_ts_ms=None) for event in events]
    said = [structs.replace(event, available_ts_ms=event.ts_ms) for event in events]
    left, right = (fed(SymbolHistory(SYMBOL, quick), one) for one in (silent, said))

    for instant in INSTANTS:
        assert read_input(left, instant) == read_input(right, instant)


def test_delayed_bar_is_served_from_when_it_was_known() -> None:
    history = fed(SymbolHistory(SYMBOL, READY_MADE), [bar(0, "100"), delayed(bar(1, "101"), 700)])

    early = history.window(close_ms(1) + 699, bars_wanted=9)
    known = history.window(close_ms(1) + 700, bars_wanted=9)
    assert [one.ts_ms for one in early.bars] == [close_ms(0)]
    assert [one.ts_ms for one in known.bars] == [close_ms(0), close_ms(1)]
    assert (early.bar_count, known.bar_count) == (1, 2)
    assert (history.watermark_ts_ms, history.reach_ts_ms) == (close_ms(1), close_ms(1) + 700)


def test_bar_is_not_known_before_the_one_in_front_of_it() -> None:
    """Or there would be a hole in the past, and another value once it is filled."""
    events: Events = [bar(0, "100"), delayed(bar(1, "101"), 3 * MINUTE_MS), bar(2, "102")]
    history = fed(SymbolHistory(SYMBOL, READY_MADE), events)

    hole = history.window(close_ms(2), bars_wanted=9)
    whole = history.window(close_ms(4) + 1, bars_wanted=9)
    assert [one.ts_ms for one in hole.bars] == [close_ms(0)]
    assert [one.ts_ms for one in whole.bars] == [close_ms(0), close_ms(1), close_ms(2)]


def test_bar_of_quotes_is_known_once_all_of_them_are() -> None:
    events: Events = [
        quote(START_MS),
        delayed(quote(START_MS + 50_000, "105", "107"), 15_000),
        quote(close_ms(0) + 1),
    ]
    history = fed(SymbolHistory(SYMBOL, FROM_QUOTES), events)

    assert history.window(START_MS + 64_999, bars_wanted=9).bars == ()
    (built,) = history.window(START_MS + 65_000, bars_wanted=9).bars
    assert (built.ts_ms, built.known_ts_ms) == (close_ms(0), START_MS + 65_000)


def test_quote_that_is_not_yet_known_leaves_the_one_before_it() -> None:
    events: Events = [quote(START_MS), delayed(quote(START_MS + 10, "98"), 100)]
    history = fed(SymbolHistory(SYMBOL, READY_MADE), events)

    assert history.window(START_MS + 109, bars_wanted=1).quote == events[0]
    assert history.window(START_MS + 110, bars_wanted=1).quote == events[1]


def test_old_quote_is_late_unless_it_was_known_after_the_reach() -> None:
    """It changes no reading up to the reach, so there is no reason to refuse it."""
    history = fed(SymbolHistory(SYMBOL, READY_MADE), [bar(0, "100")])

    with pytest.raises(DataLate):
        history.add_quote(delayed(quote(close_ms(0) - 5), 5))
    assert history.add_quote(delayed(quote(close_ms(0) - 5), 6))
    assert history.window(close_ms(0), bars_wanted=1).quote is None
    assert history.window(close_ms(0) + 1, bars_wanted=1).quote is not None


def test_repeat_that_claims_another_time_is_known_and_changes_nothing() -> None:
    events: Events = [delayed(bar(0, "100"), 700), delayed(quote(close_ms(0) + 1_000), 50)]
    history = fed(SymbolHistory(SYMBOL, READY_MADE), events)

    assert not history.add_bar(bar(0, "100"))
    assert not history.add_quote(quote(close_ms(0) + 1_000))
    assert history.window(close_ms(0) + 699, bars_wanted=1).bars == ()
    assert history.window(close_ms(0) + 1_001, bars_wanted=1).quote is None


@pytest.mark.parametrize("item", [bar(0, "100"), quote(close_ms(0)), book(close_ms(0))])
@pytest.mark.parametrize("available_ts_ms", [close_ms(0) - 1, 0, close_ms(0) // 1000])
def test_data_known_before_they_happened_are_refused(
    item: Bar | Quote | Book, available_ts_ms: int
) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(item, available_ts_ms=available_ts_ms)

    assert refused.value.field == "available_ts_ms"


def test_offline_rows_wait_for_their_bars_as_the_service_does() -> None:
    bars = [delayed(one, 700 if index % 7 == 3 else None) for index, one in enumerate(wave(60))]
    state, served = MarketState([MINUTES]), []
    for one in bars:
        state.take(MarketEvent(bar=one))
        state.refresh()
        row = state.model_input(MINUTES, SYMBOL, as_of_ts_ms=one.ts_ms, view=SnapshotView.INPUT)
        served.append(row)

    assert list(iter_model_inputs(MINUTES, bars)) == served
    stale = [index for index, row in enumerate(served) if row is Reason.FEATURES_STALE]
    assert stale == [index for index in range(25, 60) if index % 7 == 3]
