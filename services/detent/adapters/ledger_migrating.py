"""Bring a ledger's database to the form that `ledger_tables` declares, in place."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import StaticPool

import detent.adapters.ledger_migrations as steps
from detent.adapters.ledger_tables import POSTGRESQL
from detent.adapters.sqlite_schema import SCRIPT_FILE, SEPARATOR
from detent.contracts.errors import LedgerUnavailable

# The form of a file before there were steps, and the step that it stands for.
FIRST_FILE = 1
# One at a time, over all processes: any number that nobody else locks.
MIGRATION_LOCK = 0x6465_7465_6E74


def migrate_sqlite(db: sqlite3.Connection, *, found: int, wanted: int) -> None:
    """Bring an open file to the wanted form, all or nothing.

    Args:
        db: The file, in autocommit mode.
        found: Its `user_version`; 0 for a new file.
        wanted: The `user_version` that it has afterwards.
    """
    engine = create_engine("sqlite://", creator=lambda: db, poolclass=StaticPool)
    # The driver must not commit by itself in the middle.
    event.listen(engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        # Whoever came first may have done it meanwhile.
        if connection.execute(text("PRAGMA user_version")).scalar_one() != found:
            return
        _upgrade(connection, stamped="0001" if found == FIRST_FILE else None)
        connection.execute(text(f"PRAGMA user_version = {wanted}"))


def new_file_script() -> str:
    """Give the statements that make a file of the newest form at once.

    They are kept in `ledger_file.sql`, so that a new file needs no Alembic; `make ledger-file`
    writes them, and a test holds them to what the steps give.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate_sqlite(db, found=0, wanted=1)
        found = db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
        statements = [sql.replace(" \n", "\n").strip() for (sql,) in found]
        ((step,),) = db.execute("SELECT version_num FROM alembic_version").fetchall()
    statements.append(f"INSERT INTO alembic_version (version_num) VALUES ('{step}')")
    statements.append("INSERT INTO ledger_identity (id, ledger_id) VALUES (1, :ledger_id)")
    return SEPARATOR.join(statements) + SEPARATOR


def migrate_postgresql(url: str) -> str:
    """Bring a PostgreSQL database to the newest form and give its name.

    Needs the rights of the tables' owner and, once, to make a role.

    Raises:
        LedgerUnavailable: It cannot be reached or changed.
    """
    with connected(url) as connection, connection.begin():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        _upgrade(connection, stamped=None)
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    return str(found)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect to PostgreSQL through the driver that we ship with.

    Raises:
        LedgerUnavailable: It is no address of one, or cannot be reached or used.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  Only on the way to PostgreSQL.

    engine = _engine_of(url)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        # The driver's text may name hosts and users: only the kind of failure leaves.
        cause = type(error).__name__
        raise LedgerUnavailable(f"PostgreSQL cannot be used: {cause}", cause=cause) from error
    finally:
        engine.dispose()


def _engine_of(url: str) -> Engine:
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415  Only on the way to PostgreSQL.

    kind, _, rest = url.partition("://")
    # Of an address only its kind: the rest may hold a password.
    cause = f"found {kind}://, expected postgresql://USER@HOST/DATABASE"
    if kind != POSTGRESQL:
        raise LedgerUnavailable(f"PostgreSQL cannot be used: {cause}", cause=cause)
    try:
        return create_engine(f"postgresql+psycopg://{rest}")
    except (ArgumentError, ValueError) as error:
        raise LedgerUnavailable(f"PostgreSQL cannot be used: {cause}", cause=cause) from error


def _upgrade(connection: Connection, *, stamped: str | None) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(steps.__file__).parent))
    config.attributes["connection"] = connection
    if stamped is not None:
        command.stamp(config, stamped)
    command.upgrade(config, "head")


if __name__ == "__main__":
    SCRIPT_FILE.write_text(new_file_script(), encoding="utf-8")
