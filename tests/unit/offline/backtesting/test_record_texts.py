"""Proves that columns of texts are what one value after the other would be written as."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.backtests import filed, market_of_walk, setup_of

from detent.contracts.decimals import format_decimal
from detent.offline.backtesting import record_texts
from detent.offline.backtesting.engine import run
from detent.offline.backtesting.record_texts import (
    SMALL,
    RecordWriter,
    close_text,
    close_texts,
    int_texts,
)


@given(st.lists(st.floats(1e-30, 1e30), min_size=1))
def test_prices_are_the_shortest_decimals_that_read_the_same(prices: list[float]) -> None:
    texts = close_texts(np.array(prices))

    assert texts == [format_decimal(Decimal(repr(price))) for price in prices]
    assert texts == [close_text(price) for price in prices]


@given(st.lists(st.floats(1e-3, 1e6) | st.integers(1, 10**6).map(float), min_size=1))
def test_prices_of_a_usual_size_are_too(prices: list[float]) -> None:
    assert close_texts(np.array(prices)) == [close_text(price) for price in prices]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_are_written_as_they_are(items: list[int]) -> None:
    assert int_texts(np.array(items, dtype=np.int64)) == [str(item) for item in items]


@given(st.lists(st.integers(-SMALL - 2, SMALL + 2), min_size=1))
def test_small_integers_are_too(items: list[int]) -> None:
    assert int_texts(np.array(items)) == [str(item) for item in items]


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_what_is_absent_is_null(items: list[int]) -> None:
    texts = int_texts(np.array(items), absent_below=0)

    assert texts == ["null" if item < 0 else str(item) for item in items]


@pytest.mark.parametrize(("rows_at_once", "records_at_once"), [(7, 64), (7, 3), (6_144, 5)])
def test_how_many_rows_are_written_together_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, records_at_once: int
) -> None:
    """Bars are missing, so that parts begin and end within bars; with few rows, most of what
    varies is the same in all of them.
    """
    setup = setup_of(market_of_walk(300, holes=True))

    def written() -> list[tuple[object, ...]]:
        writer, rows = RecordWriter(setup), list[tuple[object, ...]]()
        run(setup, (lambda stretch: rows.extend(filed(writer, stretch)),))
        return rows

    together = written()
    monkeypatch.setattr(record_texts, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(record_texts, "RECORDS_AT_ONCE", records_at_once)

    assert written() == together
    assert len(together) > 800
