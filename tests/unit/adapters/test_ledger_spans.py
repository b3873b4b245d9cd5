"""Symbols are cut into spans that hold every symbol once, about as many records each."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.adapters.ledger_spans import EVERY, Span, spans_of, spread

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3)
COUNTS = st.dictionaries(NAMES, st.integers(1, 1_000), max_size=40)


@given(COUNTS, st.integers(1, 9), st.lists(NAMES, max_size=5))
def test_every_symbol_lies_in_one_span(
    counts: dict[str, int], parts: int, others: Sequence[str]
) -> None:
    spans = list(spans_of(sorted(counts.items()), parts))

    assert 1 <= len(spans) <= max(1, min(parts, len(counts)))
    for symbol in [*counts, *others]:
        assert sum(span.holds(symbol) for span in spans) == 1
    for span in spans if counts else ():
        assert any(span.holds(symbol) for symbol in counts)


@given(COUNTS, st.integers(1, 9))
def test_no_span_is_longer_than_a_share_and_a_symbol(counts: dict[str, int], parts: int) -> None:
    total, most = sum(counts.values()), max(counts.values(), default=0)
    for span in spans_of(sorted(counts.items()), parts):
        held = sum(count for symbol, count in counts.items() if span.holds(symbol))

        assert held <= total / parts + most


def bounds(span: Span) -> tuple[str | None, str | None]:
    return span.first, span.before


@pytest.mark.parametrize(("workers", "least", "walks"), [(1, 0, 1), (2, 7, 1), (2, 6, 2)])
def test_few_records_and_one_worker_stay_in_this_process(
    workers: int, least: int, walks: int
) -> None:
    counts = [("A", 1), ("B", 2), ("C", 3)]
    found = spread(bounds, counts, workers=workers, shared_rows_min=least)

    assert len(found) == walks
    assert found == ([bounds(EVERY)] if walks == 1 else [(None, "C"), ("C", None)])
