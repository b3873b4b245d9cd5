"""Proves that no reading of the past depends on what came later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.look_ahead import changed_instants
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    READY_MADE,
    START_MS,
    SYMBOL,
    bar,
    delayed,
    quote,
    wave,
)

from detent.contracts.calls.feature import SnapshotView
from detent.contracts.market import Bar, Quote
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet, FeatureTransform, feature
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input
from detent.core.features.snapshot import mid_price


def short_set(engine: EngineConfig) -> FeatureSet:
    quick = structs.replace(engine, atr_period=2, range_horizon=2)
    features = (feature(FeatureTransform.RETURN_PCT, 1), feature(FeatureTransform.NATR_PCT))
    return FeatureSet(name="short", features=features, engine=quick)


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


@st.composite
def arrivals(draw: st.DrawFn) -> list[Bar | Quote]:
    """Give bars and quotes that come early, late, twice, with gaps, and known with delay."""
    events: list[Bar | Quote] = []
    delays_ms = st.none() | st.integers(0, 3 * MINUTE_MS)
    for _ in range(draw(st.integers(4, 40))):
        price = draw(st.integers(100, 200))
        if draw(st.booleans()):
            index = draw(st.integers(0, 12))
            events.append(bar(index, str(price), high=str(price + 5), low=str(price - 5)))
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
    engine: EngineConfig, events: list[Bar | Quote]
) -> None:
    history = SymbolHistory(SYMBOL, short_set(engine).engine)

    assert changed_instants(history, events, read_input) == set()


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
