"""Sweeps: windows in order, settings chosen by what came before, and every trial counted."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.evidence_folders import lay_out
from tests.unit.offline.planted_models import good
from tests.unit.offline.walk_forward.test_training import everything, trained
from tests.unit.training_rows import START_MS, bars
from typer.testing import CliRunner

from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.plan import PolicyConfig, VolUnit
from detent.core.evaluation.deflated_sharpe import deflated_sharpe, return_moments
from detent.core.evaluation.profiles import STANDARD
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.backtest import Question
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.commands import silent
from detent.offline.promotion.evaluating import evaluate_artifact
from detent.offline.sweeping.grid import parse_axes, settings_of
from detent.offline.sweeping.sweep import SweepRequest, Swept, best_of, sweep
from detent.offline.sweeping.trials import TrialLog, begin, finish, swept_trials
from detent_cli.main import app

AXES = ("tau_bps=0,100,400", "w_max_ppm=100000,250000", "calibration=calibrated,raw")
CONFIG = PolicyConfig(horizon_id="h2", vol_unit=VolUnit.PER_BAR, vol_target_ppm=3_000)
TRAIN_BARS, TEST_BARS = 200, 120


def request(**changes: object) -> SweepRequest:
    question = Question(
        name="sweep",
        policy_config=CONFIG,
        trigger=TriggerParameters(window_bars=24),
        vol_bars=24,
        costs=Costs(fee_bps=1.0),
        records=False,
    )
    fields = {"question": question, "axes": parse_axes(AXES), "train_bars": TRAIN_BARS}
    return SweepRequest(**{**fields, "test_bars": TEST_BARS, **changes})  # type: ignore[arg-type]


@functools.cache
def artifact() -> Path:
    """Give a trained artifact with its run, free to have sweeps beside it."""
    folder = Path(tempfile.mkdtemp())
    source = trained()
    for path in (source.artifact, source.run):
        shutil.copytree(path, folder / path.name)
    return folder / source.artifact.name


@functools.cache
def swept() -> Swept:
    return sweep(request(), artifact(), bars(), progress=silent)


@pytest.mark.proves("R120", "R292")
def test_windows_follow_one_another_and_share_no_bar() -> None:
    """Of the stated length, the stated step apart, with the label's horizon between the parts."""
    report = swept().report
    step_ms, bar_ms = TEST_BARS * report.bar_interval_ms, report.bar_interval_ms

    assert len(report.windows) >= 3
    for before, window in zip(report.windows, report.windows[1:], strict=False):
        assert window.test_start_ts_ms == before.test_end_ts_ms + bar_ms
        assert window.train_start_ts_ms == before.train_start_ts_ms + step_ms
    for window in report.windows:
        assert window.train_end_ts_ms - window.train_start_ts_ms == (TRAIN_BARS - 1) * bar_ms
        assert window.test_end_ts_ms - window.test_start_ts_ms == (TEST_BARS - 1) * bar_ms
        # Two bars of purge: the next one is the third.
        assert window.test_start_ts_ms - window.train_end_ts_ms == 3 * bar_ms
    with pytest.raises(DataInvalid, match="bars that were predicted"):
        sweep(request(train_bars=100_000), artifact(), bars(), progress=silent)


@pytest.mark.proves("R120")
def test_every_setting_is_reported_in_every_window() -> None:
    report = swept().report

    assert [axis.name for axis in report.axes] == ["tau_bps", "w_max_ppm", "calibration"]
    assert len(report.settings) == 12
    for window in report.windows:
        assert [trial.setting for trial in window.trials] == list(range(12))
        assert window.chosen == best_of([trial.in_sample for trial in window.trials])
        assert len({trial.out_of_sample.total_return for trial in window.trials}) > 4
    asked = request().question
    assert (report.trigger_parameters, report.vol_bars) == (asked.trigger, asked.vol_bars)
    assert report.cash == "1000000"
    assert report.trial_count == trained().record.trial_count + 12
    moments = return_moments(swept().model.returns)
    assert moments is not None
    assert report.deflated_sharpe_ppm == round(1e6 * deflated_sharpe(moments, report.trial_count))
    grown = float(np.prod(1.0 + swept().model.returns)) - 1.0
    assert float(report.model.total_return) == pytest.approx(grown, abs=1e-8)


