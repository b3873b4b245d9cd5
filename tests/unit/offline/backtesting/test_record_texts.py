"""Proves that columns of texts are what one value after the other would be written as."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.decimals import format_decimal
from detent.offline.backtesting.record_texts import close_text, close_texts, int_texts


@given(st.lists(st.floats(1e-30, 1e30), min_size=1))
def test_prices_are_the_shortest_decimals_that_read_the_same(prices: list[float]) -> None:
    texts = close_texts(np.array(prices))

    assert texts == [format_decimal(Decimal(repr(price))) for price in prices]
    assert texts == [close_text(price) for price in prices]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_are_written_as_they_are(items: list[int]) -> None:
    assert int_texts(np.array(items, dtype=np.int64)) == [str(item) for item in items]


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_what_is_absent_is_null(items: list[int]) -> None:
    texts = int_texts(np.array(items), absent_below=0)

    assert texts == ["null" if item < 0 else str(item) for item in items]
