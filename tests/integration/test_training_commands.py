"""The commands of data sets and of training, from a file of bars to an artifact with evidence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.training_rows import CREATED_AT, SYMBOLS, raw_bars

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import open_serving
from detent.contracts.signals import RegimeSignal

DETENT = [sys.executable, "-c", "from detent_cli.main import app; app()"]


def run(*words: object, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [*DETENT, *map(str, words), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(name="bars_file", scope="module")
def _bars_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bars") / "bars.parquet"
    rows = [row for seed, name in enumerate(SYMBOLS, 3) for row in raw_bars(800, name, seed)]
    columns: dict[str, Any] = {
        "ts_ms": [row.open_ts_ms for row in rows],
        "symbol": [row.symbol for row in rows],
    }
    for place, name in enumerate(("open", "high", "low", "close", "volume")):
        columns[name] = [float(row.numbers[place]) for row in rows]
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.proves("R143", "R144", "R160", "R335")
def test_from_bars_to_an_artifact_with_its_evidence(bars_file: Path, tmp_path: Path) -> None:
    made = ("--out", tmp_path, "--created-at", CREATED_AT, "--horizon-bars", 2)
    words = ("--data", bars_file, "--dataset-id", "cli-15m", "--source", "synthetic")
    built = run("dataset", "build", *words, *made)
    folder = tmp_path / "cli-15m"
    assert (built["horizon_id"], built["horizon_bars"]) == ("h2", 2)
    assert run("dataset", "show", folder) == built
    assert run("dataset", "verify", folder, "--bars", bars_file)["rows_computed_again"] == 64

    record = run(
        *("train", folder, "--out-dir", tmp_path / "artifacts", "--created-at", CREATED_AT),
        *("--dataset-id", "cli-15m", "--seed", 3, "--n-samples", 1_400, "--notes", "by hand"),
        *("--candidate", "logistic", "--candidate", "linear_regression"),
        *("--folds", 2, "--trials", 0, "--workers", 1),
    )

    assert record["model_id"] == "direction_v1.0.0"
    assert {one["architecture_id"] for one in record["candidates"]} == {
        "logistic",
        "linear_regression",
    }
    artifact = tmp_path / "artifacts" / "direction_v1.0.0"
    assert run("artifact", "verify", artifact)["verified"] is True
    evidence = artifact.with_name("direction_v1.0.0.run")
    assert {one.name for one in evidence.iterdir()} == {"run.json", "predictions.parquet"}


@pytest.mark.proves("R170", "R336")
def test_what_is_wrong_is_said_and_ends_with_its_code(bars_file: Path, tmp_path: Path) -> None:
    words = ("--data", bars_file, "--dataset-id", "cli-15m", "--source", "export")
    run("dataset", "build", *words, "--out", tmp_path, "--created-at", CREATED_AT)
    folder = tmp_path / "cli-15m"

    short = run("dataset", "verify", folder, "--for-promotion", code=1)
    assert "6 months" in short["error"]["message"]
    (folder / "more.txt").write_text("x")
    assert "more.txt" in run("dataset", "verify", folder, code=1)["error"]["message"]
    unknown = ("--data", bars_file, "--dataset-id", "x-15m", "--source", "rumour")
    refused = run("dataset", "build", *unknown, "--out", tmp_path, "--created-at", "now", code=2)
    assert refused["error"]["metadata"]["field"] == "source"
    fixed = (*words, "--out", tmp_path, "--created-at", CREATED_AT, "--horizon-bars", 2)
    refused = run("dataset", "build", *fixed, "--head", "toxicity", code=2)
    assert refused["error"]["metadata"]["field"] == "horizon_bars"
    # A place that cannot be written is a person's mistake, and no failure of ours.
    nowhere = ("--out", bars_file, "--created-at", CREATED_AT)
    refused = run("dataset", "build", *words, *nowhere, code=2)
    assert refused["error"]["reason"] == "DATA_INVALID"
    assert refused["error"]["metadata"]["file"] == str(bars_file)


@pytest.mark.proves("R253")
def test_a_spacing_is_the_best_by_what_was_asked(bars_file: Path, tmp_path: Path) -> None:
    """One spacing has the higher Sharpe ratio, the other one fills more: the model learns that."""
    words = ("--data", bars_file, "--dataset-id", "regime-15m", "--source", "synthetic")
    made = ("--out", tmp_path, "--created-at", CREATED_AT, "--head", "regime")
    run("dataset", "build", *words, *made)
    rows = pq.read_table(tmp_path / "regime-15m" / "rows.parquet")
    lines = ["ts_ms,symbol,spacing_x1000,sharpe,rt_expectancy,fill_rate,max_dd"]
    for ts_ms, symbol in zip(
        rows.column("ts_ms").to_pylist(), rows.column("symbol").to_pylist(), strict=True
    ):
        lines += [f"{ts_ms},{symbol},700,2.0,0,0.4,0.01", f"{ts_ms},{symbol},1600,1.0,0,0.9,0.01"]
    spacing = tmp_path / "spacing.csv"
    spacing.write_text("\n".join(lines) + "\n")

    def spacings(name: str, target: str, code: int = 0) -> set[int]:
        trained = run(
            *("heads", "class", tmp_path / "regime-15m", "--out-dir", tmp_path / "artifacts"),
            *("--created-at", CREATED_AT, "--name", name, "--folds", 1),
            *("--spacing", spacing, "--spacing-target", target),
            code=code,
        )
        if code:
            assert trained["error"]["metadata"]["field"] == "spacing_target"
            return set()
        serving = open_serving(read_artifact(Path(trained["artifact"])))
        said = serving.answers([row.values for row in serving.artifact.golden.rows])
        assert all(isinstance(one, RegimeSignal) for one in said)
        return {one.spacing_multiplier_x1000 for one in said}

    assert spacings("tight", "sharpe") == {700}
    assert spacings("wide", "fill_rate") == {1600}
    assert spacings("none", "profit", code=2) == set()


@pytest.mark.proves("R255", "R256")
def test_fill_and_rules_from_files(tmp_path: Path) -> None:
    draws, count = np.random.default_rng(5), 1_200
    ts_ms = 1_700_000_000_000 + 60_000 * np.arange(count)
    distance = draws.uniform(0.0, 60.0, count)
    filled = draws.random(count) < 1.0 / (1.0 + np.exp(0.12 * distance - 2.0))
    columns = {"ts_ms": ts_ms, "settled_ts_ms": ts_ms + 1, "symbol": ["AAA"] * count}
    columns |= {"distance_bps": distance, "filled": filled.astype(np.int64)}
    names = ("spread_bps", "ofi_zscore", "depth_imbalance", "natr_14_5m")
    columns |= {name: draws.normal(0.0, 1.0, count) for name in names}
    orders, conditions = tmp_path / "orders.parquet", tmp_path / "conditions.csv"
    pq.write_table(pa.table(columns), orders)
    lines = ["ts_ms,settled_ts_ms,best_policy,distance"]
    for at, far in zip(ts_ms.tolist(), distance.tolist(), strict=True):
        lines.append(f"{at},{at + 1},{'grid' if far > 30 else 'hold'},{far:.3f}")
    conditions.write_text("\n".join(lines) + "\n")

    trained = run(
        *("heads", "fill", orders, "--out-dir", tmp_path, "--created-at", CREATED_AT),
        *("--folds", 2),
    )
    found = run("heads", "rules", conditions, "--out", tmp_path / "rules.json")

    assert all(fold["brier_ppm"] < fold["base_brier_ppm"] for fold in trained["folds"])
    assert run("artifact", "verify", tmp_path / "fill_v1.0.0")["verified"] is True
    assert found["rules"] == 2
    assert (tmp_path / "rules.json").exists()
