"""Build the rows of features of files of quotes and books, with or without finished bars.

The data are replayed in the order in which they were known, through the code that serves live.
What the service would refuse is left out and counted, as it would be there.
"""

import collections
import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version as library_version
from pathlib import Path

import msgspec

from detent.contracts.calls.feature import ModelInput
from detent.contracts.canonical import canonical_hash
from detent.contracts.errors import DataInvalid, DetentError
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.core.features.engine import BarSource
from detent.core.features.event_rows import Item, OnRefusal, by_availability, iter_event_rows
from detent.core.features.feature_set import FeatureSet
from detent.core.features.rolling import row_blocks
from detent.offline.bars import BarTable
from detent.offline.event_files import EventFiles
from detent.offline.feature_files import feature_writer
from detent.offline.feature_sets import check_bars_fit
from detent.offline.samples import Progress

SCHEMA = "detent.data_files.v1"
READ_BYTES = 2**20
STAGE = "features"
NO_BARS: Mapping[str, tuple[Bar, ...]] = {}
Row = tuple[int, ModelInput | Reason]


class EventBuildSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a build over quotes and books made.

    Attributes:
        feature_set: Name of the feature set.
        feature_version: Its hash.
        data_hash: Hash over the SHA-256 of the files by kind; that of bars is their own.
        bar_interval_ms: Length of the bars.
        symbols: The symbols, in the order of the rows.
        events: Bars, quotes and books that were replayed; of quotes alone those that decide
            a bar.
        refused_events: Those that the service would have refused as well, by reason.
        rows: Rows in all: one per bar that the data reach.
        served: Rows that hold values.
        refused: Rows that hold none, by reason.
    """

    feature_set: str
    feature_version: str
    data_hash: str
    bar_interval_ms: int
    symbols: tuple[str, ...]
    events: int
    refused_events: dict[str, int]
    rows: int
    served: int
    refused: dict[str, int]


def build_event_features(
    files: EventFiles,
    table: BarTable | None,
    feature_set: FeatureSet,
    *,
    out: Path,
    force: bool = False,
    progress: Progress,
) -> EventBuildSummary:
    """Write one row per bar that files of quotes and books, and perhaps of bars, close.

    Args:
        files: The files of quotes and books.
        table: The bars, where the set reads finished ones.
        feature_set: What the model is given.
        out: The file; the same files, set and library versions give the same bytes.
        force: Whether a file that exists is replaced.
        progress: Told of (stage, symbols done, symbols in all).

    Raises:
        DataInvalid: A file is not what it should be or does not fit the set, or the output
            exists or cannot be written.
    """
    check_files_fit(files, table, feature_set)
    bars = NO_BARS if table is None else table.bars
    symbols = tuple(sorted({*files.symbols(), *bars}))
    data_hash = _data_hash(files, table)
    metadata: dict[str, object] = {
        "feature_set": feature_set.canonical_json.decode("ascii"),
        "feature_version": feature_set.feature_version,
        "data_hash": data_hash,
        "versions": {name: library_version(name) for name in ("detent", "numpy", "pyarrow")},
    }
    refused, refused_events = collections.Counter[str](), collections.Counter[str]()
    rows, events = 0, 0

    def count(_: Item, error: DetentError) -> None:
        refused_events[error.reason.value] += 1

    def counted(items: Iterator[Item]) -> Iterator[Item]:
        nonlocal events
        for item in items:
            events += 1
            yield item

    with feature_writer(out, feature_set, metadata=metadata, force=force) as write:
        for done, symbol in enumerate(symbols):
            progress(STAGE, done, len(symbols))
            found = iter_symbol_rows(
                files, bars, symbol, feature_set, on_refusal=count, through=counted
            )
            for block in row_blocks(found, width=len(feature_set.input_names)):
                write(symbol, block)
                refused.update(reason for reason in block.refusals if reason is not None)
                rows += len(block.refusals)
        progress(STAGE, len(symbols), len(symbols))
    return EventBuildSummary(
        feature_set=feature_set.name,
        feature_version=feature_set.feature_version,
        data_hash=data_hash,
        bar_interval_ms=feature_set.engine.bar_interval_ms,
        symbols=symbols,
        events=events,
        refused_events=dict(sorted(refused_events.items())),
        rows=rows,
        served=rows - refused.total(),
        refused={str(reason): number for reason, number in sorted(refused.items())},
    )


def iter_symbol_rows(
    files: EventFiles,
    bars: Mapping[str, tuple[Bar, ...]],
    symbol: str,
    feature_set: FeatureSet,
    *,
    on_refusal: OnRefusal | None = None,
    through: Callable[[Iterator[Item]], Iterator[Item]] = iter,
) -> Iterator[Row]:
    """Yield the close of each bar of one symbol with its row.

    Args:
        files: The files of quotes and books.
        bars: Finished bars by symbol.
        symbol: Instrument.
        feature_set: What the model is given.
        on_refusal: Told of what the service would refuse; None raises instead.
        through: What every item passes on its way.
    """
    interval_ms = feature_set.engine.bar_interval_ms
    quotes = (
        files.deciding_quotes_of(symbol, interval_ms)
        if files.books is None and symbol not in bars
        else files.quotes_of(symbol)
    )
    events = by_availability(books=files.books_of(symbol), quotes=quotes, bars=bars.get(symbol, ()))
    yield from iter_event_rows(feature_set, through(events), on_refusal=on_refusal)


def check_files_fit(files: EventFiles, table: BarTable | None, feature_set: FeatureSet) -> None:
    """Refuse files from which the set could not be built, or that it has no use for.

    Raises:
        DataInvalid: Bars, quotes or books are missing or too many.
    """
    engine = feature_set.engine
    if table is not None:
        check_bars_fit(feature_set, table.interval_ms)
    elif engine.bar_source is BarSource.READY_MADE:
        raise _unfit("no file of bars", "one: the feature set takes finished bars")
    if files.quotes is None and engine.bar_source is BarSource.FROM_QUOTES:
        raise _unfit("no file of quotes", "one: the feature set builds its bars from quotes")
    if files.books is None and feature_set.reads_book:
        raise _unfit("no file of books", "one: a feature of the set reads the book")
    if files.books is not None and not feature_set.reads_book:
        raise _unfit(f"books, {files.books.name}", "none: no feature of the set reads them")


def _data_hash(files: EventFiles, table: BarTable | None) -> str:
    """Hash what a build is made of; the bytes of a file stand for what it says."""
    paths = {"quotes": files.quotes, "books": files.books}
    digests: dict[str, str | None] = {
        kind: None if path is None else _digest(path) for kind, path in paths.items()
    }
    bars = None if table is None else table.data_hash
    return canonical_hash(SCHEMA, {**digests, "bars": bars, "venue": files.venue})


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while part := source.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _unfit(found: str, expected: str) -> DataInvalid:
    return DataInvalid(f"data: found {found}, expected {expected}", found=found, expected=expected)
