"""Proves what a history takes, refuses and shows as of an instant."""

from decimal import Decimal

import pytest
from msgspec import structs
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    READY_MADE,
    START_MS,
    SYMBOL,
    bar,
    bars_of,
    close_ms,
    quote,
    wave,
)

from detent.contracts.errors import BarOutOfOrder, InvalidField
from detent.contracts.market import Bar
from detent.core.features.engine import EngineConfig
from detent.core.features.history import QUOTES_HELD_MAX, SymbolHistory

SMALL = EngineConfig(bar_interval_ms=MINUTE_MS, atr_period=2, range_horizon=2, max_bars=5)


def history_of(bars: list[Bar], engine: EngineConfig = READY_MADE) -> SymbolHistory:
    history = SymbolHistory(SYMBOL, engine)
    for one in bars:
        assert history.add_bar(one)
    return history


@pytest.mark.proves("R9")
def test_six_quotes_in_six_bars_finish_five() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)
    for index in range(6):
        history.add_quote(quote(START_MS + index * MINUTE_MS + 5))

    assert history.bar_count == 5
    assert history.window(history.reach_ts_ms, bars_wanted=20).bar_count == 5


@pytest.mark.proves("R9")
def test_bar_count_stops_at_what_is_held() -> None:
    history = history_of(wave(8), SMALL)

    assert history.bar_count == 5
    assert history.window(close_ms(7), bars_wanted=3).bar_count == 5


@pytest.mark.proves("R325")
def test_bars_are_built_from_midpoints() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)
    for offset_ms, bid, ask in [(0, "99", "101"), (1, "101", "105"), (59_999, "95", "97")]:
        history.add_quote(quote(START_MS + offset_ms, bid, ask))
    history.add_quote(quote(START_MS + MINUTE_MS, "1", "3"))

    (built,) = history.window(START_MS + MINUTE_MS, bars_wanted=9).bars
    assert built == Bar(
        symbol=SYMBOL,
        ts_ms=START_MS + MINUTE_MS,
        interval_ms=MINUTE_MS,
        open=Decimal(100),
        high=Decimal(103),
        low=Decimal(96),
        close=Decimal(96),
        volume=Decimal(0),
    )


@pytest.mark.proves("R325")
def test_gap_between_quotes_makes_no_bars() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)
    history.add_quote(quote(START_MS))
    history.add_quote(quote(START_MS + 7 * MINUTE_MS))

    assert history.bar_count == 1
    assert history.watermark_ts_ms == START_MS + MINUTE_MS


@pytest.mark.proves("R325")
def test_unfinished_bar_is_never_seen() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)
    history.add_quote(quote(START_MS))

    assert history.window(START_MS + MINUTE_MS - 1, bars_wanted=9).bars == ()


def test_bar_that_ends_at_the_instant_is_finished_without_another_quote() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)
    history.add_quote(quote(START_MS))
    before = history.window(START_MS + MINUTE_MS, bars_wanted=9)
    history.add_quote(quote(START_MS + MINUTE_MS, "1", "3"))

    assert [one.close for one in before.bars] == [Decimal(100)]
    assert before.bar_count == 1
    assert history.window(START_MS + MINUTE_MS, bars_wanted=9) == before


@pytest.mark.proves("R325")
@pytest.mark.parametrize("engine", [READY_MADE, FROM_QUOTES])
def test_late_quote_is_refused_and_changes_nothing(engine: EngineConfig) -> None:
    history = SymbolHistory(SYMBOL, engine)
    history.add_quote(quote(START_MS + 2 * MINUTE_MS))
    seen = history.window(START_MS + 3 * MINUTE_MS, bars_wanted=9)

    with pytest.raises(InvalidField, match=f"found '{START_MS}', expected at least") as caught:
        history.add_quote(quote(START_MS, "1", "3"))

    assert caught.value.field == "ts_ms"
    assert history.window(START_MS + 3 * MINUTE_MS, bars_wanted=9) == seen


def test_quote_before_a_finished_bar_is_late() -> None:
    history = history_of([bar(0, "100")])

    with pytest.raises(InvalidField, match="the quote is late"):
        history.add_quote(quote(close_ms(0) - 1))

    assert history.add_quote(quote(close_ms(0)))


def test_repeated_quote_is_known() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)

    assert history.add_quote(quote(START_MS, "99.0", "101"))
    assert not history.add_quote(quote(START_MS, "99", "101.00"))
    assert history.add_quote(quote(START_MS, "98", "101"))


def test_quote_whose_midpoint_cannot_be_written_is_refused() -> None:
    history = SymbolHistory(SYMBOL, READY_MADE)
    longest = "0." + "0" * 37 + "1"

    with pytest.raises(InvalidField) as caught:
        history.add_quote(quote(START_MS, longest, "9" * 39))

    assert caught.value.field == "mid_price"
    assert history.window(START_MS + 1, bars_wanted=1).quote is None


def test_quote_whose_bar_would_end_after_the_last_time_is_refused() -> None:
    history = SymbolHistory(SYMBOL, FROM_QUOTES)

    with pytest.raises(InvalidField):
        history.add_quote(quote(9_999_999_999_999))


