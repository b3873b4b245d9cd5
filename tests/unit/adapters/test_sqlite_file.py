"""Proves the one file: durable when a write returns, whole when one fails, typed when it cannot."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from detent.adapters import sqlite_file
from detent.adapters.sqlite_file import Durability, SqliteFile, Statement
from detent.contracts.errors import LedgerUnavailable

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);"


def prepare(db: sqlite3.Connection) -> None:
    db.executescript(SCHEMA)


def note(*texts: str) -> list[Statement]:
    return [("INSERT INTO notes (text) VALUES (?)", [(text,) for text in texts])]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "notes.sqlite"


@pytest.fixture(name="file")
async def _file(path: Path) -> AsyncIterator[SqliteFile]:
    file = SqliteFile(path, prepare, durability=Durability.FULL)
    yield file
    await file.close()


def texts_in(path: Path) -> list[str]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [text for (text,) in db.execute("SELECT text FROM notes ORDER BY id")]
    finally:
        db.close()


async def test_what_was_written_is_there_for_others_when_write_returns(
    file: SqliteFile, path: Path
) -> None:
    await file.write(note("one", "two"))

    assert texts_in(path) == ["one", "two"]


async def test_a_full_commit_waits_for_the_disk(file: SqliteFile) -> None:
    settings = [
        (await file.read(f"PRAGMA {name}"))[0][0] for name in ("synchronous", "journal_mode")
    ]

    assert settings == [2, "wal"]


async def test_writes_that_arrive_together_share_a_commit(file: SqliteFile) -> None:
    begun: list[str] = []
    await file.use(lambda db: db.set_trace_callback(begun.append))

    await asyncio.gather(*(file.write(note(f"note {number}")) for number in range(100)))

    await file.use(lambda db: db.set_trace_callback(None))
    assert begun.count("COMMIT") <= 3
    assert len(await file.read("SELECT * FROM notes")) == 100


async def moves_of(file: SqliteFile, *, commits: int) -> list[str]:
    """Write rows one by one, and follow how often the log is moved into the file from now on."""
    seen: list[str] = []

    def follow(sql: str) -> None:
        if "wal_checkpoint" in sql:
            seen.append(sql)

    await file.use(lambda db: db.set_trace_callback(follow))
    for number in range(commits):
        await file.write(note(f"note {number}"))
    return seen


async def test_the_log_is_moved_when_nobody_writes(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ROWS", 30)
    monkeypatch.setattr(sqlite_file, "REST_S", 0.5)

    moves = await moves_of(file, commits=60)
    while_busy = len(moves)
    await asyncio.sleep(2.0)

    assert (while_busy, len(moves)) == (0, 1)


async def test_few_rows_stay_in_the_log(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "REST_S", 0.01)

    moves = await moves_of(file, commits=1)
    await asyncio.sleep(0.2)

    assert moves == []


async def test_the_log_is_bounded_where_writers_never_rest(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ROWS_MAX", 30)
    monkeypatch.setattr(sqlite_file, "REST_S", 60.0)

    moves = await moves_of(file, commits=90)

    # The last move follows the last answer, and may be under way.
    assert len(moves) in {2, 3}


async def test_a_write_is_kept_whole_or_not_at_all(file: SqliteFile, path: Path) -> None:
    await file.write(note("taken"))

    with pytest.raises(LedgerUnavailable):
        await file.write(note("new", "taken"))

    assert texts_in(path) == ["taken"]


async def test_one_writers_fault_is_not_anothers(file: SqliteFile, path: Path) -> None:
    await file.write(note("taken"))

    outcomes = await asyncio.gather(
        *(file.write(note(text)) for text in ("a", "taken", "b", "taken", "c")),
        return_exceptions=True,
    )

    assert [isinstance(outcome, LedgerUnavailable) for outcome in outcomes] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert texts_in(path) == ["taken", "a", "b", "c"]


async def test_a_writer_that_left_harms_nobody(file: SqliteFile, path: Path) -> None:
    leaving = asyncio.create_task(file.write(note("left")))
    staying = asyncio.create_task(file.write(note("stayed")))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying

    assert texts_in(path) == ["left", "stayed"]


async def test_the_event_loop_does_not_wait_for_the_disk(file: SqliteFile) -> None:
    release = threading.Event()
    blocked = asyncio.create_task(file.use(lambda _db: release.wait(10)))

    await asyncio.sleep(0.01)
    assert not blocked.done()
    release.set()
    await blocked


async def test_a_full_file_is_a_typed_error_and_works_again_with_space(
    file: SqliteFile, path: Path
) -> None:
    await file.write(note("before"))
    pages = (await file.read("PRAGMA page_count"))[0][0]
    await file.read(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(LedgerUnavailable, match="full"):
        await file.write(note(*(f"{number} " * 500 for number in range(100))))
    assert texts_in(path) == ["before"]
    await file.read("PRAGMA max_page_count = 100000")
    await file.write(note("after"))

    assert texts_in(path) == ["before", "after"]


async def test_a_file_that_may_only_be_read_is_a_typed_error(file: SqliteFile, path: Path) -> None:
    await file.write(note("before"))
    await file.read("PRAGMA query_only = ON")

    with pytest.raises(LedgerUnavailable, match="readonly"):
        await file.write(note("while"))
    await file.read("PRAGMA query_only = OFF")
    await file.write(note("after"))

    assert texts_in(path) == ["before", "after"]


def test_a_file_that_is_no_database_cannot_be_opened(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 100)

    with pytest.raises(LedgerUnavailable, match="not a database"):
        SqliteFile(path, prepare, durability=Durability.FULL)


async def test_a_value_that_no_column_takes_is_told_to_whom_it_came_from(
    file: SqliteFile, path: Path
) -> None:
    """Whatever goes wrong in a commit, nobody waits for ever, and nobody else pays for it."""
    sql = "INSERT INTO notes (text) VALUES (?)"
    outcomes = await asyncio.wait_for(
        asyncio.gather(
            file.write(note("before")),
            file.write([(sql, [(2**70,)])]),
            file.write(note("after")),
            return_exceptions=True,
        ),
        timeout=10.0,
    )

    assert [type(one) for one in outcomes] == [type(None), OverflowError, type(None)]
    assert sorted(texts_in(path)) == ["after", "before"]


async def test_an_empty_file_is_a_new_one(path: Path) -> None:
    await asyncio.to_thread(path.touch)

    file = SqliteFile(path, prepare, durability=Durability.FULL)
    await file.write(note("first"))
    await file.close()

    assert texts_in(path) == ["first"]


def test_a_file_that_is_refused_is_closed(path: Path) -> None:
    """Whoever closes a file last takes its log away."""
    log = path.with_name(path.name + "-wal")

    def refuse(db: sqlite3.Connection) -> None:
        prepare(db)
        assert log.exists()
        raise LedgerUnavailable("it is of a later form", cause="a later form")

    with pytest.raises(LedgerUnavailable, match="later form") as refused:
        SqliteFile(path, refuse, durability=Durability.FULL)

    assert refused.tb is not None, "what the error refers to is still alive"
    assert not log.exists()


def test_a_folder_that_cannot_be_made_is_a_typed_error_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("x")

    with pytest.raises(LedgerUnavailable) as refused:
        SqliteFile(
            tmp_path / "in-the-way" / "notes.sqlite",
            prepare,
            durability=Durability.FULL,
        )

    assert str(tmp_path) not in refused.value.message
    assert refused.value.metadata["cause"]


async def test_unsafe_memory_keeps_rows_from_others_until_it_is_closed(path: Path) -> None:
    """It exists so that the test of durability has something that fails it."""
    file = SqliteFile(path, prepare, durability=Durability.UNSAFE_MEMORY)
    await file.write(note("volatile"))

    assert texts_in(path) == []
    await file.close()
    assert texts_in(path) == ["volatile"]
