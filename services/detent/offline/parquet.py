"""Read Parquet without Arrow's own threads.

A command often ends right after it has read a file. Arrow does not wait for its threads then, and
now and then the process aborts after its work is done ("terminate called without an active
exception", apache/arrow issues 34314 and 36980). What never started a thread cannot.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 50_000


def open_parquet(source: Path | pa.NativeFile) -> pq.ParquetFile:
    """Open a file to look at what it is, or to give it to `read_batches`.

    Raises:
        OSError: It cannot be read.
        pa.ArrowException: It is no Parquet.
    """
    return pq.ParquetFile(source, pre_buffer=False)


def read_batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Give the rows of an open file, many at a time; raises as `open_parquet` does."""
    wanted = None if columns is None else list(columns)
    yield from file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False)


def read_parquet(source: Path | pa.NativeFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole file, or those of its columns that are named.

    Returns:
        The columns in the file's order; one that the file lacks is not among them.

    Raises:
        OSError: It cannot be read.
        pa.ArrowException: It is no Parquet.
    """
    with open_parquet(source) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