def test_repeated_bar_is_known_however_its_decimals_are_written() -> None:
    history = history_of(bars_of(["100", "101", "102"]))

    assert not history.add_bar(bar(2, "102.00"))
    assert not history.add_bar(bar(0, "100"))
    assert history.bar_count == 3


def test_bar_with_other_content_is_refused() -> None:
    history = history_of(bars_of(["100", "101"]))

    with pytest.raises(InvalidField) as caught:
        history.add_bar(structs.replace(bar(1, "101"), volume=Decimal(2)))

    assert (caught.value.field, caught.value.found) == ("volume", Decimal(2))
    assert caught.value.expected == f"1, as held for {close_ms(1)}"


def test_older_bar_is_refused() -> None:
    history = history_of([bar(3, "100"), bar(5, "101")])

    with pytest.raises(BarOutOfOrder, match=f"found close time {close_ms(4)}") as caught:
        history.add_bar(bar(4, "100"))

    assert caught.value.metadata["expected"] == f"after {close_ms(5)}"
    assert history.bar_count == 2


@pytest.mark.parametrize(
    ("engine", "wrong", "field"),
    [
        pytest.param(READY_MADE, bar(0, "1", interval_ms=1), "interval_ms", id="interval"),
        pytest.param(READY_MADE, bar(0, "1", symbol="ETHUSDT"), "symbol", id="symbol"),
        pytest.param(FROM_QUOTES, bar(0, "1"), "bar", id="source"),
    ],
)
def test_bar_of_another_kind_is_refused(engine: EngineConfig, wrong: Bar, field: str) -> None:
    history = SymbolHistory(SYMBOL, engine)

    with pytest.raises(InvalidField) as caught:
        history.add_bar(wrong)

    assert caught.value.field == field
    assert history.bar_count == 0


def test_quotes_beside_finished_bars_only_feed_the_quote() -> None:
    history = SymbolHistory(SYMBOL, READY_MADE)
    for index in range(5):
        history.add_quote(quote(close_ms(index), str(90 + index)))
    history.add_bar(bar(4, "100"))

    window = history.window(close_ms(4), bars_wanted=9)
    assert window.bars == (bar(4, "100"),)
    assert window.quote == quote(close_ms(3), "93")


def test_reads_in_the_past_give_what_was_known_then() -> None:
    bars = wave(30)
    growing = SymbolHistory(SYMBOL, READY_MADE)
    seen = []
    for index, one in enumerate(bars):
        growing.add_quote(quote(one.ts_ms - 10, bid_qty=str(index)))
        growing.add_bar(one)
        seen.append(growing.window(one.ts_ms, bars_wanted=15))

    assert [growing.window(one.ts_ms, bars_wanted=15) for one in bars] == seen
    between = growing.window(close_ms(7) + 30_000, bars_wanted=3)
    assert between.bars == tuple(bars[5:8])
    assert between.quote == quote(close_ms(7) - 10, bid_qty="7")


def test_what_is_no_longer_held_is_not_taken_for_what_never_was() -> None:
    """Past the ring, too few bars must not read as a warm-up."""
    history = history_of(wave(20), SMALL)

    held, gone = (history.window(close_ms(index), bars_wanted=3) for index in (17, 16))
    assert held.complete
    assert [one.ts_ms for one in held.bars] == [close_ms(15), close_ms(16), close_ms(17)]
    assert not gone.complete
    assert not history.window(close_ms(2), bars_wanted=3).complete


def test_quote_that_is_no_longer_held_is_not_taken_for_none() -> None:
    history = SymbolHistory(SYMBOL, READY_MADE)
    for offset_ms in range(QUOTES_HELD_MAX + 2):
        history.add_quote(quote(START_MS + offset_ms))

    assert not history.window(START_MS + 1, bars_wanted=1).complete
    assert history.window(START_MS + 2, bars_wanted=1).quote == quote(START_MS + 1)
    assert history.window(START_MS + 3, bars_wanted=1).quote == quote(START_MS + 2)


def test_quote_at_a_close_outlives_the_quotes_held() -> None:
    history = SymbolHistory(SYMBOL, READY_MADE)
    history.add_quote(quote(close_ms(0) - 1))
    history.add_bar(bar(0, "100"))
    seen = history.window(close_ms(0), bars_wanted=1)
    for offset_ms in range(QUOTES_HELD_MAX + 2):
        history.add_quote(quote(close_ms(0) + offset_ms, "98"))

    assert seen.quote == quote(close_ms(0) - 1)
    assert history.window(close_ms(0), bars_wanted=1) == seen


def test_reach_is_proven_by_a_bar_or_by_the_newest_quote() -> None:
    ready_made, from_quotes = SymbolHistory(SYMBOL, READY_MADE), SymbolHistory(SYMBOL, FROM_QUOTES)
    for history in (ready_made, from_quotes):
        assert (history.reach_ts_ms, history.watermark_ts_ms) == (0, 0)
        history.add_quote(quote(START_MS + 5))
    ready_made.add_bar(bar(0, "100"))

    assert ready_made.reach_ts_ms == close_ms(0)
    assert from_quotes.reach_ts_ms == START_MS + 5
    assert from_quotes.watermark_ts_ms == 0
