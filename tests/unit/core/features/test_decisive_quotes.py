"""Proves that the quotes which decide the bars give the bars and the rows of all quotes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.market import MINUTE_MS, START_MS, SYMBOL

from detent.contracts.errors import DataCrossed, DataLate, DetentError
from detent.core.features import decisive_quotes
from detent.core.features.decisive_quotes import QuoteColumns, decisive, iter_decisive_quotes
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.history import SymbolHistory
from detent.core.features.offline_rows import iter_event_inputs
from detent.offline.quote_columns import load_quote_columns

DATA = Path(__file__).parents[5] / "shared" / "data"
SET = FeatureSet(
    name="quotes",
    features=(
        feature(FeatureTransform.RETURN_PCT, 1),
        feature(FeatureTransform.HIGH),
        feature(FeatureTransform.LOW),
        feature(FeatureTransform.PRICE_MID),
        feature(FeatureTransform.IMBALANCE_L1),
    ),
    engine=EngineConfig(
        bar_interval_ms=MINUTE_MS,
        atr_period=1,
        range_horizon=1,
        bar_source=BarSource.FROM_QUOTES,
    ),
)


def drawn(count: int, *, seed: int, step: float = 0.01, gap_ms: int = 9_000) -> QuoteColumns:
    """Draw quotes whose midpoints return to the same values often."""
    chance = np.random.default_rng(seed)
    bids = np.round((500 + np.cumsum(chance.integers(-2, 3, count))) * step, 10)
    return QuoteColumns(
        symbol=SYMBOL,
        ts_ms=START_MS + np.cumsum(chance.integers(0, gap_ms, count)),
        bid_price=bids,
        ask_price=np.round(bids + chance.integers(1, 4, count) * step, 10),
        bid_qty=chance.integers(0, 900, count) / 100,
        ask_qty=chance.integers(0, 900, count) / 100,
    )


def every(columns: QuoteColumns) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.arange(len(columns.ts_ms))


def taken(columns: QuoteColumns, indices: np.ndarray[tuple[int], np.dtype[np.intp]]) -> list[str]:
    """Take quotes one by one; give the bars, and the errors of those that were refused."""
    history = SymbolHistory(SYMBOL, SET.engine)
    refused = []
    for index in indices:
        try:
            for one in columns.quotes(np.array([index])):
                history.add_quote(one)
        except DetentError as error:
            refused.append(f"{index} {error}")
    last_close_ms = int(columns.ts_ms.max()) // MINUTE_MS * MINUTE_MS
    window = history.window(last_close_ms, bars_wanted=SET.engine.max_bars)
    return [*refused, *map(str, window.bars), *map(str, window.quotes), str(window.quote)]


@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0.01, 1.0, 0.00025, 1e-7]),
    gap_ms=st.sampled_from([2, 9_000, 150_000]),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.proves("R315")
def test_decisive_quotes_give_the_rows_of_all(seed: int, step: float, gap_ms: int) -> None:
    columns = drawn(200, seed=seed, step=step, gap_ms=gap_ms)
    chosen = iter_decisive_quotes(columns, MINUTE_MS)

    assert taken(columns, decisive(columns, MINUTE_MS)) == taken(columns, every(columns))
    rows = list(iter_event_inputs(SET, columns.quotes(every(columns))))
    assert list(iter_event_inputs(SET, chosen)) == rows


def test_most_quotes_decide_nothing() -> None:
    columns = drawn(5_000, seed=1, gap_ms=200)

    assert len(decisive(columns, MINUTE_MS)) < 5_000 / 25


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_quotes_that_are_refused_are_refused_alike(seed: int) -> None:
    """Late, crossed and unreadable ones among the others, with the very same words."""
    columns = drawn(120, seed=seed)
    chance = np.random.default_rng(seed)
    ts_ms, asks, sizes = columns.ts_ms.copy(), columns.ask_price.copy(), columns.bid_qty.copy()
    late, crossed, lost = chance.integers(1, 120, (3, 4))
    ts_ms[late] -= chance.integers(1, 40_000, 4)
    asks[crossed] = columns.bid_price[crossed]
    sizes[lost] = [np.nan, -1.0, np.inf, 1e300]
    broken = structs.replace(columns, ts_ms=ts_ms, ask_price=asks, bid_qty=sizes)

    assert taken(broken, decisive(broken, MINUTE_MS)) == taken(broken, every(broken))


def test_first_quote_that_is_refused_ends_the_series() -> None:
    columns = drawn(50, seed=3)
    columns.ask_price[20] = 0.01
    with pytest.raises(DataCrossed):
        list(iter_decisive_quotes(columns, MINUTE_MS))
    columns = drawn(50, seed=3)
    columns.ts_ms[20] -= 1_000_000
    with pytest.raises(DataLate):
        list(iter_event_inputs(SET, iter_decisive_quotes(columns, MINUTE_MS)))


def test_prices_of_many_digits_are_all_taken() -> None:
    columns = structs.replace(drawn(50, seed=3), ask_price=drawn(50, seed=3).ask_price * np.pi)

    assert decisive(columns, MINUTE_MS).tolist() == list(range(50))


def test_planted_slip_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing by the bid alone gives other bars."""
    columns = drawn(400, seed=5)
    honest = decisive_quotes._mid_units
    monkeypatch.setattr(
        decisive_quotes,
        "_mid_units",
        lambda held, usual: honest(structs.replace(held, ask_price=held.bid_price), usual),
    )

    assert taken(columns, decisive(columns, MINUTE_MS)) != taken(columns, every(columns))


@pytest.mark.skipif(not DATA.exists(), reason="needs the market data beside the checkout")
@pytest.mark.parametrize("name", ["usdm_btcusdt_20240808", "usdm_ethusdt_20240808"])
def test_decisive_quotes_of_real_files_give_the_rows_of_all(name: str) -> None:
    compared = 0
    for columns in load_quote_columns(DATA / f"l1_binance_{name}.parquet"):
        all_rows = list(iter_event_inputs(SET, columns.quotes(every(columns))))
        rows = list(iter_event_inputs(SET, iter_decisive_quotes(columns, MINUTE_MS)))
        assert rows == all_rows
        compared += len(rows)

    assert compared > 3
