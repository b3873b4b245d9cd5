"""Let several processes share a walk over a large ledger.

Hashing and deciding again are what takes the time, and records of different symbols have nothing
to do with each other: each process walks over the records of some symbols.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from typing import TypeVar

import msgspec

T = TypeVar("T")
# Fewer are walked over before further processes have started.
SHARED_ROWS_MIN = 100_000


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Names the symbols from one on and before another; what is absent bounds nothing.

    Symbols are compared byte by byte.
    """

    first: str | None = None
    before: str | None = None

    def holds(self, symbol: str) -> bool:
        """Say whether a symbol is within."""
        after = self.first is None or symbol >= self.first
        return after and (self.before is None or symbol < self.before)


EVERY = Span()


def spread(
    walk: Callable[[Span], T],
    counts: Sequence[tuple[str, int]],
    *,
    workers: int,
    shared_rows_min: int = SHARED_ROWS_MIN,
) -> list[T]:
    """Walk over all symbols, in several processes where there are many records.

    Args:
        walk: Walks over some symbols; it and what it gives can travel between processes.
        counts: Records of each symbol, in the order of symbols; empty stays in this process.
        workers: Processes.
        shared_rows_min: Records from which on there are several.

    Returns:
        What each walk gave, in the order of symbols.
    """
    spans = [EVERY]
    if workers > 1 and sum(count for _, count in counts) >= shared_rows_min:
        spans = list(spans_of(counts, workers))
    if len(spans) == 1:
        return [walk(EVERY)]
    # Not forked: whoever asks may have threads.
    with ProcessPoolExecutor(len(spans), mp_context=get_context("spawn")) as pool:
        return list(pool.map(walk, spans))


def spans_of(counts: Sequence[tuple[str, int]], parts: int) -> Iterator[Span]:
    """Cut symbols into spans of about as many records each.

    Together they hold every symbol, those without a record too: an anchor may know of one whose
    records are gone.

    Args:
        counts: Records of each symbol, in the order of spans.
        parts: Spans, unless there are fewer symbols.
    """
    total, seen = sum(count for _, count in counts), 0
    cuts: list[str] = []
    for symbol, count in counts:
        # Where a share is full, the next begins; the first begins with whatever is least.
        if seen * parts >= total * (len(cuts) + 1) and seen:
            cuts.append(symbol)
        seen += count
    for first, before in pairwise([None, *cuts, None]):
        yield Span(first=first, before=before)
