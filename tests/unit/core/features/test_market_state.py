"""Proves how market data reach the histories that several feature sets share."""

import pytest
from msgspec import structs
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    START_MS,
    SYMBOL,
    bar,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import InvalidField, Overloaded
from detent.contracts.reasons import Reason
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.market_state import MarketState

MINUTES = direction_bars_v1(MINUTE_MS)
HOURS = direction_bars_v1(60 * MINUTE_MS)
MIDS = FeatureSet(
    name="mids", features=(feature(FeatureTransform.RETURN_PCT, 1),), engine=FROM_QUOTES
)


def read(state: MarketState, feature_set: FeatureSet, as_of_ts_ms: int) -> ModelInput | Reason:
    return state.model_input(feature_set, SYMBOL, as_of_ts_ms=as_of_ts_ms, view=SnapshotView.INPUT)


def test_bar_goes_to_the_feature_sets_of_its_interval() -> None:
    state = MarketState([MINUTES, HOURS])

    assert state.take(MarketEvent(bar=bar(0, "100")))
    assert state.knows(MINUTES, SYMBOL)
    assert not state.knows(HOURS, SYMBOL)


def test_bar_of_an_interval_that_nothing_reads_is_refused() -> None:
    with pytest.raises(InvalidField, match=r"found '1', expected .*\[60000, 3600000\]"):
        MarketState([MINUTES, HOURS]).take(MarketEvent(bar=bar(0, "100", interval_ms=1)))
    with pytest.raises(InvalidField, match="none"):
        MarketState([MIDS]).take(MarketEvent(bar=bar(0, "100")))
    with pytest.raises(InvalidField, match="no feature set is held"):
        MarketState([]).take(MarketEvent(quote=quote(START_MS)))


def test_quote_builds_bars_for_one_set_and_feeds_quote_fields_of_another() -> None:
    state = MarketState([MINUTES, MIDS])
    for index in range(4):
        assert state.take(MarketEvent(quote=quote(close_ms(index), str(90 + index))))
    state.refresh()

    assert isinstance(read(state, MIDS, close_ms(3)), ModelInput)
    assert read(state, MINUTES, close_ms(3)) is Reason.FEATURES_WARMING_UP


def test_symbol_that_was_never_seen_is_unknown() -> None:
    assert read(MarketState([MINUTES]), MINUTES, START_MS) is Reason.SYMBOL_UNKNOWN


def test_data_that_do_not_reach_are_stale_once_warm() -> None:
    state = MarketState([MINUTES])
    for one in wave(25):
        assert read(state, MINUTES, one.ts_ms) in {
            Reason.SYMBOL_UNKNOWN,
            Reason.FEATURES_WARMING_UP,
        }
        state.take(MarketEvent(bar=one))

    assert read(state, MINUTES, close_ms(25)) is Reason.FEATURES_STALE
    assert read(state, MINUTES, close_ms(24) + 1) is Reason.FEATURES_STALE
    assert isinstance(read(state, MINUTES, close_ms(24)), ModelInput)


def test_bar_of_quotes_is_stale_until_a_quote_proves_that_it_is_whole() -> None:
    """The last quote of a bar looks like any other; only a later one says that it was."""
    state = MarketState([MIDS])
    for offset_ms in (0, MINUTE_MS, 2 * MINUTE_MS, 2 * MINUTE_MS + 1):
        state.take(MarketEvent(quote=quote(START_MS + offset_ms)))
    before = read(state, MIDS, close_ms(2))
    state.take(MarketEvent(quote=quote(close_ms(2))))

    assert before is Reason.FEATURES_STALE
    assert isinstance(read(state, MIDS, close_ms(2)), ModelInput)


def test_number_of_symbols_is_bounded_and_refusals_use_none_up() -> None:
    state = MarketState([MINUTES], symbols_max=2)
    with pytest.raises(InvalidField):
        state.take(MarketEvent(bar=bar(0, "1", symbol="BAD", interval_ms=1)))
    for symbol in ("AAA", "BBB"):
        state.take(MarketEvent(bar=bar(0, "1", symbol=symbol)))

    with pytest.raises(Overloaded, match="found CCC, expected one of the 2 held"):
        state.take(MarketEvent(bar=bar(0, "1", symbol="CCC")))
    assert state.take(MarketEvent(bar=bar(1, "1", symbol="AAA")))


def test_watermark_is_that_of_the_slowest_engine() -> None:
    other = structs.replace(MINUTES, engine=structs.replace(MINUTES.engine, max_bars=30))
    state = MarketState([MINUTES, other, HOURS])
    assert state.watermark_ts_ms(SYMBOL) == 0
    state.take(MarketEvent(bar=bar(0, "1", interval_ms=60 * MINUTE_MS)))
    state.take(MarketEvent(bar=bar(4, "1")))

    assert state.watermark_ts_ms(SYMBOL) == close_ms(0)


def test_newest_input_is_computed_once_however_often_it_is_read() -> None:
    """Two bindings with one feature set, and every decision on a bar, share one computation."""
    again = structs.replace(MINUTES)
    state = MarketState([MINUTES, again])
    for one in wave(30):
        state.take(MarketEvent(bar=one))
    renewed = state.refresh()
    newest = read(state, MINUTES, close_ms(29))
    past = read(state, MINUTES, close_ms(28))
    state.take(MarketEvent(quote=quote(close_ms(29))))

    assert state.refresh() == []
    assert isinstance(newest, ModelInput)
    assert [row.model_input for row in renewed] == [newest]
    assert read(state, again, close_ms(29)) is newest
    assert isinstance(past, ModelInput)
    assert read(state, MINUTES, close_ms(28)) is not past
    assert read(state, MINUTES, close_ms(28)) == past


@pytest.mark.proves("R42")
def test_symbols_do_not_touch_one_another() -> None:
    """Interleaved or alone, a symbol has the same inputs."""
    alone, together = MarketState([MINUTES]), MarketState([MINUTES])
    for mine, other in zip(wave(40), wave(40, symbol="ETHUSDT"), strict=True):
        alone.take(MarketEvent(bar=mine))
        together.take(MarketEvent(bar=structs.replace(other, volume=mine.close)))
        together.take(MarketEvent(bar=mine))

    for index in range(40):
        assert read(alone, MINUTES, close_ms(index)) == read(together, MINUTES, close_ms(index))


def test_bar_source_is_not_guessed_from_what_comes_first() -> None:
    assert MINUTES.engine.bar_source is BarSource.READY_MADE
    state = MarketState([MINUTES])
    state.take(MarketEvent(quote=quote(START_MS)))
    for one in wave(25):
        state.take(MarketEvent(bar=one))

    assert isinstance(read(state, MINUTES, close_ms(24)), ModelInput)
