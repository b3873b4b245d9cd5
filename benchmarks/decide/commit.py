"""Commit the ledger's own bytes to a bare table: what durability alone costs."""

import sqlite3
import time
from pathlib import Path

from benchmarks.decide.timing import Timing, timing_of

TABLE = "CREATE TABLE bare (id INTEGER PRIMARY KEY, record_hash TEXT, canonical TEXT)"
INSERT = "INSERT INTO bare (record_hash, canonical) VALUES (?, ?)"


def read_records(ledger_file: Path, count: int) -> list[tuple[str, str]]:
    """Read the newest records of a ledger, as (hash, canonical text)."""
    sql = "SELECT record_hash, canonical FROM decision_records ORDER BY id DESC LIMIT ?"
    db = sqlite3.connect(ledger_file)
    try:
        return [(str(row[0]), str(row[1])) for row in db.execute(sql, (count,))]
    finally:
        db.close()


def measure_commits(folder: Path, records: list[tuple[str, str]], *, repeats: int) -> Timing:
    """Commit the same records again and again, each time in one transaction.

    The settings are the ledger's: write-ahead log, synchronous FULL, the same disk. The
    table has neither generated columns nor indexes nor triggers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bare.sqlite"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(TABLE)
        times_us = []
        for _ in range(repeats):
            started_ns = time.perf_counter_ns()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(INSERT, records)
            db.execute("COMMIT")
            times_us.append((time.perf_counter_ns() - started_ns) / 1_000)
    finally:
        db.close()
    return timing_of(times_us)
