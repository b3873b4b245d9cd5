"""Run SQL against one SQLite file from an event loop, with durable group commits.

Rows that arrive while a commit is under way share the next one. All SQL runs on one thread,
so that the event loop never waits for the disk. When the disk is full, only what says that it
must be kept is, in space that was held back for it.
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

import msgspec

from detent.adapters.disk_reserve import DiskReserve
from detent.contracts.errors import LedgerUnavailable

T = TypeVar("T")
# One statement and every row that it is to write.
Statement = tuple[str, Sequence[Sequence[object]]]
Row = tuple[Any, ...]
# The log is moved into the file when so many rows lie in it and nobody has written for a while,
# so that no commit waits for it: the burst of a bar ends long before the next. Whoever never
# rests waits once in so many more, so that the log is bounded.
CHECKPOINT_ROWS = 1_000
CHECKPOINT_ROWS_MAX = 4_000
REST_S = 0.25
NO_SPACE = "no durable place is left: exits only"


class _Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what somebody waits for: rows, and whether the reserve is there for them.

    What is to be `alone` shares its commit with nobody, and comes after what shares one.
    """

    statements: list[Statement]
    written: asyncio.Future[None]
    from_reserve: bool
    alone: bool

    def settle(self, error: Exception | None) -> None:
        """Tell who waits."""
        if self.written.done():
            return
        if error is None:
            self.written.set_result(None)
        else:
            self.written.set_exception(error)


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
        self,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        *,
        durability: Durability,
        reserve_bytes: int = 0,
    ) -> None:
        """Open or create the file.

        Args:
            path: The file; its folder is made.
            prepare: Brings an open file to the form that the caller wants.
            durability: How hard a commit is.
            reserve_bytes: Disk space to hold back for what must be written when it is full.

        Raises:
            LedgerUnavailable: The file cannot be opened or written, is no database, or one
                of another schema.
        """
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._pending: list[_Pending] = []
        self._drain: asyncio.Task[None] | None = None
        self._resting: asyncio.Task[None] | None = None
        self._durability = durability
        self._rows_in_log = 0
        self._is_full = False
        self._reserve = DiskReserve(path.with_name(path.name + ".reserve"), reserve_bytes)
        self._db = self._thread.submit(self._open, path, prepare).result()

    def _open(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None]
    ) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as opened:
                db = opened.enter_context(
                    contextlib.closing(sqlite3.connect(path, isolation_level=None))
                )
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                # The log is moved into the file by us, after the answers have left.
                db.execute("PRAGMA wal_autocheckpoint=0")
                prepare(db)
                if self._durability is Durability.UNSAFE_MEMORY:
                    db.execute("BEGIN IMMEDIATE")
                # Whatever was refused above is closed; what is kept is closed by `close`.
                opened.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error) from error
        self._is_full = not self._reserve.hold()
        return db

    async def write(
        self, statements: list[Statement], *, from_reserve: bool = False, alone: bool = False
    ) -> None:
        """Write rows, all or none, and return once they are durable.

        Args:
            statements: What to write.
            from_reserve: Whether to use the space that was held back, when there is no other.
            alone: Whether the commit is nobody else's; whoever shares one goes first.

        Raises:
            LedgerUnavailable: Nothing was written; the message names the cause.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(
            _Pending(statements=statements, written=written, from_reserve=from_reserve, alone=alone)
        )
        if not self._is_writing:
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
        if self._resting is not None:
            self._resting.cancel()
        await self.use(_close)
        self._thread.shutdown()

    @property
    def _is_writing(self) -> bool:
        return self._drain is not None and not self._drain.done()

    async def _drain_pending(self) -> None:
        while self._pending:
            batch = self._take_batch()
            error = await self._try_commit(batch)
            if error is None:
                for item in batch:
                    item.settle(None)
            else:
                # Find out whose rows were at fault: one caller must not fail another.
                for item in batch:
                    alone = len(batch) == 1 and not item.from_reserve
                    item.settle(error if alone else await self._try_alone(item))
            self._rows_in_log += sum(len(r) for item in batch for _, r in item.statements)
            if self._rows_in_log >= CHECKPOINT_ROWS_MAX:
                await self._try_checkpoint()
        if self._rows_in_log >= CHECKPOINT_ROWS and self._resting is None:
            self._resting = asyncio.create_task(self._checkpoint_at_rest())

    def _take_batch(self) -> list[_Pending]:
        """Take all that share a commit, or else the first that does not."""
        shared = [item for item in self._pending if not item.alone]
        batch = shared or self._pending[:1]
        self._pending = [item for item in self._pending if item.alone][len(batch) - len(shared) :]
        return batch

    async def _try_alone(self, item: _Pending) -> Exception | None:
        error = await self._try_commit([item])
        if error is None or not item.from_reserve or not self._is_full:
            return error
        # Nothing may enter the ledger but this, until there is room for the reserve again.
        if not await self.use(lambda _db: self._reserve.release()):
            return error
        return await self._try_commit([item])

    async def _try_commit(self, batch: list[_Pending]) -> Exception | None:
        try:
            await self.use(functools.partial(self._commit, batch))
        except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
            return error
        return None

    async def _checkpoint_at_rest(self) -> None:
        """Wait until nobody has written for a while, and move the log into the file."""
        seen = -1
        while seen != self._rows_in_log or self._is_writing:
            seen = self._rows_in_log
            await asyncio.sleep(REST_S)
        self._resting = None
        await self._try_checkpoint()

    async def _try_checkpoint(self) -> None:
        """Move the log into the file.

        What goes wrong here is no loss, the log has it all; the next write will say so.
        """
        self._rows_in_log = 0
        if self._durability is Durability.FULL:
            with contextlib.suppress(LedgerUnavailable):
                await self.use(lambda db: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    def _commit(self, batch: list[_Pending], db: sqlite3.Connection) -> None:
        if self._durability is Durability.UNSAFE_MEMORY:
            _execute(db, batch)
            return
        if self._is_full and not all(item.from_reserve for item in batch):
            self._check_space()
        db.execute("BEGIN IMMEDIATE")
        try:
            _execute(db, batch)
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._is_full = self._is_full or _means_full(error)
            raise
        self._is_full = not self._reserve.is_held and not self._reserve.hold()

    def _check_space(self) -> None:
        """Refuse until the reserve is held again: what it was given back for comes first."""
        if not self._reserve.hold():
            raise LedgerUnavailable(f"the ledger cannot be used: {NO_SPACE}", cause=NO_SPACE)


def _means_full(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _execute(db: sqlite3.Connection, batch: list[_Pending]) -> None:
    for item in batch:
        for sql, rows in item.statements:
            db.executemany(sql, rows)


def _close(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("COMMIT")
    db.close()


def _unavailable(error: Exception) -> LedgerUnavailable:
    # SQLite's own text names no path; an OSError's does, so only its kind leaves.
    cause = str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
    return LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)