@pytest.mark.proves("R120")
def test_what_comes_later_changes_no_choice(tmp_path: Path) -> None:
    """The answers after the second window's start are turned over: what was chosen by then stays.

    The windows that follow are the control: what they chose on did change.
    """
    turned = tmp_path / artifact().name
    shutil.copytree(artifact(), turned)
    shutil.copytree(trained().run, tmp_path / trained().run.name)
    path = tmp_path / trained().run.name / "predictions.parquet"
    table = pq.read_table(path)
    cut = swept().report.windows[1].test_start_ts_ms
    later = table["ts_ms"].to_numpy() >= cut
    for name, one in (("p_raw", 1.0), ("p_hat_bps", 10_000)):
        values = table[name].to_numpy()
        place = table.schema.get_field_index(name)
        changed = pa.array(np.where(later, one - values, values), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), changed)
    pq.write_table(table, path)

    found = sweep(request(), turned, bars(), progress=silent).report
    expected = swept().report
    for number in (0, 1):
        mine, theirs = found.windows[number], expected.windows[number]
        assert mine.chosen == theirs.chosen
        assert [one.in_sample for one in mine.trials] == [one.in_sample for one in theirs.trials]
    last = [one.in_sample for one in found.windows[-1].trials]
    assert last != [one.in_sample for one in expected.windows[-1].trials]


def test_a_sweep_repeats_to_the_byte() -> None:
    again = sweep(request(), artifact(), bars(), progress=silent)

    assert again.report.canonical == swept().report.canonical


def test_other_bars_and_other_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="bars: found"):
        sweep(request(), artifact(), bars(1_100), progress=silent)
    shutil.copytree(artifact(), tmp_path / artifact().name)
    with pytest.raises(DataInvalid, match="the run beside the artifact"):
        sweep(request(), tmp_path / artifact().name, bars(), progress=silent)


@pytest.mark.parametrize(
    "axes",
    [(), ("tau_bps=",), ("tau_bps=1,1",), ("magic=1",), ("tau_bps=1", "tau_bps=2"), ("tau_bps",)],
)
def test_a_grid_of_nothing_or_of_no_setting_is_refused(axes: tuple[str, ...]) -> None:
    with pytest.raises(InvalidField):
        parse_axes(axes)


@pytest.mark.parametrize(
    "axes",
    [
        ("tau_bps=many",),
        ("tau_bps=-1",),
        ("tau_bps=1,01",),
        ("tau_bps=1,1_0",),
        ("calibration=best",),
        ("w_max_ppm=0",),
    ],
)
def test_a_value_out_of_range_is_refused(axes: tuple[str, ...]) -> None:
    with pytest.raises(InvalidField):
        settings_of(parse_axes(axes), CONFIG)


def test_a_grid_that_nobody_could_look_through_is_refused() -> None:
    values = ",".join(map(str, range(15)))
    with pytest.raises(InvalidField, match="225 settings"):
        settings_of(parse_axes([f"tau_bps={values}", f"epsilon_w_ppm={values}"]), CONFIG)


def test_a_sweep_that_is_refused_before_it_tries_anything_counts_nothing() -> None:
    """Nobody has seen anything: a wrong file must not cost the model its evidence."""
    begun: list[str] = []
    with pytest.raises(DataInvalid, match="bars: found"):
        sweep(
            request(),
            artifact(),
            bars(1_100),
            begin=lambda: begun.append("too soon"),
            progress=silent,
        )
    with pytest.raises(DataInvalid, match="bars that were predicted"):
        sweep(
            request(train_bars=100_000),
            artifact(),
            bars(),
            begin=lambda: begun.append("too soon"),
            progress=silent,
        )
    assert begun == []

    class BrokenOffError(Exception):
        pass

    def tried(stage: str, done: int, total: int) -> None:
        del stage, total
        assert begun == ["in time"]
        raise BrokenOffError(done)

    with pytest.raises(BrokenOffError):
        sweep(
            request(),
            artifact(),
            bars(),
            begin=lambda: begun.append("in time"),
            progress=tried,
        )


