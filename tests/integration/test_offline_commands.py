"""Types the offline commands as a person and as a program would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.artifacts import HOUR_MS
from tests.unit.offline.test_bars import cells, csv_file
from typer.testing import CliRunner

from detent.core.features.feature_set import direction_bars_v1
from detent_cli.main import app

RUNNER = CliRunner()
SET = "direction_bars_v1"


def run(*words: object) -> Any:
    return RUNNER.invoke(app, [str(word) for word in words])


def json_of(result: Any, *, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return csv_file(tmp_path / "bars.csv", cells(60))


def test_features_are_built_for_a_person_and_for_a_program(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    words = ("features", "build", "--data", data, "--feature-set", SET, "--out", out)
    said = json_of(run(*words, "--json"))
    refused = run(*words)
    shown = run(*words, "--force")

    assert (said["rows"], said["served"]) == (60, 36)
    assert said["refused"] == {"FEATURES_WARMING_UP": 24}
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert "refused, FEATURES_WARMING_UP" in shown.output


def test_sets_are_described_and_compared(tmp_path: Path) -> None:
    other = tmp_path / "set.json"
    other.write_bytes(direction_bars_v1(60_000).canonical_json)
    described = json_of(run("features", "describe", SET, "--json"))
    differing = json_of(run("features", "diff", SET, other, "--json"), code=1)
    same = run("features", "diff", SET, SET)

    assert described["feature_version"] == direction_bars_v1(HOUR_MS).feature_version
    assert described["warmup_bars"] == 25
    assert differing["differences"] == [
        {"field": "engine.bar_interval_ms", "first": HOUR_MS, "second": 60_000}
    ]
    assert (same.exit_code, run("features", "diff", SET, other).exit_code) == (0, 1)
    assert "close_zscore_24" in run("features", "describe", SET).output
    assert run("features", "describe", "unknown").exit_code == 2


@pytest.mark.proves("R300")
def test_completeness_is_audited_and_written(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    said = json_of(run("features", "audit", "--data", data, "--out", out, "--json"))
    shown = run("features", "audit", "--data", data)

    assert sum(window["rows"] for window in said["windows"]) == 60
    assert len(out.read_text().splitlines()) == 1 + len(said["windows"])
    assert "36 of 60 rows served" in shown.output


@pytest.mark.proves("R170")
def test_a_data_file_is_checked_with_an_exit_code(data: Path, tmp_path: Path) -> None:
    spoilt = cells(60)
    spoilt[9]["close"] = "-1"
    bad = csv_file(tmp_path / "bad.csv", spoilt)
    said = json_of(run("data", "check", data, "--json"))
    defect = json_of(run("data", "check", bad, "--json"), code=1)
    for_promotion = run("data", "check", data, "--for-promotion")

    assert (said["usable"], said["suffices_for_promotion"]) == (True, False)
    assert (defect["usable"], defect["defect_count"]) == (False, 1)
    assert run("data", "check", data).exit_code == 0
    assert for_promotion.exit_code == 1
    assert "not enough for promotion" in for_promotion.output
    assert run("data", "check", tmp_path / "none.csv").exit_code == 2
    assert "non positive price" in run("data", "check", bad).output
