"""Streams real quotes and books through a feature process and compares it with the offline build.

The files lie beside a checkout and are no part of it; without them these tests are skipped.
"""

import itertools
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs
from tests.conftest import Artifacts
from tests.feature_process import FeatureProcess, Item, Outcome, hash_count, outcome_of, parts

from detent.contracts.market import Quote
from detent.core.features.engine import BarSource, BookConfig, EngineConfig
from detent.core.features.event_rows import by_availability, iter_event_rows
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import BOOK_TRANSFORMS, FeatureTransform, derived, feature
from detent.offline.event_files import EventFiles

DATA = Path(__file__).parents[3] / "shared" / "data"
QUOTES = sorted(DATA.glob("l1_*.parquet"))
BOOKS = sorted(DATA.glob("l2_*.parquet"))
SECOND_MS, MINUTE_MS = 1_000, 60_000
# Few enough that no more bars close than an engine holds.
EVENTS_PER_STREAM = 800
QUICK_EVENTS = 4_000
needs_data = pytest.mark.skipif(
    not QUOTES or not BOOKS, reason="the shared quotes and books are not beside this checkout"
)
Rows = dict[str, dict[int, Outcome]]
# By symbol: all events, and the closes that the data reach with each of them.
Replay = tuple[list[Item], list[list[int]]]


def set_of(interval_ms: int, *, reads_book: bool) -> FeatureSet:
    """Give a set that reads bars built from quotes, the quote, and perhaps the book."""
    book_features = tuple(feature(transform) for transform in sorted(BOOK_TRANSFORMS))
    return FeatureSet(
        name="real",
        features=(
            feature(FeatureTransform.RETURN_PCT, 1),
            feature(FeatureTransform.NATR_PCT),
            feature(FeatureTransform.SPREAD_BPS),
            feature(FeatureTransform.IMBALANCE_L1),
            derived(FeatureTransform.ROLLING_MEAN, "imbalance_l1"),
            *(book_features if reads_book else ()),
        ),
        engine=EngineConfig(
            bar_interval_ms=interval_ms,
            bar_source=BarSource.FROM_QUOTES,
            book=BookConfig() if reads_book else None,
        ),
    )


def quotes_of_books(books: Path) -> Path:
    """Give the file of quotes of the same market and time."""
    market = books.stem.removeprefix("l2_").removesuffix("_top20_100ms")
    return books.with_name(f"l1_{market}.parquet")


def case_of(file: Path) -> tuple[EventFiles, FeatureSet]:
    """Give the files to stream for one, and the set that reads them."""
    if file in BOOKS:
        files = EventFiles(quotes=quotes_of_books(file), books=file, venue="BINANCE")
        return files, set_of(SECOND_MS, reads_book=True)
    interval_ms = MINUTE_MS if "_1m_" in file.stem else SECOND_MS
    return EventFiles(quotes=file), set_of(interval_ms, reads_book=False)


def events_of(files: EventFiles, symbol: str) -> Iterator[Item]:
    return by_availability(books=files.books_of(symbol), quotes=files.quotes_of(symbol))


def offline(feature_set: FeatureSet, events: Iterable[Item]) -> tuple[dict[int, Outcome], Replay]:
    """Give what `detent features build` writes, and after which event each row can be read."""
    streamed: list[Item] = []
    reached: list[list[int]] = []

    def passing() -> Iterator[Item]:
        for event in events:
            streamed.append(event)
            reached.append([])
            yield event

    rows = {}
    for ts_ms, row in iter_event_rows(feature_set, passing()):
        rows[ts_ms] = outcome_of(row)
        reached[-1].append(ts_ms)
    return rows, (streamed, reached)


async def online(
    process: FeatureProcess, feature_set: FeatureSet, replay: Replay
) -> dict[int, Outcome]:
    """Give what the process answers, asked as of each close that its data reach."""
    served: dict[int, Outcome] = {}
    symbol = replay[0][0].symbol
    for part in parts(list(zip(*replay, strict=True)), EVENTS_PER_STREAM):
        await process.feed(event for event, _ in part)
        closes = itertools.chain.from_iterable(reached for _, reached in part)
        asked = {ts_ms: [symbol] for ts_ms in closes}
        served.update((await process.rows(feature_set, asked)).get(symbol, {}))
    return served


async def compared(process: FeatureProcess, file: Path, *, events_max: int | None = None) -> Rows:
    """Compare every row of a file's symbols; give the rows."""
    files, feature_set = case_of(file)
    found: Rows = {}
    for symbol in files.symbols():
        events = itertools.islice(events_of(files, symbol), events_max)
        found[symbol], replay = offline(feature_set, events)
        assert await online(process, feature_set, replay) == found[symbol], symbol
    return found


@needs_data
@pytest.mark.proves("R315")
async def test_the_first_real_quotes_and_books_are_served_as_training_reads_them(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    file = BOOKS[-1]

    async with FeatureProcess(artifacts, tmp_path, [case_of(file)[1]]) as process:
        rows = await compared(process, file, events_max=QUICK_EVENTS)

    assert hash_count(rows) > 20


@needs_data
@pytest.mark.long
@pytest.mark.proves("R315")
@pytest.mark.parametrize("file", [*QUOTES, *BOOKS], ids=lambda path: path.stem)
async def test_every_real_quote_and_book_is_served_as_training_reads_it(
    file: Path, artifacts: Artifacts, tmp_path: Path
) -> None:
    async with FeatureProcess(artifacts, tmp_path, [case_of(file)[1]]) as process:
        rows = await compared(process, file)

    assert hash_count(rows) > 300


@needs_data
async def test_one_quote_that_differs_by_a_tick_is_found(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """The comparison is worth nothing unless it notices the smallest difference."""
    files, feature_set = case_of(BOOKS[-1])
    (symbol,) = files.symbols()
    events = itertools.islice(events_of(files, symbol), QUICK_EVENTS)
    expected, (streamed, reached) = offline(feature_set, events)
    close_ts_ms = sorted(expected)[len(expected) // 2]
    place = max(
        index
        for index, event in enumerate(streamed)
        if isinstance(event, Quote) and event.ts_ms < close_ts_ms
    )
    right = streamed[place]
    assert isinstance(right, Quote)
    wrong = structs.replace(right, ask_price=right.ask_price + Decimal("0.01"))
    replay = [*streamed[:place], wrong, *streamed[place + 1 :]], reached

    async with FeatureProcess(artifacts, tmp_path, [feature_set]) as process:
        served = await online(process, feature_set, replay)

    differing = [ts_ms for ts_ms in expected if served[ts_ms] != expected[ts_ms]]
    assert differing[0] == close_ts_ms
    assert len(differing) > 1
