"""Proves that PostgreSQL in trouble costs no decision anything, and measures it in pairs.

One process decides all the time. Rounds with PostgreSQL in trouble take turns with rounds
without, so that a machine that slows down slows both; the figures are reported and not judged.
"""

import asyncio
import functools
import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.integration.test_ledger_durability import policy_process
from tests.integration.test_ledger_shipping import assert_complete
from tests.postgres_server import PostgresServer, postgres_server

from detent.adapters.ledger_migrating import migrate_postgresql
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.contracts.binding import PROXY_BINDING
from detent_client import ClientOptions, DetentClient, OpenedPlan

SETTINGS = {"max_connections": 5, "superuser_reserved_connections": 2}
BARS_PER_ROUND = 30
# Not counted: whoever waited for PostgreSQL to come or go is cold.
COLD_BARS = 10

log = logging.getLogger(__name__)


@pytest.fixture(name="fragile", scope="module")
def _fragile() -> Iterator[PostgresServer]:
    with postgres_server(**SETTINGS) as server:
        yield server


class Trouble:
    """Takes PostgreSQL away and gives it back."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def begin(self, number: int) -> None:
        """Stop it, or let it hang without a word, in turn."""
        if number % 2:
            self._server.pause()
        else:
            self._server.stop_at_once()

    def end(self, number: int) -> None:
        if number % 2:
            self._server.resume()
        else:
            self._server.start(**SETTINGS)


class Crowd:
    """Takes every connection that PostgreSQL has."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._links: list[psycopg.Connection] = []

    def begin(self, number: int) -> None:
        del number
        self._server.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'detent-ledger'"
        )
        try:
            while len(self._links) < 10:
                self._links.append(psycopg.connect(self._server.url()))
        except psycopg.OperationalError:
            return

    def end(self, number: int) -> None:
        del number
        for link in self._links:
            link.close()
        self._links.clear()


class Asker:
    """Decides one bar after the other, and keeps how long each took, microseconds."""

    def __init__(self, client: DetentClient, opened: OpenedPlan) -> None:
        self._client = client
        self._opened = opened
        self.hashes: list[str] = []

    async def bars(self, count: int) -> list[float]:
        times_us = []
        for _ in range(count):
            ts_ms = START_MS + len(self.hashes) * HOUR_MS
            row = row_of(close=str(100 + len(self.hashes) % 13))
            begun_ns = time.perf_counter_ns()
            decision = await self._client.decide(self._opened, ts_ms=ts_ms, row=row)
            times_us.append((time.perf_counter_ns() - begun_ns) / 1_000)
            assert decision.record_hash, "the client had to answer by itself"
            self.hashes.append(decision.record_hash)
        return times_us[COLD_BARS:]


async def decided_in_trouble(
    folder: Path, server: PostgresServer, trouble: Trouble | Crowd, *, rounds: int
) -> tuple[list[float], list[float]]:
    """Give how long decisions took without and with trouble; all of them are kept twice."""
    url = server.url(server.fresh_database())
    migrate_postgresql(url)
    well_us: list[float] = []
    ill_us: list[float] = []
    with policy_process(folder, "full", DETENT_POLICY_LEDGER_DATABASE_URL=url) as policy:
        options = ClientOptions(
            journal_file=folder / "journal.jsonl",
            policy_target=policy.target,
            deadline_s=20.0,
            attempts_max=100,
        )
        async with DetentClient(options) as client:
            opened = await client.open_plan(plan_of("plan"), PROXY_BINDING)
            asker = Asker(client, opened)
            await asker.bars(BARS_PER_ROUND)
            for number in range(rounds):
                well_us += await asker.bars(BARS_PER_ROUND)
                await asyncio.to_thread(functools.partial(trouble.begin, number))
                ill_us += await asker.bars(BARS_PER_ROUND)
                await asyncio.to_thread(functools.partial(trouble.end, number))
    path = folder / "ledger.sqlite"
    records = read_records(path)
    assert [row["record_hash"] for row in records] == asker.hashes
    assert_chains_whole(records)
    await drained(path, url)
    return well_us, ill_us


async def drained(path: Path, url: str) -> None:
    """Ship what a process left, as the next one would, and compare every row."""
    shipper = LedgerShipper(path, ShippingOptions(url=url))
    shipper.start()
    async with asyncio.timeout(30.0):
        while not (shipper.state.is_connected and shipper.state.lag_rows == 0):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(shipper.stop, 30.0)
    assert shipper.state.conflict_count == 0
    assert_complete(path, url)


def say(well_us: list[float], ill_us: list[float]) -> None:
    """Log both medians, both 99th percentiles, and what trouble added to each (`-rP`)."""
    for name, pick in (("p50", statistics.median), ("p99", _p99)):
        well, ill = pick(well_us), pick(ill_us)
        added = f"{(ill / well - 1) * 100:+.1f} %"
        facts = (name, len(ill_us), well, ill, added)
        log.warning("%s of %d decisions: %.0f us, in trouble %.0f us, %s", *facts)


def _p99(times_us: list[float]) -> float:
    return statistics.quantiles(times_us, n=100)[98]


async def test_stopped_and_hanging_it_costs_no_decision(
    tmp_path: Path, fragile: PostgresServer
) -> None:
    say(
        *await decided_in_trouble(tmp_path, fragile, Trouble(fragile), rounds=4),
    )


async def test_out_of_connections_it_costs_no_decision(
    tmp_path: Path, fragile: PostgresServer
) -> None:
    say(*await decided_in_trouble(tmp_path, fragile, Crowd(fragile), rounds=2))


@pytest.mark.long
async def test_stopped_and_hanging_a_hundred_times_each_it_costs_no_decision(
    tmp_path: Path, fragile: PostgresServer
) -> None:
    say(
        *await decided_in_trouble(tmp_path, fragile, Trouble(fragile), rounds=200),
    )


@pytest.mark.long
async def test_out_of_connections_a_hundred_times_it_costs_no_decision(
    tmp_path: Path, fragile: PostgresServer
) -> None:
    say(*await decided_in_trouble(tmp_path, fragile, Crowd(fragile), rounds=100))
