"""Proves that training sees the rows that serving gives."""

import pytest
from tests.unit.core.features.market import (
    MINUTE_MS,
    QUOTES_AND_BOOKS,
    START_MS,
    SYMBOL,
    bar,
    book,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import BarOutOfOrder, InvalidField
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.market_state import MarketState
from detent.core.features.offline_rows import iter_event_inputs, iter_model_inputs

DIRECTION = direction_bars_v1(MINUTE_MS)


@pytest.mark.parametrize("view", list(SnapshotView))
def test_offline_rows_are_the_live_rows(view: SnapshotView) -> None:
    state, live = MarketState([DIRECTION]), []
    bars = wave(80)
    for one in bars:
        state.take(MarketEvent(bar=one))
        state.refresh()
        live.append(state.model_input(DIRECTION, SYMBOL, as_of_ts_ms=one.ts_ms, view=view))

    assert list(iter_model_inputs(DIRECTION, bars, view=view)) == live


def test_every_bar_has_a_row_or_a_reason() -> None:
    rows = list(iter_model_inputs(DIRECTION, wave(40)))

    assert rows[:24] == [Reason.FEATURES_WARMING_UP] * 24
    assert all(isinstance(row, ModelInput) for row in rows[24:])


def test_row_does_not_know_the_bars_behind_it() -> None:
    bars = wave(60)

    whole = list(iter_model_inputs(DIRECTION, bars))

    assert all(
        list(iter_model_inputs(DIRECTION, bars[:count]))[-1] == whole[count - 1]
        for count in range(1, 60)
    )


def test_unusable_bars_are_typed_errors() -> None:
    with pytest.raises(InvalidField, match="each bar once"):
        list(iter_model_inputs(DIRECTION, [bar(0, "1"), bar(0, "1")]))
    with pytest.raises(BarOutOfOrder):
        list(iter_model_inputs(DIRECTION, [bar(1, "1"), bar(0, "1")]))
    with pytest.raises(InvalidField, match="symbol: found 'ETHUSDT'"):
        list(iter_model_inputs(DIRECTION, [bar(0, "1"), bar(1, "1", symbol="ETHUSDT")]))
    with pytest.raises(InvalidField, match="interval_ms"):
        list(iter_model_inputs(DIRECTION, [bar(0, "1", interval_ms=1)]))
    assert list(iter_model_inputs(DIRECTION, [])) == []


BOOK_SET = FeatureSet(
    name="book",
    features=(feature(FeatureTransform.DEPTH_IMBALANCE),),
    engine=QUOTES_AND_BOOKS,
)


def test_every_closed_bar_gets_its_row_however_late_the_books_are() -> None:
    """Rows wait for the books; none is left out when three bars close before one comes."""
    quotes = [quote(START_MS + index * MINUTE_MS) for index in range(4)]
    first, last = book(START_MS + 1), book(START_MS + 3 * MINUTE_MS)

    rows = list(iter_event_inputs(BOOK_SET, [quotes[0], first, *quotes[1:], last]))

    assert [row.ts_ms if isinstance(row, ModelInput) else row for row in rows] == [
        close_ms(0),
        Reason.FEATURES_STALE,
        Reason.FEATURES_STALE,
    ]
    assert list(iter_event_inputs(BOOK_SET, [quotes[0], first, *quotes[1:]])) == []


def test_event_that_is_late_stops_the_reading() -> None:
    with pytest.raises(InvalidField, match="late"):
        list(iter_event_inputs(BOOK_SET, [book(START_MS + 1), book(START_MS)]))
