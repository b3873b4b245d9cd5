"""Write a page with pictures of a sweep: what was chosen, and what came of it."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from detent.contracts.errors import DataInvalid
from detent_cli.backtest_page import COLOURS
from detent_cli.instants import day_text
from detent_cli.pictures import name_lines, picture, plain_axis
from detent_cli.sweep import PPM_ONE, percent, ratio, shown

if TYPE_CHECKING:
    from detent.offline.sweeping.report import SweepReport, Window
    from detent.offline.sweeping.sweep import Swept


def write_page(path: Path, swept: "Swept") -> None:
    """Write one page with its pictures inside.

    Raises:
        DataInvalid: It cannot be written there.
    """
    report = swept.report
    template = jinja2.Template(
        files("detent_cli").joinpath("sweep.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    deflated = report.deflated_sharpe_ppm
    page = template.render(
        report=report,
        account=picture(_account(swept)),
        ratios=picture(_ratios(report)),
        windows=[_row(report, window) for window in report.windows],
        settings=[shown(report, one.number) for one in report.settings],
        chosen=shown(report, report.chosen),
        model=[percent(report.model.total_return), ratio(report.model.sharpe)],
        proxy=[percent(report.proxy.total_return), ratio(report.proxy.sharpe)],
        deflated="not defined" if deflated is None else f"{deflated / PPM_ONE:.4f}",
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _row(report: "SweepReport", window: "Window") -> list[str]:
    trial = window.trials[window.chosen]
    return [
        f"{day_text(window.train_start_ts_ms)} to {day_text(window.train_end_ts_ms)}",
        f"{day_text(window.test_start_ts_ms)} to {day_text(window.test_end_ts_ms)}",
        shown(report, window.chosen),
        ratio(trial.in_sample.sharpe),
        ratio(trial.out_of_sample.sharpe),
        percent(trial.out_of_sample.total_return),
        percent(window.proxy.total_return),
        f"{trial.out_of_sample.trade_count:,}",
    ]


def _account(swept: "Swept") -> Figure:
    """Draw both accounts out of sample, with a line where a window begins."""
    figure, axis = plain_axis(3.6)
    for name, account in (("model", swept.model), ("proxy", swept.proxy)):
        grown = 100 * (np.cumprod(1.0 + account.returns) - 1.0)
        times = account.ts_ms.astype("datetime64[ms]")
        axis.plot(times, grown, color=COLOURS[name], linewidth=1.1, label=name)
    for window in swept.report.windows:
        start: Any = np.datetime64(window.test_start_ts_ms, "ms")
        axis.axvline(start, color="black", alpha=0.25, linewidth=0.8)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set_ylabel("return out of sample, %")
    name_lines(axis)
    return figure


def _ratios(report: "SweepReport") -> Figure:
    """Draw the Sharpe ratio of every setting in every window, the chosen ones marked."""
    figure, axis = plain_axis(1.6 + 0.28 * len(report.settings))
    cells = np.array(
        [
            [float(trial.out_of_sample.sharpe or "nan") for trial in window.trials]
            for window in report.windows
        ]
    ).T
    largest = float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 1.0
    drawn = axis.imshow(cells, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for column, window in enumerate(report.windows):
        axis.plot(column, window.chosen, marker="o", color="black", markersize=7, fillstyle="none")
    axis.set_xticks(range(len(report.windows)))
    axis.set_xticklabels([day_text(window.test_start_ts_ms) for window in report.windows])
    axis.set_yticks(range(len(report.settings)))
    axis.set_yticklabels([shown(report, one.number) for one in report.settings], fontsize=8)
    axis.grid(visible=False)
    figure.colorbar(drawn, ax=axis, label="Sharpe ratio in the window")
    return figure
