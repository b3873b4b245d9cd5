"""Proves that the gates to policy and to models judge real ledgers and runs, and say what fails."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import plan_of, policy_config
from tests.policy_phase import decide_everything, write_bands, write_runs
from typer.testing import CliRunner

from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.contracts.binding import ModelBinding
from detent_cli.main import app

BEFORE_POLICY = [
    "emergency_exits",
    "emergency_guards",
    "emergency_audit",
    "persistence",
    "bar_records",
    "ledger_chains",
    "replan_guard",
]
PATIENCE_S = 60.0
RUNS = ["policy_runs", "policy_turnover", "policy_trade_count", "policy_drawdown"]


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path, binding: ModelBinding) -> Path:
    path = tmp_path / "ledger.sqlite"
    plan = plan_of("plan", policy_config=policy_config(rebalance_cooldown_bars=0))
    await decide_everything(path, binding, plan)
    return path


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_runs(tmp_path_factory.mktemp("runs"))


def ready(ledger: Path | str, *more: str | Path) -> tuple[int, dict[str, Any]]:
    arguments = ["ready", "--ledger", str(ledger), *map(str, more), "--json"]
    found = CliRunner().invoke(app, arguments)
    return found.exit_code, json.loads(found.stdout)


def compared(runs: tuple[Path, Path], bands: Path) -> tuple[str | Path, ...]:
    return ("--backtest", runs[0], "--baseline", runs[1], "--bands", bands)


@pytest.mark.proves("R236")
def test_a_ledger_in_which_everything_was_seen_opens_the_gate_to_policy(ledger: Path) -> None:
    code, found = ready(ledger, "--for", "policy")

    assert (code, found["ready"], found["refused_by"]) == (0, True, [])
    assert [gate["name"] for gate in found["gates"]] == BEFORE_POLICY


def without(table: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        edited(path, f"DELETE FROM {table}")

    return spoil


def edited(path: Path, sql: str) -> None:
    """Change a ledger as somebody with the file in hand may: past its triggers."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(sql)


def records_like(pattern: str, sql: str) -> Callable[[Path], None]:
    return lambda path: edited(path, f"{sql} WHERE canonical LIKE '{pattern}'")


EXECUTED = "%emergency_exit_executed%"
UNSAID = "REPLACE(canonical, 'emergency_exit_executed', 'EXIT_SNAPPED')"
HELD = "REPLACE(canonical, '\"target_weight_final_ppm\":0', '\"target_weight_final_ppm\":7')"
MADE = "UPDATE replans SET outcome = 'replaced', new_plan_id = plan_id WHERE id = 1"


@pytest.mark.proves("R236")
@pytest.mark.parametrize(
    ("spoil", "gates"),
    [
        pytest.param(without("replans"), ["replan_guard"], id="nothing-was-suppressed"),
        pytest.param(lambda path: edited(path, MADE), ["replan_guard"], id="replaced-by-itself"),
        pytest.param(without("results_summary"), ["persistence"], id="no-summary"),
        pytest.param(
            lambda path: edited(path, "DELETE FROM plan_log WHERE event = 'closed'"),
            ["persistence"],
            id="nothing-was-closed",
        ),
        pytest.param(
            records_like(EXECUTED, f"UPDATE decision_records SET canonical = {UNSAID}"),
            ["emergency_exits", "emergency_audit", "ledger_chains"],
            id="an-exit-without-its-reason",
        ),
        pytest.param(
            records_like(EXECUTED, f"UPDATE decision_records SET canonical = {HELD}"),
            ["emergency_exits", "emergency_audit", "ledger_chains"],
            id="an-exit-that-holds",
        ),
        pytest.param(
            records_like("%veto_min_hold%", "DELETE FROM decision_records"),
            ["emergency_guards", "persistence", "bar_records", "ledger_chains"],
            id="no-guard-was-seen",
        ),
    ],
)
def test_each_thing_that_is_missing_is_listed(
    ledger: Path, spoil: Callable[[Path], None], gates: list[str]
) -> None:
    spoil(ledger)
    code, found = ready(ledger, "--for", "policy")

    assert (code, found["refused_by"]) == (1, gates)
    for gate in found["gates"]:
        assert gate["bound"]
        assert gate["number"] is not None


@pytest.mark.proves("R237")
def test_a_policy_within_its_bands_opens_the_gate_to_models(
    ledger: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    bands = write_bands(tmp_path / "bands.json")
    code, found = ready(ledger, *compared(runs, bands), "--out", tmp_path / "ready.json")

    assert (code, found["refused_by"]) == (0, [])
    names = [gate["name"] for gate in found["gates"]]
    assert names == [*BEFORE_POLICY, *RUNS, "learning_isolation"]
    assert (tmp_path / "ready.json.sha256").read_text().startswith(found["sha256"])


@pytest.mark.proves("R237")
@pytest.mark.parametrize(
    ("band", "gate"),
    [
        ("turnover", "policy_turnover"),
        ("trade_count", "policy_trade_count"),
        ("drawdown", "policy_drawdown"),
    ],
)
def test_what_lies_outside_its_band_is_listed_with_what_was_found(
    ledger: Path, runs: tuple[Path, Path], tmp_path: Path, band: str, gate: str
) -> None:
    narrow = {band: {"low_ppm": 0, "high_ppm": 1_000}}
    bands = write_bands(tmp_path / "bands.json", **narrow)
    code, found = ready(ledger, *compared(runs, bands))

    assert (code, found["refused_by"]) == (1, [gate])
    (failed,) = [one for one in found["gates"] if one["name"] == gate]
    assert failed["bound"] == "0.0000% to 0.1000%"
    assert failed["number"].endswith("%")


@pytest.mark.proves("R237")
def test_runs_that_cannot_be_compared_are_refused(
    ledger: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    bands = write_bands(tmp_path / "bands.json")
    assert ready(ledger)[1]["refused_by"] == RUNS
    assert ready(ledger, *compared(runs, bands)[:4])[1]["refused_by"] == RUNS[1:]
    twice = (runs[0], shutil.copytree(runs[0], tmp_path / "again"))
    assert ready(ledger, *compared(twice, bands))[1]["refused_by"] == ["policy_runs"]
    code, found = ready(ledger, "--backtest", runs[0])
    assert (code, found["error"]["reason"]) == (2, "INVALID_FIELD")
    (tmp_path / "bands.json").write_text('{"turnover": 1.5}')
    code, found = ready(ledger, *compared(runs, bands))
    assert (code, found["error"]["reason"]) == (2, "DATA_INVALID")


@pytest.mark.proves("R236")
def test_what_was_shipped_to_postgresql_says_the_same(ledger: Path, ledger_url: str) -> None:
    shipper = LedgerShipper(ledger, ShippingOptions(url=ledger_url, interval_s=0.05))
    shipper.start()
    assert shipper.stop(PATIENCE_S)

    from_file, from_postgresql = ready(ledger), ready(ledger_url)
    assert from_postgresql == from_file
    assert from_postgresql[1]["refused_by"] == RUNS


def test_a_person_reads_a_table(ledger: Path) -> None:
    found = CliRunner().invoke(app, ["ready", "--ledger", str(ledger)])

    assert found.exit_code == 1
    assert "NO EVIDENCE" in found.stdout
    assert "not ready" in found.stdout
