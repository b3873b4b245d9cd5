"""Runs `detent backtest` as a person does: a file of bars in, folders and pages out."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.builders import HORIZON, HOUR_MS
from tests.conftest import Artifacts
from typer.testing import CliRunner

from detent.contracts.json_codec import to_json
from detent.contracts.plan import PolicyConfig
from detent.offline.backtesting.folder import read_run
from detent_cli.main import app

SYMBOLS_AND_RUNS = 2


@pytest.fixture(name="data")
def _data(artifacts: Artifacts, tmp_path: Path) -> Path:
    bars = [bar for series in artifacts.bars.values() for bar in series[:200]]
    columns = {
        "ts_ms": [bar.ts_ms - HOUR_MS for bar in bars],
        "symbol": [bar.symbol for bar in bars],
        **{
            name: [float(getattr(bar, name)) for bar in bars]
            for name in ("open", "high", "low", "close", "volume")
        },
    }
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(name="policy")
def _policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(to_json(PolicyConfig(horizon_id=HORIZON, tau_bps=0))))
    return path


def test_model_and_proxy_stand_side_by_side(
    artifacts: Artifacts, data: Path, policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["backtest", "--data", str(data), "--out", str(out), "--policy", str(policy)]
    command += ["--artifact", str(artifacts.stable), "--trigger-bars", "12", "--vol-bars", "12"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output[done.output.index("{") :])

    assert sorted(found) == ["model", "proxy"]
    assert found["model"]["binding_hash"] == artifacts.stable_binding.binding_hash
    assert found["model"]["model_count"] > 200
    for source in found:
        run = read_run(out / source)
        assert run.summary.record_count == 200 * SYMBOLS_AND_RUNS
        page = (out / source / "report.html").read_text()
        assert page.count("data:image/png;base64,") == SYMBOLS_AND_RUNS
        assert artifacts.stable_binding.model_version_hash in page
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "empty folder" in again.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trigger", "magic"),
        ("--execution", "yesterday"),
        ("--signals", "signals.parquet"),
        ("--max-signal-age-ms", "1000"),
    ],
)
def test_what_cannot_be_run_is_refused(option: str, value: str, data: Path, tmp_path: Path) -> None:
    command = ["backtest", "--data", str(data), "--out", str(tmp_path / "out"), option, value]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == 2
    assert "expected" in done.output


@pytest.mark.parametrize("bps", ["inf", "10001", "-1"])
@pytest.mark.parametrize("option", ["--fee-bps", "--slippage-bps"])
def test_costs_beyond_what_is_traded_are_refused(option: str, bps: str, tmp_path: Path) -> None:
    command = ["backtest", "--data", "bars.parquet", "--out", str(tmp_path), option, bps]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == 2
    assert f"'{option}'" in done.output


@pytest.mark.parametrize("cash", ["inf", "nan", "0"])
def test_cash_that_no_account_can_hold_is_refused(cash: str, tmp_path: Path) -> None:
    command = ["backtest", "--data", "bars.parquet", "--out", str(tmp_path), "--cash", cash]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == 2
    assert "'--cash'" in done.output
