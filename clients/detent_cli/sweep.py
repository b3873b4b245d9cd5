"""Sweep settings of a policy over windows that walk forward: `detent sweep`."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from detent.contracts.json_codec import to_json
from detent_cli.backtest import (
    Bps,
    Cash,
    Data,
    How,
    Permissions,
    Policy,
    Rule,
    Shorts,
    VolBars,
)
from detent_cli.backtest import Window as TriggerWindow
from detent_cli.instants import day_text
from detent_cli.output import (
    JsonFlag,
    console,
    print_json,
    print_rows,
    print_sheet,
    progress_bar,
    reported,
)

if TYPE_CHECKING:
    from detent.offline.sweeping.report import Outcome, SweepReport

PPM_ONE = 1_000_000
Axes = Annotated[
    list[str],
    typer.Option("--set", help="name=value,value of a policy config, or calibration=...; again."),
]
TrainBars = Annotated[int | None, typer.Option(help="Bars that a setting is chosen on.", min=2)]
TestBars = Annotated[
    int | None, typer.Option(help="Bars that it is measured on; also the step.", min=2)
]
SweepName = Annotated[str, typer.Option(help="Name of the sweep; each is written once.")]


def sweep(
    artifact: Annotated[Path, typer.Argument(help="The model's directory, its run beside it.")],
    *,
    data: Data,
    axes: Axes,
    name: SweepName = "sweep",
    train_bars: TrainBars = None,
    test_bars: TestBars = None,
    policy: Policy = None,
    trigger: Rule = "trend",
    trigger_bars: TriggerWindow = None,
    trigger_file: Permissions = None,
    shorts: Shorts = None,
    vol_bars: VolBars = 96,
    execution: How = "next_bar",
    fee_bps: Bps = 5.0,
    slippage_bps: Bps = 1.0,
    cash: Cash = 1_000_000.0,
    as_json: JsonFlag = False,
) -> None:
    """Choose settings on the bars before each window, and measure them on the bars after.

    What the model says is what its run predicted out of fold. Every combination is logged
    beside the artifact before it is tried, and counts as a trial when the model is evaluated.
    """
    # Imported here: a strategist's installation neither back-tests nor draws.
    from detent.offline.backtesting.account import Costs  # noqa: PLC0415
    from detent.offline.backtesting.asking import question_of  # noqa: PLC0415
    from detent.offline.commands import load_table  # noqa: PLC0415
    from detent.offline.sweeping import trials  # noqa: PLC0415
    from detent.offline.sweeping.grid import parse_axes  # noqa: PLC0415
    from detent.offline.sweeping.sweep import SweepRequest  # noqa: PLC0415
    from detent.offline.sweeping.sweep import sweep as run_all  # noqa: PLC0415
    from detent_cli.sweep_page import write_page  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        question = question_of(
            name=name,
            policy=policy,
            artifact=artifact,
            trigger=trigger,
            trigger_bars=trigger_bars,
            trigger_file=trigger_file,
            shorts=shorts,
            vol_bars=vol_bars,
            execution=execution,
            costs=Costs(fee_bps=fee_bps, slippage_bps=slippage_bps),
            cash=cash,
            max_signal_age_ms=None,
            records=False,
        )
        request = SweepRequest(
            question=question,
            axes=parse_axes(axes),
            train_bars=train_bars,
            test_bars=test_bars,
        )
        log = trials.TrialLog(name=name, axes=request.axes, trial_count=len(request.settings))
        begin = functools.partial(trials.begin, artifact, log)
        found = run_all(request, artifact, load_table(data), begin=begin, progress=progress)
        folder = trials.sweeps_folder_of(artifact) / name
        trials.finish(folder, found.report)
        page = folder / "sweep.html"
        write_page(page, found)
    if as_json:
        print_json(to_json(found.report))
        return
    _print(found.report)
    console.print("page", Text(str(page)), soft_wrap=True)


def shown(report: "SweepReport", setting: int) -> str:
    """Write a setting as a person typed it."""
    values = report.settings[setting].values
    names = [axis.name for axis in report.axes]
    return " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def percent(text: str) -> str:
    """Write a share as a percentage."""
    return f"{100 * float(text):+.2f}%"


def ratio(text: str | None) -> str:
    """Write a Sharpe ratio."""
    return "-" if text is None else f"{float(text):+.2f}"


def _print(report: "SweepReport") -> None:
    rows = []
    for window in report.windows:
        trial = window.trials[window.chosen]
        rows.append(
            (
                f"{day_text(window.test_start_ts_ms)}\n{day_text(window.test_end_ts_ms)}",
                # A line each: a number that is broken in two reads as a smaller one.
                shown(report, window.chosen).replace(" ", "\n"),
                ratio(trial.in_sample.sharpe),
                ratio(trial.out_of_sample.sharpe),
                percent(trial.out_of_sample.total_return),
                percent(window.proxy.total_return),
            )
        )
    columns = ("window", "chosen before it", "Sharpe before", "Sharpe in it", "return", "proxy")
    title = f"{len(report.settings)} settings in {len(report.windows)} windows"
    print_rows(title, columns, rows, numbers=columns[2:], whole=columns[:2])
    deflated = report.deflated_sharpe_ppm
    print_sheet(
        [
            ("out of sample", _sentence(report.model)),
            ("the proxy", _sentence(report.proxy)),
            ("trials", report.trial_count),
            ("deflated Sharpe", "-" if deflated is None else f"{deflated / PPM_ONE:.4f}"),
            ("to go on with", shown(report, report.chosen)),
        ]
    )


def _sentence(found: "Outcome") -> str:
    fallen = percent(found.max_drawdown)
    return f"{percent(found.total_return)}, Sharpe {ratio(found.sharpe)}, drawdown {fallen}"
