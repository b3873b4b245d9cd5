"""Open the control database: one for registry, rollouts and kill switch, by URL.

Whoever writes does so alone, over all processes: in PostgreSQL by a lock of the transaction, in
SQLite by taking the file at once. So what a writer read is still so when it writes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Text, column, create_engine, event, inspect, select, table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

import detent.adapters.control_migrations as steps
from detent.adapters.ledger_tables import POSTGRESQL, SQLITE
from detent.contracts.errors import ControlUnavailable, InvalidField

VERSION_TABLE = "control_version"
NEWEST_STEP = "0004"
# One writer at a time, over all processes: any number that nobody else locks.
WRITE_LOCK = 0x636F_6E74_726F
# How long a writer waits for another one of a SQLite file.
WAIT_S = 30.0
# A host that is gone says nothing: libpq finds that out within seconds, and not hours.
LIVELY = {
    "connect_timeout": 2,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 3_000,
}


class ControlDatabase:
    """Gives transactions on one control database; every one connects and lets go."""

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        """Take `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; nothing is opened yet.

        Args:
            url: Where it lies.
            must_exist: Whether a file that is not there, or was never laid out, is an error; else
                it is made.

        Raises:
            InvalidField: The URL is of another kind.
            ControlUnavailable: There is no such file.
        """
        kind, _, rest = url.partition("://")
        expected = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        if kind not in (SQLITE, POSTGRESQL) or not rest:
            raise InvalidField("control_url", kind or "(nothing)", expected)
        try:
            make_url(url)
        except (ArgumentError, ValueError) as error:
            # What stands behind the kind may hold a password.
            raise InvalidField("control_url", f"{kind}://...", expected) from error
        self._dialect = kind
        self._must_exist = must_exist
        self._is_prepared = False
        self._url = url if kind == SQLITE else url.replace(kind, f"{kind}+psycopg", 1)
        if kind == SQLITE:
            file = Path(rest.removeprefix("/"))
            if must_exist and not file.is_file():
                message = f"found no file {file}, expected a control database"
                raise ControlUnavailable(message, file=file)
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)

    def migrate(self) -> str:
        """Bring it to today's form and name the step.

        Raises:
            ControlUnavailable: It cannot be reached or changed.
        """
        with self._connected() as connection, self._alone(connection):
            config = Config()
            config.set_main_option("script_location", str(Path(steps.__file__).parent))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return self._step(connection) or ""

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction that no other writer runs beside; it is committed at the end.

        Raises:
            ControlUnavailable: It cannot be used, or is not of today's form.
        """
        self._prepare()
        with self._connected() as connection, self._alone(connection):
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction that only reads.

        Raises:
            ControlUnavailable: It cannot be used, or is not of today's form.
        """
        self._prepare()
        with self._connected() as connection:
            yield connection

    def _prepare(self) -> None:
        """See that the tables are there; a file of our own is laid out on the way."""
        if self._is_prepared:
            return
        with self._connected() as connection:
            found = self._step(connection)
            is_empty = found is None and not inspect(connection).get_table_names()
        if found != NEWEST_STEP:
            self._lay_out(found, is_empty=is_empty)
        self._is_prepared = True

    def _lay_out(self, found: str | None, *, is_empty: bool) -> None:
        if self._dialect == SQLITE and found is None and (self._must_exist or not is_empty):
            # Somebody named a ledger, or another file: what is written there nobody obeys.
            held = "an empty file" if is_empty else "a file with tables of something else"
            message = f"found {held}, expected a control database"
            raise ControlUnavailable(message, found=held, expected="a control database")
        if self._dialect == POSTGRESQL or found is not None:
            message = f"found step {found}, expected {NEWEST_STEP}; run detent registry migrate"
            raise ControlUnavailable(message, found=found, expected=NEWEST_STEP)
        self.migrate()

    def _step(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        asked = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
        return connection.execute(asked).scalar_one_or_none()

    @contextlib.contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        # What was read on the way here may be of a transaction that is still open.
        connection.rollback()
        with connection.begin():
            if self._dialect == POSTGRESQL:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))
            yield

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        options: dict[str, Any] = {"timeout": WAIT_S} if self._dialect == SQLITE else LIVELY
        engine = create_engine(self._url, connect_args=options)
        if self._dialect == SQLITE:
            event.listen(engine, "connect", _leave_transactions_to_us)
            event.listen(engine, "begin", _take_at_once)
        try:
            with engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            # The driver's text may name hosts and users: only the kind of failure leaves.
            cause = type(error).__name__
            message = f"the control database cannot be used: {cause}"
            raise ControlUnavailable(message, cause=cause) from error
        finally:
            engine.dispose()


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _take_at_once(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
