"""What `detent backtest` leaves is evidence to `detent evaluate`, as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tests.unit.artifacts import artifact_in, other_artifact_in, raw_bars
from typer.testing import CliRunner

from detent_cli.main import app

BARS = 1_500


def write_bars(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["ts_ms", "symbol", "open", "high", "low", "close", "volume"])
        for bar in raw_bars(BARS):
            out.writerow([bar.open_ts_ms, bar.symbol, *bar.numbers])
    return path


def gates_of(artifact: Path, runs: Path, out: Path) -> dict[str, dict[str, Any]]:
    arguments = ["evaluate", str(artifact), "--out", str(out), "--json"]
    arguments += ["--backtest", str(runs / "model"), "--proxy-backtest", str(runs / "proxy")]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 1, found.output
    return {gate["name"]: gate for gate in json.loads(found.stdout)["gates"]}


def test_back_tests_are_measured_and_belong_to_one_artifact(tmp_path: Path) -> None:
    artifact = artifact_in(tmp_path)
    runs = tmp_path / "runs"
    arguments = ["backtest", "--data", str(write_bars(tmp_path / "bars.csv")), "--out", str(runs)]
    arguments += ["--artifact", str(artifact), "--json"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output

    mine = gates_of(artifact, runs, tmp_path / "mine.json")
    assert mine["backtests"]["verdict"] == "passed"
    assert mine["turnover"]["number"] is not None
    assert mine["capital_resolved"]["verdict"] == "passed"
    assert mine["learning_isolation"]["verdict"] == "passed"
    assert mine["learning_isolation"]["number"] == "0"

    other = gates_of(other_artifact_in(tmp_path), runs, tmp_path / "other.json")
    assert other["backtests"]["verdict"] == "failed"
    assert other["backtests"]["number"].startswith("model: bound to")


def test_a_back_test_is_attributed_by_its_folder(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bars = write_bars(tmp_path / "bars.csv")
    ran = CliRunner().invoke(app, ["backtest", "--data", str(bars), "--out", str(runs), "--json"])
    assert ran.exit_code == 0, ran.output
    arguments = ["attribution", "--ledger", str(runs / "proxy"), "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    profit = json.loads(found.stdout)["profit"]

    assert profit["residual"] == "0"
    assert profit["unlinked_fill_ids"] == []
    assert len(profit["trade_sets"]) > 3
    assert profit["verdict"]["primary"]
