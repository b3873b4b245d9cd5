"""Proves that what a run leaves is in the database, and that nobody needs its files."""

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.builders import HOUR_MS, START_MS, SYMBOL, plan_of, policy_config, row_of
from tests.integration.test_ledger_durability import policy_process
from tests.trades import fill_of, outcome_of
from typer.testing import CliRunner

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.calls.policy import RecordFillsRequest, RecordOutcomesRequest
from detent.contracts.plan import OrderStyle, TriggerState
from detent.contracts.trades import Side
from detent.rpc.probe import is_serving
from detent_cli.main import app
from detent_client import ClientOptions, DetentClient, OpenedPlan

BARS = 90
CLOSES = [Decimal(100) + Decimal(number * number % 37) / 4 for number in range(BARS)]
REPORTS: list[tuple[str, ...]] = [
    ("attribution", "--ledger"),
    ("ledger", "verify", "--from"),
    ("ledger", "list", "--limit", "1000", "--from"),
    ("ledger", "check", "--from"),
    ("plan", "metrics", "book-plan", "--from"),
]
# Everything that a run must leave (R231), and what the later rows need.
TABLES = ("plan_log", "bar_decisions", "fills", "overrides", "results_summary", "replans")


def report(words: tuple[str, ...], place: str) -> Any:
    found = CliRunner().invoke(app, [*words, place, "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    # A page token names a place in its ledger, which is another one per reader.
    return {key: value for key, value in document.items() if key != "next_page_token"}


async def run(target: str, journal_file: Path) -> None:
    """Play a short run as a strategist would: decide, trade, replace the plan, and close it."""
    options = ClientOptions(journal_file=journal_file, policy_target=target, deadline_s=20.0)
    async with DetentClient(options) as client:
        plan = plan_of("plan")
        opened = await client.open_plan(plan, PROXY_BINDING)
        weight_ppm, held = 0, Decimal(0)
        for bar, close in enumerate(CLOSES):
            if bar == BARS // 2:
                # Another name in the same book, and another dead band.
                config = policy_config(tau_bps=500)
                later = plan_of("plan-2", book=plan.book, policy_config=config)
                replanned = await client.replace_plan(
                    opened, later, PROXY_BINDING, ts_ms=START_MS + bar * HOUR_MS
                )
                opened = replanned.opened
            trigger = TriggerState.EXIT_ONLY if bar % 20 > 16 else TriggerState.LONG_ALLOWED
            row = row_of(close=close, weight_ppm=weight_ppm, trigger_state=trigger)
            decision = await client.decide(opened, ts_ms=START_MS + bar * HOUR_MS, row=row)
            if decision.order_style is OrderStyle.NONE:
                continue
            weight_ppm = decision.target_weight_final_ppm
            target_quantity = (Decimal(weight_ppm) / close).quantize(Decimal("0.000001"))
            if target_quantity == held:
                continue
            await client.record(
                RecordFillsRequest(
                    binding_hash=opened.binding_hash,
                    plan_id=opened.plan.plan_id,
                    fills=(
                        fill_of(
                            f"fill-{bar}",
                            Side.BUY if target_quantity > held else Side.SELL,
                            abs(target_quantity - held),
                            close,
                            bar=bar,
                            plan_id=opened.plan.plan_id,
                            book=plan.book,
                            record_hash=decision.record_hash,
                        ),
                    ),
                )
            )
            held = target_quantity
        await resolve(client, opened)
        await client.close_plan(opened)


async def resolve(client: DetentClient, opened: OpenedPlan) -> None:
    plan_id = opened.plan.plan_id
    outcome = outcome_of(BARS - 1, plan_id=plan_id)
    await client.record(
        RecordOutcomesRequest(
            binding_hash=opened.binding_hash, plan_id=plan_id, outcomes=(outcome,)
        )
    )


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, ledger_url: str) -> Path:
    """Give what a policy process leaves that shipped all it had and ended."""
    database = {"DETENT_POLICY_LEDGER_DATABASE_URL": ledger_url}
    with policy_process(tmp_path, "full", **database) as policy:
        wait_until_it_listens(policy.target)
        asyncio.run(run(policy.target, tmp_path / "journal.jsonl"))
        asyncio.run(arrived(ledger_url))
    return tmp_path


def wait_until_it_listens(target: str) -> None:
    """Give a process that starts on a busy machine the time that it needs."""
    ends_s = time.monotonic() + 30.0
    while not is_serving(target, ""):
        assert time.monotonic() < ends_s
        time.sleep(0.05)


async def arrived(url: str) -> None:
    """Wait until the last thing that was written has arrived: the summary of the last plan."""
    async with asyncio.timeout(30.0):
        while True:
            with psycopg.connect(url) as link:
                found = link.execute("SELECT COUNT(*) FROM results_summary").fetchone()
            if found == (2,):
                return
            await asyncio.sleep(0.05)


@pytest.mark.proves("R231")
def test_a_run_leaves_every_table_that_makes_it_valid(folder: Path, ledger_url: str) -> None:
    assert (folder / "ledger.sqlite").is_file()
    with psycopg.connect(ledger_url) as link:
        counts = {}
        for table in TABLES:
            (counts[table],) = link.execute(f"SELECT COUNT(*) FROM {table}").fetchone() or (0,)
        symbols = link.execute("SELECT DISTINCT symbol FROM bar_decisions").fetchall()

    assert all(counts.values()), counts
    assert (counts["bar_decisions"], counts["plan_log"], counts["results_summary"]) == (BARS, 4, 2)
    assert symbols == [(SYMBOL,)]
    runs = report(("ledger", "check", "--from"), ledger_url)["runs"]
    assert [run["missing"] for run in runs] == [[], []]


@pytest.mark.proves("R232")
def test_reports_read_the_database_and_miss_no_file(folder: Path, ledger_url: str) -> None:
    """The same reports, word for word, from the file, from both, and after it was deleted."""
    of_file = [report(words, str(folder / "ledger.sqlite")) for words in REPORTS]

    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
    assert not list(folder.glob("ledger.sqlite*"))

    of_database = [report(words, ledger_url) for words in REPORTS]
    assert of_database == of_file
    # The reports are about something: a report of nothing would agree as well.
    attribution, verified, listed, _, measured = of_database
    assert attribution["profit"]["trade_sets"]
    assert (verified["record_count"], len(listed["records"])) == (BARS, BARS)
    assert measured["replan_count"] == 1
    export = folder / "copy"
    words = ["ledger", "export", "--from", ledger_url, "--to", str(export)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    copied: pa.Table = pq.read_table(next(export.glob("bar_decisions*.parquet")))
    assert copied.num_rows == BARS
