"""Read a ledger where it lies: a SQLite file, or PostgreSQL; the rest does not know which."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from detent.adapters.ledger_columns import BOUND, PLANS, SHIPPED
from detent.adapters.ledger_spans import EVERY, Span
from detent.adapters.sqlite_schema import BY_HASH, SCHEMA_VERSION, STORED
from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.errors import InvalidField, LedgerUnavailable, PlanNotFound
from detent.contracts.replanning import ReplanOutcome
from detent.contracts.units import INT64_MAX
from detent.core.ledger.chain import StoredRecord
from detent.core.replanning.measures import ReplanRow

Row = tuple[Any, ...]
FETCHED = 2_000
# Longer than that is no row's number, nor a text that is turned into one.
ID_DIGITS_MAX = len(str(INT64_MAX))
POSTGRESQL_PREFIX = "postgresql://"
# Whether a record names a reason, in whichever of the three places that hold one.
_SQLITE_REASONS = (
    "? IN (SELECT json_extract(canonical, '$.signal.fallback_reason')"
    " UNION ALL SELECT json_extract(canonical, '$.signal.proxy_reason')"
    " UNION ALL SELECT value FROM json_each(canonical, '$.outcome.reasons'))"
)
_POSTGRESQL_REASONS = (
    "? IN (SELECT canonical::jsonb #>> '{signal,fallback_reason}'"
    " UNION ALL SELECT canonical::jsonb #>> '{signal,proxy_reason}'"
    " UNION ALL SELECT jsonb_array_elements_text(canonical::jsonb #> '{outcome,reasons}'))"
)


# Compared byte by byte, as SQLite does, whatever the language of the database is.
POSTGRESQL_SYMBOL = 'symbol COLLATE "C"'


class LedgerReader(Protocol):
    """Reads one ledger; every call opens what it needs and closes it.

    Attributes:
        by_hash: Begins the search for records by the first 16 characters of their hashes.
    """

    by_hash: str

    def query(self, sql: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """Give rows as they come; `?` marks a value."""
        ...

    def stored(self, plan_id: str, span: Span = EVERY) -> Iterator[StoredRecord]:
        """Give the records of a plan, or of all, each chain in its order."""
        ...

    def symbol_counts(self, plan_id: str) -> list[tuple[str, int]]:
        """Give how many records each symbol of a plan, or of all, has, in the order of spans."""
        ...

    def table(self, name: str, source: str) -> Iterator[Row]:
        """Give the rows of one table of one ledger with their numbers, in their order."""
        ...

    def columns(self, name: str) -> tuple[str, ...]:
        """Name the columns of a table or a view."""
        ...

    def list_records(
        self, query: ListDecisionsRequest, source: str, after_id: int
    ) -> list[tuple[str, str]]:
        """Give (page token, canonical) of a page of records in the order of writing."""
        ...


class SqliteReader:
    """Reads a ledger file without ever writing to it."""

    by_hash = BY_HASH

    def __init__(self, path: Path) -> None:
        """Take a file of today's form.

        Raises:
            LedgerUnavailable: It is none.
        """
        self._path = path
        ((found,),) = self.query("PRAGMA user_version")
        if found != SCHEMA_VERSION:
            cause = f"found schema version {found}, expected {SCHEMA_VERSION}"
            raise LedgerUnavailable(f"the ledger cannot be read: {cause}", cause=cause)

    def query(self, sql: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """Give rows as they come; `?` marks a value."""
        try:
            with contextlib.closing(sqlite3.connect(self._address(), uri=True)) as db:
                yield from db.execute(sql, values)
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be read: {error}", cause=error) from error

    def _address(self) -> str:
        """Say how SQLite is to open the file.

        Whoever reads beside a writer shares a file with it, which SQLite makes where there is
        none. A copy that nobody writes to may lie where nothing can be made, as an auditor's does.
        """
        address = f"{self._path.absolute().as_uri()}?mode=ro"
        is_written = self._path.with_name(f"{self._path.name}-wal").exists()
        folder = self._path.absolute().parent
        if is_written or os.access(folder, os.W_OK, effective_ids=True):
            return address
        return f"{address}&immutable=1"

    def stored(self, plan_id: str, span: Span = EVERY) -> Iterator[StoredRecord]:
        """Give the records of a plan, or of all, each chain in its order."""
        where, values = _of_span(plan_id, span, "symbol")
        return self.query(f"SELECT {STORED} FROM decision_records {where} ORDER BY id", values)

    def symbol_counts(self, plan_id: str) -> list[tuple[str, int]]:
        """Give how many records each symbol of a plan, or of all, has, in the order of spans."""
        return _counted(self, plan_id, "symbol")

    def table(self, name: str, source: str) -> Iterator[Row]:  # noqa: ARG002  There is one.
        """Give the rows of one table with their numbers, in their order."""
        columns = ", ".join(f'"{column}"' for column in ("id", *SHIPPED[name]))
        return self.query(f"SELECT {columns} FROM {name} ORDER BY id")

    def columns(self, name: str) -> tuple[str, ...]:
        """Name the columns of a table or a view."""
        return tuple(row[0] for row in self.query("SELECT name FROM pragma_table_info(?)", (name,)))

    def list_records(
        self,
        query: ListDecisionsRequest,
        source: str,  # noqa: ARG002  There is one.
        after_id: int,
    ) -> list[tuple[str, str]]:
        """Give (page token, canonical) of a page of records in the order of writing."""
        where, values = _selected(query, _SQLITE_REASONS)
        rows = self.query(
            f"SELECT CAST(id AS TEXT), canonical FROM decision_records WHERE id > ?{where}"
            " ORDER BY id LIMIT ?",
            (after_id, *values, query.page_size),
        )
        return list(rows)


class PostgresReader:
    """Reads what owners have shipped to PostgreSQL."""

    by_hash = "SELECT canonical, record_hash FROM decision_records WHERE substr(record_hash, 1, 16)"

    def __init__(self, url: str) -> None:
        """Connect at every call."""
        self._url = url

    def query(self, sql: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """Give rows as they come; `?` marks a value."""
        import psycopg  # noqa: PLC0415  A reader of files does not need it.

        try:
            with (
                psycopg.connect(self._url, connect_timeout=5) as link,
                link.cursor("reading", binary=True) as cursor,
            ):
                cursor.execute(sql.replace("%", "%%").replace("?", "%s"), values)
                while rows := cursor.fetchmany(FETCHED):
                    yield from rows
        except psycopg.Error as error:
            # The driver's text may name hosts and users: only the kind of failure leaves.
            cause = f"PostgreSQL: {type(error).__name__}"
            raise LedgerUnavailable(f"the ledger cannot be read: {cause}", cause=cause) from error

    def stored(self, plan_id: str, span: Span = EVERY) -> Iterator[StoredRecord]:
        """Give the records of a plan, or of all, each chain in its order."""
        where, values = _of_span(plan_id, span, POSTGRESQL_SYMBOL)
        columns = "plan_id, symbol, ts_ms, kind, sequence, record_hash"
        text = "convert_to(canonical, 'UTF8')"
        return self.query(
            f"SELECT {columns}, {text} FROM decision_records {where} ORDER BY source, id", values
        )

    def symbol_counts(self, plan_id: str) -> list[tuple[str, int]]:
        """Give how many records each symbol of a plan, or of all, has, in the order of spans."""
        return _counted(self, plan_id, POSTGRESQL_SYMBOL)

    def table(self, name: str, source: str) -> Iterator[Row]:
        """Give the rows of one table of one ledger with their numbers, in their order."""
        columns = ", ".join(f'"{column}"' for column in ("id", *SHIPPED[name]))
        return self.query(f"SELECT {columns} FROM {name} WHERE source = ? ORDER BY id", (source,))

    def columns(self, name: str) -> tuple[str, ...]:
        """Name the columns of a table or a view."""
        sql = "SELECT column_name::text FROM information_schema.columns WHERE table_name = ?"
        return tuple(row[0] for row in self.query(f"{sql} ORDER BY ordinal_position", (name,)))

    def list_records(
        self, query: ListDecisionsRequest, source: str, after_id: int
    ) -> list[tuple[str, str]]:
        """Give (page token, canonical) of a page of records, one ledger after the other."""
        where, values = _selected(query, _POSTGRESQL_REASONS)
        rows = self.query(
            "SELECT source || '.' || id, canonical FROM decision_records"
            f" WHERE (source, id) > (?, ?){where} ORDER BY source, id LIMIT ?",
            (source, after_id, *values, query.page_size),
        )
        return list(rows)


def _of_span(plan_id: str, span: Span, symbol: str) -> tuple[str, list[object]]:
    """Give the WHERE of some symbols of a plan, or of all, and its values."""
    asked = (
        ("plan_id = ?", plan_id or None),
        (f"{symbol} >= ?", span.first),
        (f"{symbol} < ?", span.before),
    )
    selected = [(sql, value) for sql, value in asked if value is not None]
    where = " AND ".join(sql for sql, _ in selected)
    return f"WHERE {where}" if where else "", [value for _, value in selected]


def _counted(reader: LedgerReader, plan_id: str, symbol: str) -> list[tuple[str, int]]:
    where, values = _of_span(plan_id, EVERY, symbol)
    sql = f"SELECT symbol, count(*) FROM decision_records {where} GROUP BY symbol"
    rows = reader.query(f"{sql} ORDER BY {symbol}", values)
    return [(name, count) for name, count in rows]


def _selected(query: ListDecisionsRequest, of_reason: str) -> tuple[str, list[object]]:
    """Give what a question adds to a WHERE, and its values."""
    reason = query.reason.value if query.reason is not None else None
    asked = (
        ("plan_id = ?", query.plan_id or None),
        ("symbol = ?", query.symbol or None),
        ("ts_ms >= ?", query.from_ts_ms),
        ("ts_ms < ?", query.until_ts_ms),
        (of_reason, reason),
    )
    selected = [(sql, value) for sql, value in asked if value is not None]
    where = "".join(f" AND {sql}" for sql, _ in selected)
    return where, [value for _, value in selected]


def open_reader(place: str) -> LedgerReader:
    """Give the reader of a `postgresql://` address or of a file.

    Raises:
        LedgerUnavailable: The file is not there, or no ledger of today's form.
    """
    if place.startswith(POSTGRESQL_PREFIX):
        return PostgresReader(place)
    if not Path(place).is_file():
        # Of an address only its kind: the rest may hold a password.
        kind, is_address, _ = place.partition("://")
        found = f"found {kind}://" if is_address else f"found no file {place!r}"
        cause = f"{found}, expected a ledger file or {POSTGRESQL_PREFIX}USER@HOST/DATABASE"
        raise LedgerUnavailable(f"the ledger cannot be read: {cause}", cause=cause)
    return SqliteReader(Path(place))


def token_of(page_token: str) -> tuple[str, int]:
    """Read where a page continues: the ledger, and the number of its last row there.

    Raises:
        InvalidField: No page gave such a token.
    """
    source, _, number = page_token.rpartition(".")
    is_number = number.isdecimal() and len(number) <= ID_DIGITS_MAX
    if page_token and not (is_number and int(number) <= INT64_MAX):
        raise InvalidField("page_token", page_token, "a token that a page gave")
    return source, int(number or 0)


def record_row(reader: LedgerReader, record_hash: str) -> Row | None:
    """Give (canonical, hash) of a record by its hash, whole or in its display form.

    Raises:
        InvalidField: Several records have this display form.
        LedgerUnavailable: The ledger cannot be read.
    """
    found = list(
        reader.query(
            f"{reader.by_hash} = ? AND substr(record_hash, 1, ?) = ?",
            (record_hash[:16], len(record_hash), record_hash),
        )
    )
    if len(found) > 1:
        raise InvalidField("record_hash", record_hash, "all 64 hex: several records begin so")
    return found[0] if found else None


def plan_row(reader: LedgerReader, plan_id: str) -> Row | None:
    """Give the texts of a bound plan, if it is there."""
    sql = f"SELECT {BOUND} FROM {PLANS} WHERE plan_id = ? AND event = 'opened'"
    return next(iter(list(reader.query(sql, (plan_id,)))), None)


def check_plan_known(readers: Sequence[LedgerReader], plan_id: str) -> None:
    """Refuse the name of a plan that no ledger has heard of; nothing was found is no verdict.

    Raises:
        PlanNotFound: None has.
        LedgerUnavailable: One cannot be read.
    """
    if not any(plan_row(reader, plan_id) for reader in readers):
        raise PlanNotFound(f"no plan is named {plan_id!r}", plan_id=plan_id)


def plan_rows(reader: LedgerReader) -> Iterator[Row]:
    """Give the name of every plan that was opened, and the texts of its bound plan."""
    return iter(reader.query(f"SELECT plan_id, {BOUND} FROM {PLANS} WHERE event = 'opened'"))


def canonical_texts(reader: LedgerReader, table: str, plan_id: str) -> Iterator[bytes]:
    """Give the canonical texts of a plan, or of all when its name is empty, chains in order."""
    # By the number alone: the rows of each ledger, and so each chain, come in their order.
    sql = f"SELECT canonical FROM {table} WHERE (? = '' OR plan_id = ?) ORDER BY id"
    for (text,) in reader.query(sql, (plan_id, plan_id)):
        yield str(text).encode()


def replan_rows(reader: LedgerReader, book: str) -> list[ReplanRow]:
    """Give what is counted of every replan of a book; raises as the reader does."""
    rows = reader.query("SELECT ts_ms, outcome, reason FROM replans WHERE book = ?", (book,))
    return [
        ReplanRow(ts_ms=ts_ms, outcome=ReplanOutcome(outcome), reason=reason)
        for ts_ms, outcome, reason in rows
    ]
