"""Write a page with pictures of a back-test, the model beside the proxy."""

import base64
import datetime as dt
import io
import itertools
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detent.contracts.errors import DataInvalid
from detent.core.evaluation.equity import bar_returns, bar_turnover, drawdowns
from detent_cli.backtest import ROWS
from detent_cli.pictures import name_lines

if TYPE_CHECKING:
    from detent.offline.backtesting.backtest import Compared
    from detent.offline.backtesting.folder import BacktestRun

mpl.use("Agg")

COLOURS = {"model": "#1f6f8b", "proxy": "#c8553d"}
# More points than a picture has columns show nothing more, if they are the right ones.
POINTS_MAX = 1_500
SYMBOLS_SHOWN_MAX = 6
DAY_MS = 86_400_000
# From here on a person reads two digits after the point.
LARGE = 1_000


def write_page(path: Path, compared: "Compared") -> None:
    """Write one page with its pictures inside.

    Raises:
        DataInvalid: It cannot be written there.
    """
    template = jinja2.Template(
        files("detent_cli").joinpath("backtest.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    runs = {source: run for source, (run, _) in compared.runs.items()}
    first = next(iter(runs.values())).summary
    page = template.render(
        name=first.plan.plan_id.rpartition("-")[0],
        first=_time(first.first_ts_ms).strftime("%Y-%m-%d %H:%M"),
        last=_time(first.last_ts_ms).strftime("%Y-%m-%d %H:%M"),
        bars=first.bar_count,
        interval=dt.timedelta(milliseconds=first.bar_interval_ms),
        symbols=first.plan.symbols,
        execution=first.execution,
        fee_bps=first.fee_bps,
        slippage_bps=first.slippage_bps,
        data_hash=first.data_hash,
        account=_picture(_account(runs, compared)),
        weights=_picture(_weights(compared)),
        runs=[_facts(source, run) for source, run in runs.items()],
        rows=_rows(runs),
        reasons=_reasons(runs),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _facts(source: str, run: "BacktestRun") -> dict[str, str]:
    summary, binding = run.summary, run.summary.binding
    return {
        "source": source,
        "plan_id": summary.plan.plan_id,
        "origin": summary.signal_origin,
        "binding_hash": summary.binding_hash,
        "model_id": binding.model_id,
        "model_version_hash": binding.model_version_hash,
        "feature_version": binding.feature_version,
        "calibration_version": binding.calibration_version,
    }


def _rows(runs: "dict[str, BacktestRun]") -> list[list[str]]:
    rows = []
    for what, part, field in ROWS:
        found = [getattr(getattr(run.summary, part), field) for run in runs.values()]
        rows.append([what, *("not defined" if one is None else _short(one) for one in found)])
    answered = [f"{one.summary.model_count:,}" for one in runs.values()]
    return [*rows, ["answered by the model", *answered]]


def _short(value: object) -> str:
    """Write a measure with as many digits as a person reads."""
    if isinstance(value, str):
        number = float(value)
        return f"{number:,.{2 if abs(number) >= LARGE else 4}f}"
    return f"{value:,}"


def _reasons(runs: "dict[str, BacktestRun]") -> list[list[str]]:
    counts = [
        {one.reason: one.record_count for one in (*run.summary.reasons, *run.summary.fallbacks)}
        for run in runs.values()
    ]
    names = sorted({name for one in counts for name in one}, key=lambda n: -counts[0].get(n, 0))
    return [[name, *(f"{one.get(name, 0):,}" for one in counts)] for name in names]


def _time(ts_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC)


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure(height: float, rows: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(12, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(visible=True, alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _account(runs: "dict[str, BacktestRun]", compared: "Compared") -> Figure:
    """Draw equity, drawdown, daily turnover and gross weight of every run over time."""
    figure, (equity, fall, turnover, gross) = _figure(10.0, 4)
    for source, run in runs.items():
        curve, colour = run.curve, COLOURS[source]
        at = shown(curve.equity)
        equity.plot(
            _times(curve.ts_ms[at]), curve.equity[at], color=colour, linewidth=1.1, label=source
        )
        below = 100 * drawdowns(bar_returns(curve))
        at = shown(below)
        fall.plot(_times(curve.ts_ms[at]), below[at], color=colour, linewidth=0.9)
        fall.fill_between(
            _times(curve.ts_ms[at]), below[at], 0.0, color=colour, alpha=0.12, linewidth=0
        )
        days, sums = _daily(curve.ts_ms, bar_turnover(curve))
        turnover.step(_times(days), sums, where="post", color=colour, linewidth=0.8)
        held = np.abs(compared.runs[source][1].weight_ppm).sum(axis=1) / 10_000
        at = shown(held)
        gross.plot(_times(curve.ts_ms[at]), held[at], color=colour, linewidth=0.7)
    equity.set_ylabel("equity")
    equity.ticklabel_format(axis="y", style="plain", useOffset=False)
    name_lines(equity)
    fall.set_ylabel("drawdown, %")
    turnover.set_ylabel("turnover a day")
    turnover.set_ylim(bottom=0)
    gross.set_ylabel("gross weight, %")
    gross.set_ylim(bottom=0)
    return figure


def _weights(compared: "Compared") -> Figure:
    """Draw what was held of the first symbols, a picture for each."""
    (first, _), *_ = compared.runs.values()
    symbols = first.summary.plan.symbols[:SYMBOLS_SHOWN_MAX]
    figure, axes = _figure(1.0 + 1.5 * len(symbols), len(symbols))
    for place, (symbol, axis) in enumerate(zip(symbols, axes, strict=True)):
        for source, (run, ran) in compared.runs.items():
            held = ran.weight_ppm[:, place] / 10_000
            at, colour = shown(held), COLOURS[source]
            times = _times(run.curve.ts_ms[at])
            axis.step(times, held[at], where="post", color=colour, linewidth=0.7, label=source)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_ylabel(f"{symbol}, %")
    name_lines(axes[0])
    return figure


def _daily(ts_ms: Any, items: Any) -> tuple[Any, Any]:
    """Sum items over days of UTC; the last bar of a day closes at midnight."""
    days = (ts_ms - 1) // DAY_MS
    starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
    return days[starts] * DAY_MS, np.add.reduceat(items, starts)


def shown(items: Any) -> Any:
    """Choose the places of what is drawn: of each stretch of bars the lowest and the highest.

    Bars at even steps would leave out a fall or a position that came and went between two.

    Args:
        items: Shape (n,), n at least 1.

    Returns:
        Rising places, at most `POINTS_MAX` and the two ends.
    """
    if len(items) <= POINTS_MAX:
        return np.arange(len(items))
    edges = np.linspace(0, len(items), POINTS_MAX // 2 + 1).round().astype(np.int64)
    places = [0, len(items) - 1]
    for start, stop in itertools.pairwise(edges.tolist()):
        stretch = items[start:stop]
        places += [start + int(np.argmin(stretch)), start + int(np.argmax(stretch))]
    return np.unique(places)


def _times(ts_ms: Any) -> Any:
    return ts_ms.astype("datetime64[ms]")
