"""Proves that PostgreSQL gets every row of a ledger file once, in order, whatever happens to it."""

import asyncio
import functools
import logging
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, record_of, row_of, written_of
from tests.postgres_server import PostgresServer, postgres_server

from detent.adapters.ledger_columns import SHIPPED
from detent.adapters.ledger_migrating import migrate_postgresql
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.sqlite_ledger import BlockEvent, SqliteLedger
from detent.contracts import events
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import InvalidField
from detent.contracts.plan import PlanStatus
from detent.core.ledger.record import CHAIN_START, ChainPoint, bind_plan

PATIENCE_S = 30.0
BOUND = bind_plan(plan_of("plan"), PROXY_BINDING)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


class Writer:
    """Writes bars of one plan to a ledger file."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path)
        self.point = CHAIN_START

    async def open(self) -> None:
        await self.ledger.add_plan_event(BOUND, PlanStatus.OPEN)

    async def write(self, count: int) -> None:
        rows = []
        for _ in range(count):
            record = record_of(
                bound=BOUND,
                row=row_of(),
                ts_ms=START_MS + self.point.sequence * HOUR_MS,
                point=self.point,
            )
            rows.append(written_of(record))
            self.point = ChainPoint(
                sequence=record.sequence + 1,
                previous_hash=rows[-1].record_hash,
                state=record.state_after,
            )
        await self.ledger.add_records(rows)

    async def refuse(self) -> None:
        error = InvalidField("symbol", "a\tb\\N\nc", "a symbol")
        event = BlockEvent(
            at_ms=1, method="m", plan_id="plan", binding_hash="", ts_ms=None, error=error
        )
        await self.ledger.add_block_events([event])


async def filled(path: Path, bars: int) -> Writer:
    writer = Writer(path)
    await writer.open()
    await writer.write(bars)
    await writer.refuse()
    return writer


@contextmanager
def shipping(path: Path, url: str, *, batch_rows: int = 500) -> Iterator[LedgerShipper]:
    options = ShippingOptions(url=url, interval_s=0.02, batch_rows=batch_rows)
    shipper = LedgerShipper(path, options)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop(PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  A thread cannot set an event of ours.
            await asyncio.sleep(0.01)


async def shipped(shipper: LedgerShipper) -> None:
    await until(lambda: shipper.state.is_connected and shipper.state.lag_rows == 0)


def rows_of_file(path: Path, table: str) -> list[tuple[object, ...]]:
    columns = ", ".join(f'"{name}"' for name in ("id", *SHIPPED[table]))
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()


def rows_of_postgres(url: str, table: str) -> list[tuple[object, ...]]:
    columns = ", ".join(f'"{name}"' for name in ("id", *SHIPPED[table]))
    with psycopg.connect(url) as link:
        found = link.cursor()
        found.execute(f"SELECT {columns} FROM {table} ORDER BY id".encode())
        return found.fetchall()


def assert_complete(path: Path, url: str) -> None:
    for table in SHIPPED:
        assert rows_of_postgres(url, table) == rows_of_file(path, table), table


async def test_what_is_written_arrives_and_what_is_added_follows(
    path: Path, ledger_url: str
) -> None:
    writer = await filled(path, 700)
    with shipping(path, ledger_url, batch_rows=100) as shipper:
        await shipped(shipper)
        assert_complete(path, ledger_url)
        await writer.write(5)
        await until(lambda: len(rows_of_postgres(ledger_url, "decision_records")) == 705)
        state = shipper.state

    assert_complete(path, ledger_url)
    assert (state.conflict_count, state.trouble, state.is_alive) == (0, "", True)
    await writer.ledger.close()


async def test_nobody_hears_that_nothing_is_behind_before_it_was_counted(
    path: Path, ledger_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    writer = await filled(path, 30)
    with shipping(path, ledger_url) as shipper:
        await shipped(shipper)
    (said,) = [line for line in caplog.records if line.message == events.LEDGER_SHIPPING]

    # Thirty bars, their plan and a refusal.
    assert vars(said)["lag_rows"] == 32
    await writer.ledger.close()


async def test_a_user_that_may_only_add_is_enough(
    path: Path, ledger_url: str, postgres: PostgresServer
) -> None:
    user = f"user_{secrets.token_hex(4)}"
    postgres.do(f"CREATE ROLE {user} LOGIN")
    postgres.do(f"GRANT detent_writer TO {user}")
    url = postgres.url(ledger_url.rpartition("/")[2], user=user)
    writer = await filled(path, 10)
    with shipping(path, url) as shipper:
        await shipped(shipper)

    assert_complete(path, url)
    for statement in ("DELETE FROM fills", "UPDATE plan_log SET id = 0", "TRUNCATE plan_log"):
        with psycopg.connect(url) as link, pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute(statement.encode())
    await writer.ledger.close()


async def test_a_restart_goes_on_where_the_last_one_stopped(path: Path, ledger_url: str) -> None:
    writer = await filled(path, 10)
    for _ in range(4):
        with shipping(path, ledger_url) as shipper:
            await shipped(shipper)
        await writer.write(10)
    with shipping(path, ledger_url) as shipper:
        await shipped(shipper)

    assert_complete(path, ledger_url)
    await writer.ledger.close()


async def test_stopping_ships_what_is_left(path: Path, ledger_url: str) -> None:
    writer = await filled(path, 10)
    shipper = LedgerShipper(path, ShippingOptions(url=ledger_url, interval_s=60.0))
    shipper.start()
    await shipped(shipper)
    await writer.write(300)

    assert shipper.stop(PATIENCE_S)
    assert_complete(path, ledger_url)
    await writer.ledger.close()


@pytest.mark.parametrize("content", ["same", "other"])
async def test_a_row_that_is_there_is_compared_and_never_overwritten(
    path: Path, ledger_url: str, content: str
) -> None:
    writer = await filled(path, 20)
    own = rows_of_file(path, "decision_records")[10]
    planted = own if content == "same" else (*own[:-1], "{}")
    with psycopg.connect(ledger_url) as link:
        link.execute(
            "INSERT INTO decision_records VALUES ('another', %s, %s, %s, %s, %s, %s, %s, %s)",
            planted,
        )

    with shipping(path, ledger_url) as shipper:
        await shipped(shipper)
        await until(lambda: shipper.state.conflict_count == (content == "other"))

    found = rows_of_postgres(ledger_url, "decision_records")
    assert sorted(found) == sorted(
        [
            *rows_of_file(path, "decision_records")[:10],
            planted,
            *rows_of_file(path, "decision_records")[11:],
        ]
    )
    await writer.ledger.close()


async def test_a_file_of_an_earlier_day_is_not_shipped_over_a_later_one(
    path: Path, ledger_url: str
) -> None:
    """Its new rows have numbers that have arrived: silence would lose them."""
    writer = await filled(path, 5)
    await writer.ledger.close()
    earlier = path.read_bytes()  # noqa: ASYNC240
    writer = Writer(path)
    writer.point = (await reopened(path)).point
    await writer.write(5)
    with shipping(path, ledger_url) as shipper:
        await shipped(shipper)
    await writer.ledger.close()
    path.write_bytes(earlier)  # noqa: ASYNC240

    with shipping(path, ledger_url) as shipper:
        await until(lambda: shipper.state.trouble == "LedgerDiverged")

    assert len(rows_of_postgres(ledger_url, "decision_records")) == 10


async def reopened(path: Path) -> Writer:
    writer = Writer(path)
    (last,) = await writer.ledger.last_records(BOUND.plan)
    writer.point = ChainPoint(
        sequence=last.record.sequence + 1,
        previous_hash=last.record_hash,
        state=last.record.state_after,
    )
    await writer.ledger.close()
    return writer


async def test_a_database_without_the_tables_says_what_to_do(
    path: Path, postgres: PostgresServer
) -> None:
    writer = await filled(path, 1)
    postgres.do("DO $$ BEGIN CREATE ROLE detent_writer; EXCEPTION WHEN OTHERS THEN NULL; END $$")
    with shipping(path, postgres.url(postgres.fresh_database())) as shipper:
        await until(lambda: shipper.state.trouble != "")
        await until(lambda: shipper.state.lag_rows > 0)

        assert shipper.state.is_alive
    await writer.ledger.close()


# PostgreSQL in trouble


@pytest.fixture(name="fragile", scope="module")
def _fragile() -> Iterator[PostgresServer]:
    with postgres_server(max_connections=5, superuser_reserved_connections=2) as server:
        yield server


def fragile_url(server: PostgresServer) -> str:
    url = server.url(server.fresh_database())
    migrate_postgresql(url)
    return url


async def test_stopped_at_once_three_times_it_gets_everything(
    path: Path, fragile: PostgresServer
) -> None:
    await assert_outlives(path, fragile, _stopped, times=3)


async def test_paused_three_times_it_gets_everything(path: Path, fragile: PostgresServer) -> None:
    await assert_outlives(path, fragile, _paused, times=3)


async def test_out_of_connections_it_gets_everything(path: Path, fragile: PostgresServer) -> None:
    await assert_outlives(path, fragile, _crowded, times=2)


@pytest.mark.long
async def test_stopped_a_hundred_times_it_gets_everything(
    path: Path, fragile: PostgresServer
) -> None:
    await assert_outlives(path, fragile, _stopped, times=100)


@pytest.mark.long
async def test_paused_a_hundred_times_it_gets_everything(
    path: Path, fragile: PostgresServer
) -> None:
    await assert_outlives(path, fragile, _paused, times=100)


Trouble = Callable[[PostgresServer, Callable[[], None]], None]


def _stopped(server: PostgresServer, meanwhile: Callable[[], None]) -> None:
    server.stop_at_once()
    meanwhile()
    server.start(max_connections=5, superuser_reserved_connections=2)


def _paused(server: PostgresServer, meanwhile: Callable[[], None]) -> None:
    server.pause()
    meanwhile()
    server.resume()


def _crowded(server: PostgresServer, meanwhile: Callable[[], None]) -> None:
    server.do(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'detent-ledger'"
    )
    links = []
    with suppress(psycopg.OperationalError):
        while len(links) < 10:
            links.append(psycopg.connect(server.url()))
    assert len(links) <= 5
    meanwhile()
    for link in links:
        link.close()


async def assert_outlives(
    path: Path, server: PostgresServer, trouble: Trouble, *, times: int
) -> None:
    url = fragile_url(server)
    writer = await filled(path, 50)
    chance = random.Random(times)
    with shipping(path, url, batch_rows=20) as shipper:
        stop = asyncio.Event()
        writing = asyncio.create_task(_write_on(writer, stop))
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            pause_s = chance.uniform(0.05, 0.3)
            await asyncio.to_thread(trouble, server, functools.partial(time.sleep, pause_s))
        stop.set()
        await writing
        await shipped(shipper)
        state = shipper.state

    assert state.conflict_count == 0
    assert_complete(path, url)
    await writer.ledger.close()


async def _write_on(writer: Writer, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await writer.write(7)
        await asyncio.sleep(0.005)
