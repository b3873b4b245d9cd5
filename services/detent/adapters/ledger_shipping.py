"""Ship what is durable in a ledger file to PostgreSQL, in order and once.

A thread of its own reads the file through a connection of its own, so that no decision waits
for it. What has arrived is read back from PostgreSQL, where it commits with the rows: there is
no second place that could say otherwise after a crash. A row that is there already is compared;
other content under the same key is refused, reported and never overwritten.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from detent.adapters.ledger_columns import SHIPPED, STEP, WRITER
from detent.contracts import events
from detent.contracts.errors import DetentError, LedgerUnavailable

log = logging.getLogger(__name__)

CONNECT_S_MAX = 3
STATEMENT_MS_MAX = 30_000
BACKOFF_S = 0.1
BACKOFF_S_MAX = 10.0
CONFLICTS_KEPT = 1_000
Link = psycopg.Connection[tuple[Any, ...]]
Row = tuple[Any, ...]


class ShippingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Says where to ship and how.

    Attributes:
        url: The database; its user is a member of `detent_writer`.
        batch_rows: Rows of one transaction.
        interval_s: How long to wait when nothing is left.
    """

    url: str
    batch_rows: int = 1_000
    interval_s: float = 0.2


class ShippingState(msgspec.Struct, frozen=True, kw_only=True):
    """Says how far behind PostgreSQL is.

    Attributes:
        is_alive: Whether the thread runs.
        is_connected: Whether PostgreSQL answers.
        lag_rows: Rows that are durable here and not there.
        behind_s: For how long that has not been zero, in seconds.
        conflict_count: Rows that were refused because the key holds other content.
        trouble: Kind of the last failure, or empty.
    """

    is_alive: bool
    is_connected: bool
    lag_rows: int
    behind_s: float
    conflict_count: int
    trouble: str


class LedgerDiverged(DetentError):
    """PostgreSQL holds rows of this ledger that the file does not."""


