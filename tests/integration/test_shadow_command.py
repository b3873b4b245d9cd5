"""Proves `detent shadow`: what a shadow said of real bars, from the file and from PostgreSQL."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.decided_ledger import ACTIVE, PLAN_ID, SHADOW, artifact_of, decide
from tests.strategist import ledger_rows
from typer.testing import CliRunner

from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.offline.bars import BarTable, load_bars
from detent_cli.main import app

BARS_FILE = Path(__file__).parents[3] / "shared" / "data" / "bars_1h_binance_spot_2024.parquet"
TRAIN_BARS, DECIDED = 1_000, 160
HORIZON_BARS = 4
PATIENCE_S = 30.0
pytestmark = pytest.mark.skipif(
    not BARS_FILE.exists(), reason="the shared bars are not beside this checkout"
)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["shadow", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(name="decided", scope="module")
def _decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the ledgers of two processes that decided the same real bars."""
    folder = tmp_path_factory.mktemp("decided")
    table: BarTable = load_bars(BARS_FILE)
    bars = table.bars["BTCUSDT"]
    artifact = artifact_of(table, "BTCUSDT", train_bars=TRAIN_BARS, out_dir=folder / "artifacts")
    later = bars[TRAIN_BARS : TRAIN_BARS + DECIDED]
    for name, settings in (("shadow", SHADOW), ("active", ACTIVE)):
        decide(
            folder / f"{name}.sqlite",
            artifact,
            bars[TRAIN_BARS - 500 : TRAIN_BARS],
            later,
            settings,
        )
    return folder


def shipped(ledger: Path, url: str) -> None:
    shipper = LedgerShipper(ledger, ShippingOptions(url=url, interval_s=0.02))
    shipper.start()
    ends_s = time.monotonic() + PATIENCE_S
    while not (shipper.state.is_connected and shipper.state.lag_rows == 0):
        assert time.monotonic() < ends_s
        time.sleep(0.02)
    shipper.stop(PATIENCE_S)


@pytest.mark.proves("R115", "R121")
def test_what_was_said_unused_is_scored_beside_what_was_used(decided: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, printed = run("report", "--from", decided / "shadow.sqlite", "--report", page)
    as_json, text = run("report", "--from", decided / "shadow.sqlite", "--json")
    (found,) = json.loads(text)["comparisons"]

    assert (code, as_json) == (0, 0)
    assert "shadow less used" in printed
    assert found["row_count"] == found["answered_count"] == DECIDED
    assert (found["missing_count"], found["unlabelled_count"]) == (0, HORIZON_BARS)
    assert found["settled"]["row_count"] == DECIDED - HORIZON_BARS
    assert -1 <= found["settled"]["difference"]["low"] < found["settled"]["difference"]["high"]
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 2


def test_a_shadow_says_of_a_bar_what_the_model_says_when_it_acts(decided: Path) -> None:
    """Shadow evidence is worth something because it is the same answer to the same question."""

    def said(name: str, sql: str) -> list[dict[str, Any]]:
        return ledger_rows(decided / f"{name}.sqlite", sql)

    unused = said(
        "shadow",
        "SELECT ts_ms, json_extract(canonical, '$.features_hash') AS features_hash,"
        " json_extract(canonical, '$.p_hat_bps') AS p_hat_bps FROM shadow_signals ORDER BY ts_ms",
    )
    used = said(
        "active",
        "SELECT ts_ms, features_hash, p_hat_calibrated_bps AS p_hat_bps FROM bar_decisions"
        " ORDER BY ts_ms",
    )

    assert len(used) == DECIDED
    assert unused == used


@pytest.mark.proves("R121")
def test_postgresql_says_the_same_as_the_file(decided: Path, ledger_url: str) -> None:
    ledger = decided / "shadow.sqlite"
    shipped(ledger, ledger_url)

    for command in ("report", "list"):
        of_file = run(command, "--from", ledger, "--plan-id", PLAN_ID, "--json")
        of_database = run(command, "--from", ledger_url, "--plan-id", PLAN_ID, "--json")
        assert of_file == of_database
        assert of_file[0] == 0


def test_answers_are_listed_and_exported(decided: Path, tmp_path: Path) -> None:
    ledger = decided / "shadow.sqlite"
    code, text = run("list", "--from", ledger, "--limit", "3", "--json")
    table = run("list", "--from", ledger, "--limit", "3")
    copied = CliRunner().invoke(
        app, ["ledger", "export", "--from", str(ledger), "--to", str(tmp_path / "copy")]
    )

    assert (code, table[0], copied.exit_code) == (0, 0, 0)
    assert len(json.loads(text)["shadow_signals"]) == 3
    (file,) = (tmp_path / "copy").glob("shadow_signals*")
    assert file.stat().st_size > 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--plan-id", "other"), id="no such plan"),
        pytest.param(("--rollout-id", "other"), id="no such rollout"),
    ],
)
def test_no_answer_is_said_and_is_no_empty_report(
    decided: Path, arguments: tuple[str, ...]
) -> None:
    code, text = run("report", "--from", decided / "shadow.sqlite", "--json", *arguments)

    assert code == 2
    assert "expected at least one" in json.loads(text)["error"]["message"]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    code, text = run("report", "--from", tmp_path / "none.sqlite", "--json")

    assert code == 2
    assert "no such file" in json.loads(text)["error"]["message"]
