"""Stream market data into a feature server: items per second, and whether its memory is flat."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.features.serving_feed import (
    EVENTS_PER_MESSAGE,
    bar_messages,
    book_messages,
    quote_messages,
    symbols_of,
)
from benchmarks.features.serving_process import INGEST, Peer, running_features
from detent.contracts.calls.feature import IngestMarketDataResponse
from detent.contracts.wire import from_wire, message_class

SYMBOLS = symbols_of(100)
BARS_EACH = 200
# Two quotes a second: a bar of a minute closes every 120 of them.
QUOTE_STEP_MS = 500
SAMPLES = 20
# By then every deque of every symbol is full.
WARM_SAMPLES = 10
Step = Callable[[], None]


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what taking items of one kind cost.

    Attributes:
        kind: What was sent.
        count: Items that were accepted.
        wall_s: Seconds from the first message to the acknowledgement.
        server_cpu_s: CPU seconds of the server meanwhile.
    """

    kind: str
    count: int
    wall_s: float
    server_cpu_s: float


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the resident memory of the server while many updates went through it.

    Attributes:
        quote_count: Quotes that were sent.
        book_count: Books that were sent.
        rss_mib: Resident memory before the first update and after each of 20 equal parts.
    """

    quote_count: int
    book_count: int
    rss_mib: tuple[float, ...]

    @property
    def growth_mib(self) -> float:
        """Give how far the memory grew after the warm-up."""
        return self.rss_mib[-1] - self.rss_mib[WARM_SAMPLES]


async def measure_ingest(
    folders: dict[str, Path], *, quotes: int, books: int, state: Path, step: Step
) -> tuple[list[IngestResult], MemoryResult]:
    """Send bars to one server, and quotes and books to another until its memory is known.

    Args:
        folders: Folder of artifacts by name of the set.
        quotes: Quotes of the long run; the rates are of the first tenth.
        books: Books of the long run.
        state: Folder of logs.
        step: Called after each of the 20 parts.
    """
    results = []
    async with running_features(folders["shipped"], state / "bars.log") as features:
        messages = list(bar_messages(SYMBOLS, bar_count=BARS_EACH))
        results.append(await _sent(features, "bars", messages))
    async with running_features(folders["books"], state / "books.log") as features:
        quoted = quote_messages(SYMBOLS, count=quotes, step_ms=QUOTE_STEP_MS)
        booked = book_messages(SYMBOLS, count=books, step_ms=QUOTE_STEP_MS * quotes // books)
        rss_mib = [features.rss_mib]
        for part in range(SAMPLES):
            # Books first: a bar that a quote closes makes older books late.
            sent = [
                await _sent(features, "books of 20 levels", _part(booked, books)),
                await _sent(features, "quotes", _part(quoted, quotes)),
            ]
            rss_mib.append(features.rss_mib)
            # Not the first part, in which the server has never seen its own code run.
            results += sent if part == 1 else []
            step()
    memory = MemoryResult(quote_count=quotes, book_count=books, rss_mib=tuple(rss_mib))
    return results, memory


def _part(messages: Iterator[bytes], count: int) -> list[bytes]:
    return list(itertools.islice(messages, max(1, count // SAMPLES // EVENTS_PER_MESSAGE)))


async def _sent(features: Peer, kind: str, messages: list[bytes]) -> IngestResult:
    cpu_before_s, started_s = features.cpu_s, time.perf_counter()
    answer = await features.stream(INGEST, iter(messages))
    wall_s, cpu_s = time.perf_counter() - started_s, features.cpu_s - cpu_before_s
    message = message_class("IngestMarketDataResponse").FromString(answer)
    response = from_wire(IngestMarketDataResponse, message)
    assert response.refused_count == 0, response.refusals[0].message
    return IngestResult(kind=kind, count=response.accepted_count, wall_s=wall_s, server_cpu_s=cpu_s)