@pytest.mark.proves("R120")
def test_every_trial_counts_when_the_model_is_judged(tmp_path: Path) -> None:
    """Also one that was broken off; and no sweep is written over by the next."""
    model = tmp_path / artifact().name
    shutil.copytree(artifact(), model)
    shutil.copytree(trained().run, tmp_path / trained().run.name)
    before = everything(model)
    assert swept_trials(model) == 0
    folder = begin(model, TrialLog(name="first", axes=request().axes, trial_count=12))
    finish(folder, swept().report)
    begin(model, TrialLog(name="broken-off", axes=request().axes, trial_count=30))
    with pytest.raises(DataInvalid, match="every trial counts"):
        begin(model, TrialLog(name="first", axes=request().axes, trial_count=1))

    assert swept_trials(model) == 42
    third = sweep(request(), model, bars(), progress=silent).report
    assert third.trial_count == swept().report.trial_count + 42
    assert third.deflated_sharpe_ppm is not None
    assert third.deflated_sharpe_ppm < (swept().report.deflated_sharpe_ppm or 0)
    assert everything(model) == before
    policy = json.loads((folder / "policy.json").read_text())
    assert policy["tau_bps"] == int(swept().report.settings[swept().report.chosen].values[0])
    (folder / "trials.json").write_text("{}")
    with pytest.raises(DataInvalid, match="first"):
        swept_trials(model)


def test_the_command_leaves_a_report_with_pictures(tmp_path: Path) -> None:
    model = tmp_path / artifact().name
    shutil.copytree(artifact(), model)
    shutil.copytree(trained().run, tmp_path / trained().run.name)
    data = tmp_path / "planted.csv"
    lines = ["ts_ms,symbol,open,high,low,close,volume"]
    names = ("symbol", "open", "high", "low", "close", "volume")
    lines += [
        ",".join([str(bar.ts_ms - 900_000), *(str(getattr(bar, name)) for name in names)])
        for series in bars().bars.values()
        for bar in series
    ]
    data.write_text("\n".join(lines))
    command = ["sweep", str(model), "--data", str(data), "--trigger-bars", "24", "--vol-bars", "24"]
    command += ["--set", "tau_bps=0,200", "--train-bars", "200", "--test-bars", "150"]

    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output[done.output.index("{") :])
    folder = tmp_path / f"{model.name}.sweeps" / "sweep"
    assert json.loads((folder / "sweep.json").read_text())["windows"] == found["windows"]
    assert (folder / "sweep.html").read_text().count("data:image/png;base64,") == 2
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "a sweep of that name" in again.output
    long = ["--set", "rebalance_cooldown_bars=11", "--set", "w_max_ppm=100000,250000"]
    table = CliRunner().invoke(app, [*command, *long, "--name", "wide"])
    assert table.exit_code == 0, table.output
    for whole in (" rebalance_cooldown_bars=11 ", "0000 "):
        assert table.output.count(whole) >= len(found["windows"])
    others = CliRunner().invoke(app, [*command, "--name", "others", "--train-bars", "100000"])
    assert others.exit_code == 2
    assert not folder.with_name("others").exists()


@pytest.mark.proves("R120")
def test_the_deflated_ratio_is_that_of_the_best_of_all_trials(tmp_path: Path) -> None:
    evidence = lay_out(tmp_path)
    gates = []
    for count in (12, 10**9):
        begin(evidence.artifact, TrialLog(name=f"x{count}", axes=request().axes, trial_count=count))
        found = evaluate_artifact(evidence.paths, STANDARD, at_ms=START_MS, resamples=20).report
        trading = found.measures.trading
        assert trading is not None
        gates.append((trading.trial_count, trading.deflated_sharpe_ppm))

    (few, likely), (many, unlikely) = gates
    assert (few, many) == (good(1).trial_count + 12, good(1).trial_count + 12 + 10**9)
    assert likely is not None
    assert unlikely is not None
    assert unlikely <= likely
