"""Write rows of features to a file that says what they were made of and how.

A file appears whole or not at all, and the same rows give the same bytes. Parquet carries its
provenance in the schema's metadata; a CSV file has only the hashes of its rows.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detent.core.features.feature_set import FeatureSet
from detent.core.features.rolling import RowBlock
from detent.offline.cells import invalid

METADATA_KEY = b"detent"
KEYS = ("ts_ms", "symbol")
HASHES = ("features_hash", "snapshot_hash", "refusal")
Write = Callable[[str, RowBlock], None]


@contextlib.contextmanager
def feature_writer(
    path: Path, feature_set: FeatureSet, *, metadata: dict[str, object], force: bool
) -> Iterator[Write]:
    """Open a `.parquet` or `.csv` file for the rows of many symbols.

    Args:
        path: The file; its folder is created.
        feature_set: Names the columns.
        metadata: What the rows were made of; JSON values.
        force: Whether a file that exists is replaced.

    Raises:
        DataInvalid: The suffix is another, or the file exists and may not be replaced.
    """
    writers = {".parquet": _parquet, ".csv": _csv}
    if path.suffix.lower() not in writers:
        raise invalid(path.name, path.suffix or "(no suffix)", " or ".join(writers))
    if path.exists() and not force:
        raise invalid(path.name, "a file of that name", "none, or --force to replace it")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writers[path.suffix.lower()](part, feature_set, metadata) as write:
            yield write
        part.replace(path)
    except OSError as error:
        raise invalid(path.name, error, "a file that can be written") from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _parquet(part: Path, feature_set: FeatureSet, metadata: dict[str, object]) -> Iterator[Write]:
    names = feature_set.input_names
    schema = pa.schema(
        [
            pa.field("ts_ms", pa.int64(), nullable=False),
            pa.field("symbol", pa.string(), nullable=False),
            *(pa.field(name, pa.float32()) for name in names),
            *(pa.field(name, pa.string()) for name in HASHES),
        ],
        metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True).encode("ascii")},
    )
    options = {"compression": "zstd", "use_dictionary": ["symbol", "refusal"]}
    with pq.ParquetWriter(part, schema, **options) as writer:

        def write(symbol: str, block: RowBlock) -> None:
            refused = np.array([refusal is not None for refusal in block.refusals])
            columns = [pa.array(block.ts_ms, pa.int64()), pa.array([symbol] * len(refused))]
            columns += [
                pa.array(block.values[:, index], pa.float32(), mask=refused)
                for index in range(len(names))
            ]
            texts = (block.features_hashes, block.snapshot_hashes, block.refusals)
            columns += [pa.array(text, pa.string()) for text in texts]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        yield write


@contextlib.contextmanager
def _csv(part: Path, feature_set: FeatureSet, metadata: dict[str, object]) -> Iterator[Write]:
    del metadata
    with part.open("w", encoding="ascii", newline="") as target:
        target.write(",".join((*KEYS, *feature_set.input_names, *HASHES)) + "\n")

        def write(symbol: str, block: RowBlock) -> None:
            text = io.StringIO()
            rows = csv.writer(text, lineterminator="\n")
            width = len(feature_set.input_names)
            for index, refusal in enumerate(block.refusals):
                # The shortest text that reads back as the same float32.
                values = [""] * width if refusal else map(str, block.values[index])
                hashes = (block.features_hashes[index], block.snapshot_hashes[index], refusal)
                rows.writerow((block.ts_ms[index], symbol, *values, *hashes))
            target.write(text.getvalue())

        yield write
