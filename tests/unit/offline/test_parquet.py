"""Proves that reading Parquet starts no thread, which could end a finished command badly."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detent.offline.parquet import open_parquet, read_batches, read_parquet

COUNTED = """
import os, pathlib, sys
import pyarrow.parquet as pq
from detent.offline.parquet import open_parquet, read_batches, read_parquet

def read_in_batches(path):
    with open_parquet(path) as file:
        return list(read_batches(file))

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
{how}(pathlib.Path(sys.argv[1]))
print(threads() - before)
"""


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    numbers = list(range(60_000))
    pq.write_table(pa.table({"number": numbers, "text": [str(one) for one in numbers]}), path)
    return path


def threads_started(how: str, path: Path) -> int:
    """Count what a process of its own started to read a file."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.format(how=how), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_reading_starts_no_thread(path: Path) -> None:
    started = {how: threads_started(how, path) for how in ("read_parquet", "read_in_batches")}

    assert started == {"read_parquet": 0, "read_in_batches": 0}
    # The control: what Arrow does when it is not told otherwise.
    assert threads_started("pq.read_table", path) > 0


def test_a_file_is_read_whole_or_by_column_or_in_batches(path: Path) -> None:
    whole = pq.read_table(path)

    assert read_parquet(path) == whole
    assert read_parquet(path, ["text", "none"]) == whole.select(["text"])
    with open_parquet(path) as file:
        batches = list(read_batches(file, ["number"]))
    assert len(batches) > 1
    assert pa.Table.from_batches(batches) == whole.select(["number"])