class LedgerShipper:
    """Owns the thread that ships one file."""

    def __init__(self, path: Path, options: ShippingOptions) -> None:
        """Ship nothing yet; the file exists and has today's form."""
        self._path = path
        self._options = options
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._marks: dict[str, int] = {}
        self._lag_rows = 0
        self._behind_since_s: float | None = None
        self._conflicts: set[tuple[str, int]] = set()
        self._is_connected = False
        self._trouble = ""

    @property
    def state(self) -> ShippingState:
        """Say how far behind PostgreSQL is."""
        since_s = self._behind_since_s
        return ShippingState(
            is_alive=self._thread is not None and self._thread.is_alive(),
            is_connected=self._is_connected,
            lag_rows=self._lag_rows,
            behind_s=0.0 if since_s is None else time.monotonic() - since_s,
            conflict_count=len(self._conflicts),
            trouble=self._trouble,
        )

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="ledger-shipper", daemon=True)
            self._thread.start()

    def stop(self, drain_s: float) -> bool:
        """Ship what is left within a time, stop, and say whether all of it arrived."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(drain_s)
        return self._lag_rows == 0 and not self.state.is_alive

    def _run(self) -> None:
        with contextlib.closing(self._open_file()) as db:
            (source,) = db.execute("SELECT ledger_id FROM ledger_identity").fetchone()
            backoff_s = BACKOFF_S
            while True:
                try:
                    with self._connected() as link:
                        self._take_marks(db, link, source)
                        # Before anybody reads that we are connected, and nothing behind.
                        self._measure(db)
                        self._note_connected()
                        backoff_s = BACKOFF_S
                        self._ship_on(db, link, source)
                        return
                except (psycopg.Error, sqlite3.Error, OSError, DetentError) as error:
                    self._note_trouble(error)
                self._measure(db)
                if self._stopping.wait(backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    def _open_file(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Link]:
        link = psycopg.connect(
            self._options.url,
            autocommit=True,
            connect_timeout=CONNECT_S_MAX,
            application_name="detent-ledger",
            keepalives_idle=5,
            keepalives_interval=5,
            keepalives_count=2,
            options=f"-c statement_timeout={STATEMENT_MS_MAX}",
        )
        try:
            # Whoever we are, from here on we may only add.
            link.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(WRITER)))
            yield link
        finally:
            link.close()

    def _take_marks(self, db: sqlite3.Connection, link: Link, source: str) -> None:
        """Find out what has arrived, and that it is what we hold.

        Raises:
            LedgerUnavailable: The database has another form.
            LedgerDiverged: The last row that arrived is not ours: the file was put back to an
                earlier day, or one of the two was edited. Rows under its numbers would be lost.
        """
        found = link.execute("SELECT version_num FROM alembic_version").fetchone()
        if found != (STEP,):
            cause = f"PostgreSQL is at step {found and found[0]}, expected {STEP}"
            raise LedgerUnavailable(f"{cause}: run detent ledger migrate", cause=cause)
        for table, columns in SHIPPED.items():
            names = sql.SQL(", ").join(map(sql.Identifier, ("id", *columns)))
            last = link.execute(
                sql.SQL("SELECT {} FROM {} WHERE source = %s ORDER BY id DESC LIMIT 1").format(
                    names, sql.Identifier(table)
                ),
                (source,),
            ).fetchone()
            if last is not None and not self._is_ours(db, table, last):
                raise LedgerDiverged(
                    f"{table}: row {last[0]} in PostgreSQL is not the one in the file",
                    table=table,
                    row=last[0],
                )
            self._marks[table] = last[0] if last is not None else 0

    @staticmethod
    def _is_ours(db: sqlite3.Connection, table: str, last: Row) -> bool:
        columns = ", ".join(f'"{name}"' for name in ("id", *SHIPPED[table]))
        own = db.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (last[0],)).fetchone()
        # Old refusals are forgotten here and kept there.
        return own == last or (own is None and table == "block_events")

    def _ship_on(self, db: sqlite3.Connection, link: Link, source: str) -> None:
        """Ship until we are told to stop, and then once more."""
        while True:
            is_last = self._stopping.is_set()
            shipped = 0
            for table, limit in self._measure(db).items():
                shipped += self._ship_table(db, link, source, table, limit)
            self._measure(db)
            if is_last:
                return
            if not shipped:
                # Nobody would notice a lost link until there is something to send.
                link.execute("SELECT 1")
                self._stopping.wait(self._options.interval_s)

    def _measure(self, db: sqlite3.Connection) -> dict[str, int]:
        """Note how far behind PostgreSQL is and give the last number of each table, at once."""
        limits = " UNION ALL ".join(
            f"SELECT '{table}', COALESCE(MAX(id), 0) FROM {table}" for table in SHIPPED
        )
        # One statement is one moment: no record is seen whose plan is not.
        found: dict[str, int] = dict(db.execute(limits).fetchall())
        self._lag_rows = sum(last - self._marks.get(table, 0) for table, last in found.items())
        if self._lag_rows == 0:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = time.monotonic()
        return found

    def _ship_table(
        self, db: sqlite3.Connection, link: Link, source: str, table: str, limit: int
    ) -> int:
        columns = ", ".join(f'"{name}"' for name in ("id", *SHIPPED[table]))
        query = f"SELECT {columns} FROM {table} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        shipped = 0
        while self._marks[table] < limit:
            values = (self._marks[table], limit, self._options.batch_rows)
            # All at once: a reader that waits for PostgreSQL would keep the file's log growing.
            rows = db.execute(query, values).fetchall()
            if not rows:
                break
            try:
                self._copy(link, source, table, rows)
            except psycopg.errors.UniqueViolation:
                self._add_one_by_one(link, source, table, rows)
            self._marks[table] = rows[-1][0]
            shipped += len(rows)
        self._marks[table] = max(self._marks[table], limit)
        return shipped

    @staticmethod
    def _copy(link: Link, source: str, table: str, rows: list[Row]) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, ("source", "id", *SHIPPED[table])))
        command = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        with link.transaction(), link.cursor() as cursor, cursor.copy(command) as copy:
            for row in rows:
                copy.write_row((source, *row))

    def _add_one_by_one(self, link: Link, source: str, table: str, rows: list[Row]) -> None:
        """Add what is not there, and tell what is there alike from what is there otherwise."""
        columns = SHIPPED[table]
        names = sql.SQL(", ").join(map(sql.Identifier, ("source", "id", *columns)))
        holes = sql.SQL(", ").join(sql.Placeholder() for _ in ("source", "id", *columns))
        add = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
            sql.Identifier(table), names, holes
        )
        alike = sql.SQL("SELECT 1 FROM {} WHERE {}").format(
            sql.Identifier(table),
            sql.SQL(" AND ").join(
                sql.SQL("{} IS NOT DISTINCT FROM {}").format(
                    sql.Identifier(name), sql.Placeholder()
                )
                for name in columns
            ),
        )
        with link.transaction():
            for row in rows:
                was_added = link.execute(add, (source, *row)).rowcount == 1
                if not was_added and link.execute(alike, row[1:]).fetchone() is None:
                    self._note_conflict(table, row)

    def _note_conflict(self, table: str, row: Row) -> None:
        if (table, row[0]) in self._conflicts or len(self._conflicts) >= CONFLICTS_KEPT:
            return
        self._conflicts.add((table, row[0]))
        facts = {"table": table, "row": row[0]}
        log.error(events.LEDGER_CONFLICT, extra=facts)

    def _note_connected(self) -> None:
        self._is_connected, self._trouble = True, ""
        log.info(events.LEDGER_SHIPPING, extra={"lag_rows": self._lag_rows})

    def _note_trouble(self, error: Exception) -> None:
        """Say once per kind of trouble that it is there; the driver's text may name hosts."""
        trouble = type(error).__name__
        if self._is_connected or trouble != self._trouble:
            event = events.LEDGER_SHIPPING_LOST
            if isinstance(error, LedgerDiverged):
                event = events.LEDGER_DIVERGED
            facts: dict[str, object] = {"error": trouble, "lag_rows": self._lag_rows}
            if isinstance(error, DetentError):
                facts |= {"message_text": error.message}
            log.error(event, extra=facts)
        self._is_connected, self._trouble = False, trouble
