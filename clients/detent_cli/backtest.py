"""Run a plan over bars that are already there: `detent backtest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.contracts.canonical import JsonValue
from detent_cli.output import (
    JsonFlag,
    console,
    print_json,
    print_rows,
    progress_bar,
    reported,
)

if TYPE_CHECKING:
    from detent.offline.backtesting.results import BacktestSummary

ROWS = (
    ("equity, end", "metrics", "equity_end"),
    ("return", "metrics", "total_return"),
    ("Sharpe ratio, annual", "metrics", "sharpe"),
    ("Sortino ratio, annual", "metrics", "sortino"),
    ("largest drawdown", "metrics", "max_drawdown"),
    ("volatility, annual", "metrics", "pnl_volatility"),
    ("turnover a day", "metrics", "turnover_per_day"),
    ("fees", "metrics", "fees"),
    ("slippage", "metrics", "slippage"),
    ("funding paid", "metrics", "funding"),
    ("trades", "churn", "trade_count"),
    ("orders never filled", "churn", "cancel_count"),
    ("trades a day", "churn", "churn_per_day"),
    ("turned around", "churn", "flip_count"),
    ("mean holding time, ms", "churn", "hold_time_ms_mean"),
)


Data = Annotated[Path, typer.Option(help="Bars: .parquet, .csv, or the EURUSD wheel.")]
Out = Annotated[Path, typer.Option(help="Folder; the runs get folders of their own in it.")]
Artifact = Annotated[
    Path | None, typer.Option(help="The bound artifact's directory; without it the proxy alone.")
]
Stored = Annotated[
    Path | None,
    typer.Option(help="The artifact's stored signals: .parquet or .csv; else it is asked."),
]
Policy = Annotated[Path | None, typer.Option(help="Policy config, JSON; else the defaults.")]
Name = Annotated[str, typer.Option(help="Name of the run; its plans are named after it.")]
Rule = Annotated[str, typer.Option(help="What permits a direction: trend, always_long, file.")]
Window = Annotated[
    int | None, typer.Option(help="Bars of the trend's moving average; by default 96.", min=1)
]
Permissions = Annotated[Path | None, typer.Option(help="ts_ms, symbol, trigger_state of each bar.")]
Shorts = Annotated[
    bool | None, typer.Option(help="Whether the trend permits shorts; by default it does.")
]
VolBars = Annotated[int, typer.Option(help="Returns of the volatility forecast.", min=2)]
How = Annotated[str, typer.Option(help="next_bar; parity_a or parity_b to compare back-testers.")]
Bps = Annotated[float, typer.Option(help="Basis points of notional.", min=0, max=10_000)]
Cash = Annotated[float, typer.Option(help="Quote units at the start.", min=1, max=1e18)]
AgeMs = Annotated[
    int | None, typer.Option(help="How old a stored signal may be; with --signals.", min=0)
]
Records = Annotated[bool, typer.Option(help="Whether every decision is recorded.")]


def backtest(
    *,
    data: Data,
    out: Out,
    artifact: Artifact = None,
    signals: Stored = None,
    policy: Policy = None,
    name: Name = "run",
    trigger: Rule = "trend",
    trigger_bars: Window = None,
    trigger_file: Permissions = None,
    shorts: Shorts = None,
    vol_bars: VolBars = 96,
    execution: How = "next_bar",
    fee_bps: Bps = 5.0,
    slippage_bps: Bps = 1.0,
    cash: Cash = 1_000_000.0,
    max_signal_age_ms: AgeMs = None,
    records: Records = True,
    as_json: JsonFlag = False,
) -> None:
    """Decide every bar as the services would, trade it, and set model and proxy side by side.

    Each run's folder holds results_summary.json, equity.parquet, the ledger decisions.sqlite
    and the page report.html.
    """
    # Imported here: a strategist's installation neither back-tests nor draws.
    from detent.offline.backtesting.account import Costs  # noqa: PLC0415
    from detent.offline.backtesting.asking import question_of  # noqa: PLC0415
    from detent.offline.backtesting.backtest import backtest as run_all  # noqa: PLC0415
    from detent.offline.commands import load_table  # noqa: PLC0415
    from detent_cli.backtest_page import write_page  # noqa: PLC0415

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
            max_signal_age_ms=max_signal_age_ms,
            records=records,
        )
        compared = run_all(
            question,
            load_table(data),
            out=out,
            artifact=artifact,
            signals=signals,
            progress=progress,
        )
        pages = [out / source / "report.html" for source in compared.runs]
        for page in pages:
            write_page(page, compared)
    summaries = {source: run.summary for source, (run, _) in compared.runs.items()}
    if as_json:
        print_json({source: document_of(one) for source, one in summaries.items()})
        return
    _print(summaries)
    console.print("pages:", *pages)


def document_of(summary: "BacktestSummary") -> dict[str, JsonValue]:
    """Give a whole summary as JSON; measures are decimal strings."""
    from detent.contracts.json_codec import to_json  # noqa: PLC0415

    return to_json(summary)


def _print(summaries: "dict[str, BacktestSummary]") -> None:
    shown = [
        (what, *(_shown(getattr(getattr(one, part), field)) for one in summaries.values()))
        for what, part, field in ROWS
    ]
    answered = [f"{one.model_count} of {one.record_count}" for one in summaries.values()]
    shown.append(("answered by the model", *answered))
    shown.append(("binding", *(one.binding_hash[:16] for one in summaries.values())))
    print_rows("Back-test", ("", *summaries), shown)


def _shown(value: object) -> str:
    return "not defined" if value is None else str(value)
