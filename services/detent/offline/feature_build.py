"""Build the rows of features of a whole data file: the offline twin of the feature service.

Symbols are independent, so several processes may share them. Rows come out in the order of
the symbols' names and of time, whoever computed them.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
from collections.abc import Iterator
from importlib.metadata import version as library_version
from pathlib import Path

import msgspec

from detent.contracts.market import Bar
from detent.core.features.feature_set import FeatureSet
from detent.core.features.rolling import RowBlock, iter_row_blocks
from detent.offline.bars import BarTable
from detent.offline.feature_files import feature_writer
from detent.offline.feature_sets import check_bars_fit
from detent.offline.samples import Progress

PROCESSES_MAX = 64
# Starting a process costs as much as the rows of so many bars.
BARS_PER_PROCESS_MIN = 200_000
STAGE = "features"


class BuildSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a build made.

    Attributes:
        feature_set: Name of the feature set.
        feature_version: Its hash.
        data_hash: Hash of the bars.
        bar_interval_ms: Length of the bars.
        symbols: The symbols, in the order of the rows.
        rows: Rows in all: one per bar.
        served: Rows that hold values.
        refused: Rows that hold none, by reason.
    """

    feature_set: str
    feature_version: str
    data_hash: str
    bar_interval_ms: int
    symbols: tuple[str, ...]
    rows: int
    served: int
    refused: dict[str, int]


def default_processes(table: BarTable) -> int:
    """Give as many processes as have enough to do."""
    useful = min(len(table.bars), os.cpu_count() or 1, table.bar_count // BARS_PER_PROCESS_MIN)
    return max(1, min(useful, PROCESSES_MAX))


def iter_table_rows(
    table: BarTable, feature_set: FeatureSet, *, processes: int = 1
) -> Iterator[tuple[str, RowBlock]]:
    """Yield the rows of all symbols, block by block, in the order of name and time.

    Args:
        table: The bars.
        feature_set: What a model is given.
        processes: How many processes compute; the rows are the same for any number.

    Raises:
        DataInvalid: The bars do not fit the set.
    """
    check_bars_fit(feature_set, table.interval_ms)
    assert 1 <= processes <= PROCESSES_MAX
    by_symbol = sorted(table.bars.items())
    if processes == 1:
        for symbol, bars in by_symbol:
            for block in iter_row_blocks(feature_set, bars):
                yield symbol, block
        return
    # A fresh interpreter: forking one with threads, as pyarrow's, can hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = iter(by_symbol)
        # No more symbols are under way than processes, so that memory stays bounded.
        under_way = collections.deque(
            (symbol, pool.submit(_blocks_of, feature_set, bars))
            for symbol, bars in itertools.islice(waiting, processes)
        )
        while under_way:
            symbol, future = under_way.popleft()
            for block in future.result():
                yield symbol, block
            under_way.extend(
                (following, pool.submit(_blocks_of, feature_set, bars))
                for following, bars in itertools.islice(waiting, 1)
            )


def build_features(
    table: BarTable,
    feature_set: FeatureSet,
    *,
    out: Path,
    force: bool = False,
    processes: int = 1,
    progress: Progress,
) -> BuildSummary:
    """Write one row per bar to a `.parquet` or `.csv` file.

    Args:
        table: The bars.
        feature_set: What a model is given.
        out: The file; the same bars, set and library versions give the same bytes.
        force: Whether a file that exists is replaced.
        processes: How many processes compute.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The file exists or cannot be written, or the bars do not fit the set.
    """
    refused: collections.Counter[str] = collections.Counter()
    rows = 0
    with feature_writer(out, feature_set, metadata=_metadata(table, feature_set), force=force) as (
        write
    ):
        for symbol, block in iter_table_rows(table, feature_set, processes=processes):
            write(symbol, block)
            refused.update(refusal for refusal in block.refusals if refusal is not None)
            rows += len(block.refusals)
            progress(STAGE, rows, table.bar_count)
    return BuildSummary(
        feature_set=feature_set.name,
        feature_version=feature_set.feature_version,
        data_hash=table.data_hash,
        bar_interval_ms=table.interval_ms,
        symbols=tuple(sorted(table.bars)),
        rows=rows,
        served=rows - refused.total(),
        refused={str(reason): count for reason, count in sorted(refused.items())},
    )


def _blocks_of(feature_set: FeatureSet, bars: tuple[Bar, ...]) -> list[RowBlock]:
    return list(iter_row_blocks(feature_set, bars))


def _metadata(table: BarTable, feature_set: FeatureSet) -> dict[str, object]:
    return {
        "feature_set": feature_set.canonical_json.decode("ascii"),
        "feature_version": feature_set.feature_version,
        "data_hash": table.data_hash,
        "versions": {name: library_version(name) for name in ("detent", "numpy", "pyarrow")},
    }
