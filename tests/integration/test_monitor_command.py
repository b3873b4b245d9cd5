"""The monitor from the command line: real bars with a planted shift, a control, a process."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.builders import SYMBOL, plan_of, row_of
from tests.conftest import PATIENT, Artifacts
from tests.decided_ledger import artifact_of, decide, stretched
from tests.strategist import Bars, feed
from typer.testing import CliRunner

from detent.offline.bars import load_bars
from detent_cli.main import app
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient

BARS_FILE = Path(__file__).parents[3] / "shared" / "data" / "bars_1h_binance_spot_2024.parquet"
TRAIN_BARS = 2_000
# Decided after them; the shift comes half-way.
DECIDED_BARS = 1_100


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


def checked(ledger: Path, *arguments: str | Path) -> Any:
    _, text = run("monitor", "--ledger", ledger, "--once", "--json", *arguments)
    (found,) = json.loads(text)["models"]
    return found


def drifted(model: Any) -> list[str]:
    return [one["feature"] for one in model["features"] if one["verdict"] == "drifted"]


@pytest.mark.skipif(not BARS_FILE.exists(), reason="the shared bars are not beside this checkout")
@pytest.mark.long
@pytest.mark.proves("R257")
def test_a_shift_planted_in_real_bars_is_found_and_none_without_it(tmp_path: Path) -> None:
    """Half-way every price begins to move five times as far; the reference is the training's."""
    table = load_bars(BARS_FILE)
    bars = table.bars["BTCUSDT"]
    artifact = artifact_of(table, "BTCUSDT", train_bars=TRAIN_BARS, out_dir=tmp_path / "artifacts")
    history = bars[TRAIN_BARS - 500 : TRAIN_BARS]
    later = bars[TRAIN_BARS : TRAIN_BARS + DECIDED_BARS]
    features, reference = tmp_path / "features.parquet", tmp_path / "reference.npy"
    feature_set = artifact / "feature_set.json"
    assert (
        run(
            "features",
            "build",
            "--data",
            BARS_FILE,
            "--out",
            features,
            "--feature-set",
            feature_set,
        )[0]
        == 0
    )
    assert run("features", "reference", "--features", features, "--out", reference)[0] == 0
    # The file holds every bar of four symbols: the training saw the first of one.
    np.save(reference, np.load(reference)[: TRAIN_BARS - 30])

    found = {}
    for name, series in (("control", later), ("shifted", stretched(later, DECIDED_BARS // 2, 5))):
        ledger = tmp_path / f"{name}.sqlite"
        decide(ledger, artifact, history, series)
        page = tmp_path / f"{name}.html"
        found[name] = checked(
            ledger, "--artifacts", artifact.parent, "--reference", reference, "--report", page
        )
        assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 3

    assert drifted(found["control"]) == []
    assert "return_pct_1" in drifted(found["shifted"])
    assert len(drifted(found["shifted"])) >= 4
    kinds = {name: {alert["kind"] for alert in one["alerts"]} for name, one in found.items()}
    assert "feature_drift" not in kinds["control"]
    assert {"feature_drift", "retrain_due"} <= kinds["shifted"]
    assert found["control"]["signals"][0]["settled_count"] == DECIDED_BARS - 4
    # The seed's rule calls features drifted in the control as well: the bell never stops.
    seed = checked(
        tmp_path / "control.sqlite",
        "--artifacts",
        artifact.parent,
        "--reference",
        reference,
        "--profile",
        "seed",
    )
    assert len(drifted(seed)) >= 3


async def _decided(stack: Stack, artifacts: Artifacts, bars: Bars, journal: Path) -> None:
    options = ClientOptions(
        journal_file=journal,
        policy_target=stack.targets["policy"],
        feature_target=stack.targets["feature"],
        deadline_s=5.0,
    )
    async with DetentClient(options) as client:
        await feed(client, bars)
        opened = await client.open_plan(plan_of("watched"), artifacts.stable_binding)
        for bar in bars[SYMBOL][-150:]:
            await client.decide(opened, ts_ms=bar.ts_ms, row=row_of(SYMBOL, close=bar.close))


@pytest.mark.proves("R259")
def test_up_runs_a_monitor_that_records_and_serves_metrics(
    tmp_path: Path, artifacts: Artifacts, bars: Bars
) -> None:
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path / "state",
        single=True,
        monitor=True,
        environment=PATIENT | {"DETENT_MONITOR_CHECK_INTERVAL_S": "1"},
    )
    with Stack(options) as stack:
        asyncio.run(_decided(stack, artifacts, bars, tmp_path / "journal.jsonl"))
        for _ in range(60):
            asyncio.run(asyncio.sleep(0.5))
            url = f"http://{stack.targets['monitor']}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
            if "detent_monitor_outcomes_total 146.0" in text:
                break
        ledger = stack.ledger_file
    code, table = run(
        "monitor", "--ledger", ledger, "--once", "--artifacts", artifacts.stable.parent
    )
    found = checked(ledger, "--artifacts", artifacts.stable.parent)

    assert "detent_monitor_outcomes_total 146.0" in text
    assert 'detent_monitor_brier{source="model"} 0.' in text
    assert found["signals"][0]["settled_count"] == 146
    assert found["features_unknown"] == "150 kept inputs, expected at least 500"
    assert "model" in table
    assert code == (1 if found["alerts"] else 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ledger", "absent.sqlite"), "LEDGER_UNAVAILABLE"),
        (("--ledger", "absent.sqlite", "--profile", "loose"), "profile"),
        (("--ledger", "absent.sqlite", "--listen", "nowhere"), "listen"),
    ],
)
def test_what_cannot_be_monitored_is_said(arguments: tuple[str, ...], said: str) -> None:
    code, text = run("monitor", "--once", *arguments)

    assert code == 2
    assert said in text


@pytest.mark.parametrize(
    ("variables", "arguments", "field"),
    [
        ({}, ("--profile", "strict"), "profile"),
        ({}, ("--listen", "7304"), "listen"),
        ({"BARS_MAX": "0"}, (), "DETENT_MONITOR_BARS_MAX"),
        ({"SIGNATURE_KEYS": "keys"}, (), "DETENT_MONITOR_SIGNATURE_KEYS"),
        ({"SIGNATURE_KEYS": '["k"]'}, (), "DETENT_MONITOR_*"),
    ],
    ids=str,
)
def test_a_setting_that_is_none_is_named_for_a_program_too(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: tuple[str, ...],
    field: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"DETENT_MONITOR_{name}", value)
    result = CliRunner().invoke(app, ["monitor", "--ledger", "l.sqlite", *arguments, "--json"])
    error = json.loads(result.stdout)["error"]

    assert (result.exit_code, error["reason"]) == (2, "INVALID_FIELD")
    assert error["metadata"]["field"] == field
