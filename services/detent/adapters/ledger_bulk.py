"""Write a whole ledger file at once: for a run that can be run again, not for a live one.

Nothing is durable until all of it is: the file is written under another name, without a journal,
and takes its own name when it is whole. Records come in the order of their keys, so that each goes
to the end of its indexes: to lay those out afterwards would read the whole file for every one.
"""

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detent.adapters.sqlite_schema import prepare
from detent.adapters.sqlite_trades import FILLS
from detent.contracts.binding import ModelBinding
from detent.contracts.canonical import canonical_bytes
from detent.contracts.errors import LedgerUnavailable
from detent.contracts.json_codec import to_json
from detent.contracts.plan import Plan
from detent.core.ledger.record import BoundPlan

PARTIAL = ".partial"
PAGE_BYTES = 32_768
# What a record is filed as, beside its plan and its kind.
FILED = ("symbol", "ts_ms", "sequence", "record_hash", "canonical")
_RECORDS = f"INSERT INTO decision_records (plan_id, kind, {', '.join(FILED)}) VALUES "
# What all have in common is bound once.
_RECORD = f"(?1, ?2{', ?' * len(FILED)})"
_PLAN = (
    "INSERT INTO plan_log (plan_id, event, book, binding_hash, plan, binding)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)


class BulkLedger:
    """Writes one plan, its records, fills and summary into a file of its own."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Take a file of today's form."""
        self._db = db

    def open_plan(self, bound: BoundPlan) -> None:
        """Note that a plan was opened."""
        self._note(bound, "opened")

    def add_records(self, plan_id: str, kind: str, batches: Iterable[Sequence[object]]) -> None:
        """File records, bar by bar.

        Args:
            plan_id: Their plan.
            kind: Their kind.
            batches: Each the `FILED` of some records, one record after the other. A batch is
                one statement: to begin and end one costs as much as to file a record.
        """
        for batch in batches:
            self._db.execute(_filing(len(batch) // len(FILED)), [plan_id, kind, *batch])

    def add_fills(self, rows: Iterable[Sequence[object]]) -> None:
        """File fills: name, plan, book, symbol, time, canonical text."""
        self._db.executemany(FILLS.insert, rows)

    def close_plan(self, bound: BoundPlan, summary: bytes) -> None:
        """Note that a plan was closed, and what it did."""
        self._note(bound, "closed")
        self._db.execute(
            "INSERT INTO results_summary (plan_id, book, canonical) VALUES (?, ?, ?)",
            (bound.plan.plan_id, bound.plan.book, summary.decode("ascii")),
        )

    def _note(self, bound: BoundPlan, event: str) -> None:
        plan, binding = (
            canonical_bytes(kind.SCHEMA, to_json(value)).decode("ascii")
            for kind, value in ((Plan, bound.plan), (ModelBinding, bound.binding))
        )
        values = (bound.plan.plan_id, event, bound.plan.book, bound.binding_hash, plan, binding)
        self._db.execute(_PLAN, values)


@functools.cache
def _filing(count: int) -> str:
    """Write the statement that files so many records."""
    return _RECORDS + ", ".join([_RECORD] * count)


@contextlib.contextmanager
def bulk_ledger(path: Path) -> Iterator[BulkLedger]:
    """Give a ledger to write into; the file is there, whole, when the block ends without error.

    Raises:
        LedgerUnavailable: The file cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        db = sqlite3.connect(partial, isolation_level=None)
        with contextlib.closing(db):
            # Large pages: fewer writes, and less space left over beside records of two kilobytes.
            db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            prepare(db)
            db.execute("BEGIN")
            yield BulkLedger(db)
            db.execute("COMMIT")
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (sqlite3.Error, OSError) as error:
        cause = str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
        raise LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause) from error
    finally:
        partial.unlink(missing_ok=True)
