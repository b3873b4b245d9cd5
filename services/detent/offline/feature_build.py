"""Build the rows of features of a whole data file: the offline twin of the feature service.

Rows come out in the order of the symbols' names and of time, in one process: handing bars to
another costs several times what their rows cost.
"""

import collections
from collections.abc import Iterator
from importlib.metadata import version as library_version
from pathlib import Path

import msgspec

from detent.core.features.feature_set import FeatureSet
from detent.core.features.rolling import RowBlock, iter_row_blocks
from detent.offline.bars import BarTable
from detent.offline.feature_files import feature_writer
from detent.offline.feature_sets import check_bars_fit
from detent.offline.samples import Progress

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


def iter_table_rows(table: BarTable, feature_set: FeatureSet) -> Iterator[tuple[str, RowBlock]]:
    """Yield the rows of all symbols, block by block, in the order of name and time.

    Args:
        table: The bars.
        feature_set: What a model is given.

    Raises:
        DataInvalid: The bars do not fit the set.
    """
    check_bars_fit(feature_set, table.interval_ms)
    for symbol, bars in sorted(table.bars.items()):
        for block in iter_row_blocks(feature_set, bars):
            yield symbol, block


def build_features(
    table: BarTable,
    feature_set: FeatureSet,
    *,
    out: Path,
    force: bool = False,
    progress: Progress,
) -> BuildSummary:
    """Write one row per bar to a `.parquet` or `.csv` file.

    Args:
        table: The bars.
        feature_set: What a model is given.
        out: The file; the same bars, set and library versions give the same bytes.
        force: Whether a file that exists is replaced.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The file exists or cannot be written, or the bars do not fit the set.
    """
    refused: collections.Counter[str] = collections.Counter()
    rows = 0
    with feature_writer(out, feature_set, metadata=_metadata(table, feature_set), force=force) as (
        write
    ):
        for symbol, block in iter_table_rows(table, feature_set):
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


def _metadata(table: BarTable, feature_set: FeatureSet) -> dict[str, object]:
    return {
        "feature_set": feature_set.canonical_json.decode("ascii"),
        "feature_version": feature_set.feature_version,
        "data_hash": table.data_hash,
        "versions": {name: library_version(name) for name in ("detent", "numpy", "pyarrow")},
    }
