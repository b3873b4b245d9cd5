"""Measure the ledger: rows written and chained, shipped, verified, beside bare batched inserts.

Every pair is measured in turn within one run, several times, and the best of each is compared:
figures of one run are ratios, not promises.
"""

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import psycopg
from tests.builders import HOUR_MS, START_MS, plan_of, record_of, row_of
from tests.postgres_server import postgres_server

from detent.adapters.cpu_quota import cpu_count
from detent.adapters.ledger_auditing import audit
from detent.adapters.ledger_migrating import migrate_postgresql
from detent.adapters.ledger_reading import LedgerReader, PostgresReader, SqliteReader
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.plan import PlanStatus
from detent.core.ledger.record import CHAIN_START, ChainPoint, bind_plan

SYMBOLS = tuple(f"S{number:03d}" for number in range(100))
BATCH = 1_000
BARE = "CREATE TABLE bare (id INTEGER PRIMARY KEY, canonical TEXT NOT NULL)"


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """Holds rows per second of one database: bare inserts, records, and their verification."""

    bare: int
    ledger: int
    verified: int

    @property
    def share(self) -> float:
        """Give what share of bare inserts the records reach (T7)."""
        return self.ledger / self.bare


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what both databases do with the same records."""

    rows: int
    bytes_per_record: int
    sqlite: Store
    postgresql: Store


def chained(rows: int) -> Iterator[list[Written]]:
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
        if len(written) == BATCH or number == rows - 1:
            yield written
            written = []


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


def ledger_sqlite(path: Path, batches: Iterable[list[Written]]) -> None:
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


def verify(reader: LedgerReader) -> None:
    """Verify a whole ledger with all processors."""
    assert audit(reader, [], workers=cpu_count()).is_whole


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


def measure_ledger(
    rows: int, verified_rows: int, url: str | None, turns: int, step: Callable[[], None]
) -> Rates:
    """Measure everything and keep the best of each.

    Args:
        rows: Records that are written and shipped, in batches of 1,000.
        verified_rows: Records of the ledger that is verified, as `detent ledger verify` does.
        url: An empty database to ship to; None starts a PostgreSQL of the development group,
            with fsync on.
        turns: How often each is measured.
        step: Called after each turn.
    """
    batches = list(chained(rows))
    best: dict[str, float] = {}

    def note(name: str, spent_s: float) -> None:
        best[name] = min(spent_s, best.get(name, spent_s))

    with tempfile.TemporaryDirectory() as folder, database(url) as fresh:
        for number in range(turns):
            path = Path(folder) / f"ledger-{number}.sqlite"
            bare = Path(folder) / f"bare-{number}.sqlite"
            note("bare", seconds(lambda path=bare: bare_sqlite(path, batches)))
            note("ledger", seconds(lambda path=path: ledger_sqlite(path, batches)))
            target = fresh()
            note("bare pg", seconds(lambda url=target: bare_postgres(url, batches)))
            note("shipped", seconds(lambda url=target, path=path: ship(url, path)))
            step()
        large, target = Path(folder) / "large.sqlite", fresh()
        ledger_sqlite(large, chained(verified_rows))
        ship(target, large)
        for _ in range(turns):
            note("verified", seconds(lambda: verify(SqliteReader(large))))
            note("verified pg", seconds(lambda: verify(PostgresReader(target))))
            step()
    sizes = {"verified": verified_rows, "verified pg": verified_rows}
    per_second = {name: round(sizes.get(name, rows) / spent_s) for name, spent_s in best.items()}
    return Rates(
        rows=rows,
        bytes_per_record=len(batches[0][0].canonical),
        sqlite=Store(
            bare=per_second["bare"], ledger=per_second["ledger"], verified=per_second["verified"]
        ),
        postgresql=Store(
            bare=per_second["bare pg"],
            ledger=per_second["shipped"],
            verified=per_second["verified pg"],
        ),
    )
