"""Proves that an auditor needs no service: what was shipped and anchored speaks for itself."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, row_of
from tests.conftest import Artifacts, client_of
from typer.testing import CliRunner

from detent.adapters.ledger_reading import open_reader
from detent.adapters.ledger_views import RECORD_COLUMNS
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.reasons import Reason
from detent_cli.main import app
from detent_cli.stack import Stack, StackOptions
from detent_client import DetentClient

BARS = 12
RECORDS = 2 * BARS


def run(*arguments: object) -> tuple[int, dict[str, object]]:
    found = CliRunner().invoke(app, ["ledger", *map(str, arguments), "--json"])
    return found.exit_code, json.loads(found.stdout)


@pytest.fixture(name="filled")
async def _filled(artifacts: Artifacts, tmp_path: Path, ledger_url: str) -> Stack:
    """Run a real policy process that ships and anchors, close a plan, and stop it."""
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path / "state",
        environment={
            "DETENT_POLICY_LEDGER_DATABASE_URL": ledger_url,
            "DETENT_POLICY_ANCHOR_INTERVAL_S": "0.2",
        },
    )
    stack = Stack(options)
    stack.start("policy")
    try:
        async with client_of(stack, tmp_path / "journal.jsonl") as client:
            opened = await client.open_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), PROXY_BINDING)
            for bar in range(BARS):
                rows = [row_of(SYMBOL), row_of(OTHER_SYMBOL)]
                results = await client.decide_many(
                    opened, ts_ms=START_MS + bar * HOUR_MS, rows=rows
                )
            decision = results[0].decision
            assert decision is not None
            # Read back at once, and replayed, whether or not it has arrived.
            assert (await client.get_decision(decision.record_hash)).record.row.symbol == SYMBOL
            replayed = await client.replay_decision(decision.record_hash)
            assert replayed.replayed_hash == replayed.record_hash
            await client.close_plan(opened)
            request = ListDecisionsRequest(plan_id="", symbol="", page_size=7, page_token="")
            await client.list_decisions(request)
            # The service selects as its readers do, and knows a hash by its display form.
            shown = await client.get_decision(decision.record_hash[:16])
            assert shown.record.record_hash == decision.record_hash
            request = structs.replace(
                request, reason=Reason.PROXY_WARMING_UP, from_ts_ms=START_MS + 11 * HOUR_MS
            )
            await settled(client, request, count=2)
    finally:
        stack.stop_all()
    return stack


async def settled(client: DetentClient, request: ListDecisionsRequest, *, count: int) -> None:
    """Wait until what was asked for has been shipped."""
    async with asyncio.timeout(10):
        while len((await client.list_decisions(request)).records) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def verify(stack: Stack, place: object, *, anchored: bool = True) -> tuple[int, dict[str, object]]:
    anchors = ("--anchors", stack.anchor_file, "--key", stack.anchor_key_file.with_suffix(".pub"))
    return run("verify", "--from", place, *(anchors if anchored else ()))


async def test_a_ledger_is_verified_where_it_lies(filled: Stack, ledger_url: str) -> None:
    for place in (filled.ledger_file, ledger_url):
        code, found = verify(filled, place)

        assert code == 0, found
        assert (found["record_count"], found["chain_count"]) == (RECORDS, 2)
        assert (found["unanchored_count"], found["breaks"]) == (0, [])
        assert verify(filled, place, anchored=False)[1]["unanchored_count"] == RECORDS


async def test_a_ledger_is_listed_page_by_page(filled: Stack, ledger_url: str) -> None:
    for place in (filled.ledger_file, ledger_url):
        seen, token = [], ""
        while True:
            after = ("--after", token) if token else ()
            _, page = run("list", "--from", place, "--limit", 7, *after)
            records, token = page["records"], page["next_page_token"]
            assert isinstance(records, list)
            seen += [record["record_hash"] for record in records]
            if not token:
                break
        assert len(set(seen)) == len(seen) == RECORDS


def listed(place: object, *arguments: object) -> list[dict[str, object]]:
    code, found = run("list", "--from", place, "--limit", 1_000, *arguments)
    assert code == 0, found
    assert isinstance(found["records"], list)
    return found["records"]


async def test_a_list_holds_what_was_asked_for_and_nothing_else(
    filled: Stack, ledger_url: str
) -> None:
    fourth, sixth = (
        datetime.fromtimestamp((START_MS + bar * HOUR_MS) / 1_000, tz=UTC).isoformat()
        for bar in (4, 6)
    )
    for place in (filled.ledger_file, ledger_url):
        records = listed(place)
        assert len(records) == RECORDS
        assert len(listed(place, "--symbol", SYMBOL)) == BARS
        within = listed(place, "--since", fourth, "--until", sixth)
        assert [one["ts_ms"] for one in within] == [
            START_MS + bar * HOUR_MS for bar in (4, 4, 5, 5)
        ]
        # Each place of a record that may hold a reason.
        for name in ("PROXY_WARMING_UP", "HOLD_OR_REDUCE"):
            assert len(listed(place, "--reason", name, "--symbol", SYMBOL)) == BARS
        assert listed(place, "--reason", "STAND_DOWN") == []
        assert run("list", "--from", place, "--since", "2026-11-21T18:00:00")[0] == 2
        assert run("list", "--from", place, "--after", "x")[0] == 2


async def test_records_are_shown_and_decided_again_where_they_lie(
    filled: Stack, ledger_url: str
) -> None:
    for place in (filled.ledger_file, ledger_url):
        for record in listed(place)[::5]:
            record_hash = str(record["record_hash"])
            for shown in (record_hash, record_hash[:16]):
                code, found = run("get", shown, "--from", place)
                assert code == 0
                assert found.pop("schema") == "detent.decision_record.v1"
                assert found == record
                code, found = run("replay", shown, "--from", place)
                assert (code, found["reproduced"]) == (0, True)
                assert found["record_hash"] == record_hash
        code, found = run("replay", "--from", place)
        assert (code, found["record_count"], found["differences"]) == (0, RECORDS, [])
        assert run("replay", "--from", place, "--plan-id", "other")[0] == 2
        assert run("get", "0" * 64, "--from", place)[0] == 2
        assert run("get", "0" * 15, "--from", place)[0] == 2
    assert run("replay")[0] == 2


async def test_a_plan_that_was_edited_is_found_by_replay(filled: Stack) -> None:
    sqlite_edit("UPDATE plan_log SET plan = replace(plan, '\"tau_bps\":1000', '\"tau_bps\":1001')")(
        filled
    )

    code, found = run("replay", "--from", filled.ledger_file)

    assert code == 1
    assert found["difference_count"] == RECORDS


def sqlite_edit(statement: str) -> Callable[[Stack], None]:
    def edit(stack: Stack) -> None:
        with closing(sqlite3.connect(stack.ledger_file)) as db, db:
            guards = db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for (name,) in guards:
                db.execute(f"DROP TRIGGER {name}")
            assert db.execute(statement).rowcount > 0

    return edit


EDITS = {
    "truncate": f"DELETE FROM decision_records WHERE sequence > 7 AND symbol = '{SYMBOL}'",
    "delete": "DELETE FROM decision_records WHERE sequence = 3",
    "flip": "UPDATE decision_records SET canonical = replace(canonical, 'bar', 'baz')"
    " WHERE sequence = 3",
    "plan": "UPDATE plan_log SET plan = replace(plan, '\"book\"', '\"look\"')",
    "unclose": "DELETE FROM plan_log WHERE event = 'closed'",
    "summary": "DELETE FROM results_summary",
}


@pytest.mark.parametrize("name", EDITS)
async def test_an_edit_of_the_file_is_found(filled: Stack, name: str) -> None:
    sqlite_edit(EDITS[name])(filled)

    code, found = verify(filled, filled.ledger_file)

    assert code == 1
    assert found["breaks"]


@pytest.mark.parametrize("name", EDITS)
async def test_an_edit_of_postgresql_is_found(filled: Stack, ledger_url: str, name: str) -> None:
    with psycopg.connect(ledger_url) as link:
        for table in ("decision_records", "plan_log", "results_summary"):
            link.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        assert link.execute(EDITS[name].encode()).rowcount > 0

    code, found = verify(filled, ledger_url)

    assert code == 1
    assert found["breaks"]


async def test_rows_after_the_last_anchor_are_counted_in_every_table(filled: Stack) -> None:
    """Somebody may have added them: they are neither broken nor vouched for (decision D23)."""
    sqlite_edit("INSERT INTO outcomes SELECT id, plan_id, 'X', 1, '{}' FROM plan_log LIMIT 1")(
        filled
    )
    sqlite_edit(
        "INSERT INTO plan_log (plan_id, event, book, binding_hash, plan, binding)"
        " SELECT 'other', event, book, binding_hash, plan, binding FROM plan_log LIMIT 1"
    )(filled)
    code, found = verify(filled, filled.ledger_file)

    assert (code, found["unanchored_count"], found["unanchored_row_count"]) == (0, 0, 2)
    assert verify(filled, filled.ledger_file, anchored=False)[1]["unanchored_row_count"] is None


async def test_anchors_of_another_key_prove_nothing(filled: Stack, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["ledger", "anchor-key", "--to", str(tmp_path / "other.pem")])
    code, found = run(
        "verify",
        *("--from", filled.ledger_file, "--anchors", filled.anchor_file),
        *("--key", tmp_path / "other.pub"),
    )

    assert code == 1
    assert "is not signed by" in str(found["breaks"])


async def test_planted_holes_and_invalid_runs_are_found(filled: Stack, ledger_url: str) -> None:
    assert run("check", "--from", filled.ledger_file)[0] == 0
    assert run("check", "--from", ledger_url)[0] == 0
    sqlite_edit("DELETE FROM decision_records WHERE sequence IN (4, 5, 8)")(filled)
    sqlite_edit("DELETE FROM results_summary")(filled)

    code, found = run("check", "--from", filled.ledger_file)
    holes, runs = found["holes"], found["runs"]

    assert code == 1
    assert isinstance(holes, list)
    assert isinstance(runs, list)
    assert sorted(hole["bar_count"] for hole in holes) == [1, 1, 2, 2]
    assert [run["missing"] for run in runs] == [["results_summary"]]


async def test_a_closed_run_whose_last_records_are_gone_is_found(filled: Stack) -> None:
    """Its chains are whole, as far as they go, and no bar between is missing."""
    sqlite_edit(
        "DELETE FROM decision_records WHERE id > (SELECT MAX(id) - 2 FROM decision_records)"
    )(filled)

    code, found = run("check", "--from", filled.ledger_file)
    assert code == 1
    assert [run["lost_count"] for run in found["runs"]] == [2]  # type: ignore[union-attr]
    shown = CliRunner().invoke(app, ["ledger", "check", "--from", str(filled.ledger_file)])
    assert "has 2 records fewer than its summary counts" in shown.output


async def test_a_copy_in_parquet_holds_every_row(
    filled: Stack, ledger_url: str, tmp_path: Path
) -> None:
    for name, place in (("file", filled.ledger_file), ("postgresql", ledger_url)):
        code, found = run("export", "--from", place, "--to", tmp_path / name)
        assert code == 0
        rows = found["rows"]
        assert isinstance(rows, dict)
        assert rows["bar_decisions"] == RECORDS
        table = pq.read_table(tmp_path / name / "bar_decisions.parquet")
        assert table.num_rows == RECORDS
        assert set(table.column("symbol").to_pylist()) == {SYMBOL, OTHER_SYMBOL}
        assert (rows["plan_log"], rows["results_summary"]) == (2, 1)
        assert rows["overrides"] == pq.read_table(tmp_path / name / "overrides.parquet").num_rows


async def test_both_databases_show_the_same_columns(filled: Stack, ledger_url: str) -> None:
    columns = ", ".join(
        ("plan_id", "symbol", "ts_ms", "record_hash", *(name for name, _ in RECORD_COLUMNS))
    )
    for sql in (
        f"SELECT {columns} FROM bar_decisions ORDER BY ts_ms, symbol",
        (
            "SELECT plan_id, symbol, ts_ms, position, reason, precedence_tier FROM overrides"
            " ORDER BY ts_ms, symbol, position"
        ),
    ):
        of_file, of_postgresql = (
            list(open_reader(str(place)).query(sql)) for place in (filled.ledger_file, ledger_url)
        )
        assert len(of_file) >= RECORDS
        assert of_file == of_postgresql


async def test_a_restart_goes_on_anchoring_and_keeps_the_plan_closed(
    filled: Stack, artifacts: Artifacts
) -> None:
    before = len(filled.anchor_file.read_text().splitlines())
    with filled.anchor_file.open("ab") as file:
        file.write(b'{"canonical": "torn by a cra')
    filled.start("policy")
    filled.stop_all()

    assert len(filled.anchor_file.read_text().splitlines()) == before
    assert verify(filled, filled.ledger_file)[0] == 0
