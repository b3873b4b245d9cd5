"""Measure the ledger: rows written and chained, shipped, verified, beside bare batched inserts.

    python -m benchmarks.policy.ledger [--rows 20000] [--postgres URL]

Every pair is measured in turn within one run, several times, and the best of each is compared:
figures of one run are ratios, not promises. Without a URL a PostgreSQL of the development group
is started, with fsync on.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from tests.builders import HOUR_MS, START_MS, plan_of, record_of, row_of
from tests.postgres_server import postgres_server

from detent.adapters.ledger_migrating import migrate_postgresql
from detent.adapters.ledger_reading import PostgresReader, SqliteReader, audit
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.plan import PlanStatus
from detent.core.ledger.record import CHAIN_START, ChainPoint, bind_plan

SYMBOLS = tuple(f"S{number:03d}" for number in range(100))
BATCH = 1_000
REPEATS = 3
BARE = "CREATE TABLE bare (id INTEGER PRIMARY KEY, canonical TEXT NOT NULL)"


def chained(rows: int) -> list[list[Written]]:
    """Decide bars of 100 symbols and give their records in batches of 1,000."""
    bound = bind_plan(plan_of("plan", SYMBOLS), PROXY_BINDING)
    points = dict.fromkeys(SYMBOLS, CHAIN_START)
    written: list[Written] = []
    for number in range(rows):
        symbol = SYMBOLS[number % len(SYMBOLS)]
        ts_ms = START_MS + number // len(SYMBOLS) * HOUR_MS
        record = record_of(bound=bound, row=row_of(symbol), ts_ms=ts_ms, point=points[symbol])
        text, record_hash = record.canonical, record.record_hash
        written.append(Written(record=record, canonical=text, record_hash=record_hash))
        points[symbol] = ChainPoint(
            sequence=record.sequence + 1, previous_hash=record_hash, state=record.state_after
        )
    return [written[at : at + BATCH] for at in range(0, rows, BATCH)]


def seconds(work: Callable[[], object]) -> float:
    """Time one run of something."""
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def bare_sqlite(path: Path, batches: list[list[Written]]) -> None:
    """Insert the same bytes with nothing around them, one durable commit per batch."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(BARE)
        for batch in batches:
            db.execute("BEGIN")
            values = [(item.canonical.decode(),) for item in batch]
            db.executemany("INSERT INTO bare (canonical) VALUES (?)", values)
            db.execute("COMMIT")


def ledger_sqlite(path: Path, batches: list[list[Written]]) -> None:
    """Write the records as policy does."""

    async def write() -> None:
        ledger = SqliteLedger(path)
        bound = bind_plan(plan_of("plan", SYMBOLS), PROXY_BINDING)
        await ledger.add_plan_event(bound, PlanStatus.OPEN)
        for batch in batches:
            await ledger.add_records(batch)
        await ledger.close()

    asyncio.run(write())


def bare_postgres(url: str, batches: list[list[Written]]) -> None:
    """Insert the same bytes with nothing around them, one durable commit per batch."""
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("DROP TABLE IF EXISTS bare")
        link.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, canonical text NOT NULL)")
        for batch in batches:
            values = [(item.canonical.decode(),) for item in batch]
            with link.transaction(), link.cursor() as cursor:
                cursor.executemany("INSERT INTO bare (canonical) VALUES (%s)", values)


def ship(url: str, path: Path) -> None:
    """Ship a whole file."""
    shipper = LedgerShipper(path, ShippingOptions(url=url, interval_s=0.01))
    shipper.start()
    while not (shipper.state.is_connected and shipper.state.lag_rows == 0):
        time.sleep(0.002)
    assert shipper.stop(60.0)


@contextlib.contextmanager
def database(url: str | None) -> Iterator[Callable[[], str]]:
    """Give what makes an empty database in the form of today."""
    if url is not None:
        migrate_postgresql(url)
        yield lambda: url
        return
    with postgres_server(fsync="on") as server:

        def fresh() -> str:
            made = server.url(server.fresh_database())
            migrate_postgresql(made)
            return made

        yield fresh


def measure(rows: int, url: str | None) -> dict[str, object]:
    """Measure everything and give the best of each."""
    batches = chained(rows)
    best: dict[str, float] = {}

    def note(name: str, spent_s: float) -> None:
        best[name] = min(spent_s, best.get(name, spent_s))

    with tempfile.TemporaryDirectory() as folder, database(url) as fresh:
        for number in range(REPEATS):
            path = Path(folder) / f"ledger-{number}.sqlite"
            bare = Path(folder) / f"bare-{number}.sqlite"
            note("sqlite bare", seconds(lambda path=bare: bare_sqlite(path, batches)))
            note("sqlite ledger", seconds(lambda path=path: ledger_sqlite(path, batches)))
            target = fresh()
            note("postgres bare", seconds(lambda url=target: bare_postgres(url, batches)))
            note("postgres shipped", seconds(lambda url=target, path=path: ship(url, path)))
            note("sqlite verified", seconds(lambda path=path: audit(SqliteReader(path), [])))
            note("postgres verified", seconds(lambda url=target: audit(PostgresReader(url), [])))
    per_second = {name: round(rows / spent_s) for name, spent_s in best.items()}
    return {
        "rows": rows,
        "bytes_per_record": len(batches[0][0].canonical),
        "load_average": os.getloadavg()[0],
        "rows_per_second": per_second,
        "sqlite_share_of_bare": round(best["sqlite bare"] / best["sqlite ledger"], 3),
        "postgres_share_of_bare": round(best["postgres bare"] / best["postgres shipped"], 3),
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--postgres", default=None, help="an empty database to ship to")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rows, arguments.postgres), indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
