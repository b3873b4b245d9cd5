"""Proves that every ledger comes to one form, and that a database keeps what it was given."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect
from tests.postgres_server import PostgresServer

from detent.adapters.ledger_columns import SHIPPED
from detent.adapters.ledger_migrating import connected, migrate_postgresql, new_file_script
from detent.adapters.ledger_tables import LOCAL_ONLY, POSTGRESQL, SQLITE, ledger_metadata
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_schema import SCHEMA_VERSION, SCRIPT_FILE
from detent.contracts.errors import LedgerUnavailable

FIRST_FILE = Path(__file__).parents[2] / "data" / "ledger_first_file.sql"

# SQLite cannot tell of an index over an expression; the script of a new file has it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection"),
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression"),
]


def test_a_new_file_is_laid_out_as_the_steps_would() -> None:
    assert SCRIPT_FILE.read_text() == new_file_script(), "run `make ledger-file`"


def test_what_is_shipped_is_what_the_tables_declare() -> None:
    declared = {
        name: tuple(column.name for column in table.columns if column.name != "id")
        for name, table in ledger_metadata(SQLITE).tables.items()
        if name not in LOCAL_ONLY
    }

    assert declared == SHIPPED


async def test_a_new_file_is_what_the_tables_declare(tmp_path: Path) -> None:
    await SqliteLedger(tmp_path / "ledger.sqlite").close()

    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, ledger_metadata(SQLITE)) == []
    engine.dispose()


def test_a_postgresql_database_is_what_the_tables_declare(ledger_url: str) -> None:
    with connected(ledger_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, ledger_metadata(POSTGRESQL)) == []
        assert set(inspect(connection).get_view_names()) == {"bar_decisions", "overrides"}


def test_migrating_again_changes_nothing(ledger_url: str) -> None:
    assert migrate_postgresql(ledger_url) == migrate_postgresql(ledger_url)


async def test_a_file_of_the_first_form_opens_with_all_that_it_held(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.executescript(FIRST_FILE.read_text())
    before = db.execute("SELECT * FROM decision_records").fetchall()
    db.close()

    ledger = SqliteLedger(path)
    found = await ledger.verify("")
    plans = await ledger.open_plans()
    await ledger.close()

    assert (found.record_count, found.breaks) == (len(before), ())
    assert [bound.plan.plan_id for bound in plans] == ["plan"]
    db = sqlite3.connect(path)
    assert db.execute("SELECT * FROM decision_records").fetchall() == before
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert db.execute("SELECT COUNT(*) FROM bar_decisions").fetchone() == (len(before),)
    assert len(db.execute("SELECT ledger_id FROM ledger_identity").fetchone()[0]) == 16
    db.close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        left = compare_metadata(context, ledger_metadata(SQLITE))
        # The first form did not say that a primary key is never null; SQLite needs no telling.
        assert {(name, column) for ((name, _, _, column, *_),) in left} == {
            ("modify_nullable", "id")
        }
    engine.dispose()


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.executescript(f"CREATE TABLE notes (text TEXT); PRAGMA user_version = {version};")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    before = path.read_bytes()

    with pytest.raises(LedgerUnavailable, match=f"found schema version {version}"):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_an_unreachable_database_is_a_typed_error_without_its_address() -> None:
    with pytest.raises(LedgerUnavailable) as refused:
        migrate_postgresql("postgresql://somebody:secret@127.0.0.1:9/ledger")

    assert "secret" not in refused.value.message
    assert "127.0.0.1" not in refused.value.message


@pytest.mark.parametrize("table", sorted(SHIPPED))
@pytest.mark.parametrize("verb", ["UPDATE {} SET id = id + 1", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_writing_role_may_only_add(
    postgres: PostgresServer, ledger_url: str, table: str, verb: str
) -> None:
    with psycopg.connect(ledger_url) as link:
        link.execute("SET ROLE detent_writer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute(verb.format(table))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "verb", ["UPDATE plan_log SET id = 1", "DELETE FROM fills", "TRUNCATE fills"]
)
def test_even_the_owner_is_refused_until_the_guards_are_dropped(ledger_url: str, verb: str) -> None:
    with (
        psycopg.connect(ledger_url) as link,
        pytest.raises(psycopg.errors.RaiseException, match="append-only"),
    ):
        link.execute(verb)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "url",
    ["", "x", "postgres://ada:secret@db/ledger", "postgresql://ada:secret@db:port/ledger"],
)
def test_what_is_no_address_of_a_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="expected postgresql://USER@HOST") as refused:
        migrate_postgresql(url)
    assert "secret" not in refused.value.message


def test_a_file_is_not_made_where_a_database_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="found sqlite://"):
        migrate_postgresql(f"sqlite:///{tmp_path}/ledger.sqlite")
    assert not list(tmp_path.iterdir())
