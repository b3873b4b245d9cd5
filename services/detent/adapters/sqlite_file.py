"""Run SQL against one SQLite file from an event loop, with durable group commits.

Rows that arrive while a commit is under way share the next one. All SQL runs on one thread,
so that the event loop never waits for the disk.
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from detent.contracts.errors import LedgerUnavailable

T = TypeVar("T")
# One statement and every row that it is to write.
Statement = tuple[str, Sequence[Sequence[object]]]
Row = tuple[Any, ...]
# About two megabytes of records: often enough to keep the log short, seldom enough to share.
CHECKPOINT_ROWS = 1_000


class Durability(enum.Enum):
    """Says how hard a commit is.

    FULL survives a crash of the process and of the machine. UNSAFE_MEMORY keeps rows in
    memory until the file is closed; it exists so that a test can show that it would fail.
    """

    FULL = "FULL"
    UNSAFE_MEMORY = "UNSAFE_MEMORY"


class SqliteFile:
    """Owns one file and the one thread that touches it."""

    def __init__(
        self, path: Path, schema: str, *, schema_version: int, durability: Durability
    ) -> None:
        """Open or create the file.

        Raises:
            LedgerUnavailable: The file cannot be opened or written, is no database, or one
                of another schema.
        """
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._pending: list[tuple[list[Statement], asyncio.Future[None]]] = []
        self._drain: asyncio.Task[None] | None = None
        self._durability = durability
        self._rows_in_log = 0
        self._db = self._thread.submit(self._open, path, schema, schema_version).result()

    def _open(self, path: Path, schema: str, schema_version: int) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            # The log is moved into the file by us, after the answers have left.
            db.execute("PRAGMA wal_autocheckpoint=0")
            _check_version(db, schema_version)
            db.executescript(schema)
            db.execute(f"PRAGMA user_version={schema_version}")
            if self._durability is Durability.UNSAFE_MEMORY:
                db.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error) from error
        return db

    async def write(self, statements: list[Statement]) -> None:
        """Write rows, all or none, and return once they are durable.

        Raises:
            LedgerUnavailable: Nothing was written; the message names the cause.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((statements, written))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._drain_pending())
        await written

    async def read(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[Row]:
        """Read rows.

        Raises:
            LedgerUnavailable: The file cannot be read.
        """
        return await self.use(lambda db: db.execute(sql, values).fetchall())

    async def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the file's thread; raises as `read` does."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, self._db)
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        """Write what is pending and close the file."""
        if self._drain is not None:
            await self._drain
        await self.use(_close)
        self._thread.shutdown()

    async def _drain_pending(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            error = await self._try_commit([rows for rows, _ in batch])
            if error is None or len(batch) == 1:
                for _, written in batch:
                    _settle(written, error)
            else:
                # Find out whose rows were at fault: one caller must not fail another.
                for rows, written in batch:
                    _settle(written, await self._try_commit([rows]))
            await self._try_checkpoint(sum(len(r) for rows, _ in batch for _, r in rows))

    async def _try_commit(self, batches: list[list[Statement]]) -> LedgerUnavailable | None:
        try:
            await self.use(functools.partial(self._commit, batches))
        except LedgerUnavailable as error:
            return error
        return None

    async def _try_checkpoint(self, row_count: int) -> None:
        """Move the log into the file now and then, while nobody waits for an answer.

        What goes wrong here is no loss, the log has it all; the next write will say so.
        """
        self._rows_in_log += row_count
        if self._rows_in_log < CHECKPOINT_ROWS or self._durability is not Durability.FULL:
            return
        self._rows_in_log = 0
        with contextlib.suppress(LedgerUnavailable):
            await self.use(lambda db: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    def _commit(self, batches: list[list[Statement]], db: sqlite3.Connection) -> None:
        if self._durability is Durability.UNSAFE_MEMORY:
            _execute(db, batches)
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            _execute(db, batches)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _check_version(db: sqlite3.Connection, expected: int) -> None:
    """Refuse a file that another version of us, or somebody else, has laid out."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    table_count = db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
    if table_count and found != expected:
        cause = f"found schema version {found}, expected {expected}"
        raise LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)


def _execute(db: sqlite3.Connection, batches: list[list[Statement]]) -> None:
    for statements in batches:
        for sql, rows in statements:
            db.executemany(sql, rows)


def _close(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("COMMIT")
    db.close()


def _settle(written: asyncio.Future[None], error: Exception | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)


def _unavailable(error: Exception) -> LedgerUnavailable:
    # SQLite's own text names no path; an OSError's does, so only its kind leaves.
    cause = str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
    return LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)
