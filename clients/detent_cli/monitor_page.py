"""Write a page with pictures of how good the signals have been, and of what has drifted."""

import datetime as dt
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from detent.contracts.binding import SignalSource
from detent.contracts.errors import DataInvalid
from detent.core.evaluation.drift import DriftVerdict
from detent.core.evaluation.monitoring import ModelReport
from detent_cli.pictures import picture, plain_axis

COLOURS = {SignalSource.MODEL: "#1f6f8b", SignalSource.PROXY: "#c8553d"}
STEADY, DRIFTED, UNKNOWN, BAND = "#3a7d44", "#b3261e", "#888888", "#d9d9d9"
OF_VERDICT = {
    DriftVerdict.STEADY: STEADY,
    DriftVerdict.DRIFTED: DRIFTED,
    DriftVerdict.TOO_FEW_ROWS: UNKNOWN,
}
COIN_BRIER = 0.25


def write_page(path: Path, reports: list[ModelReport]) -> None:
    """Write the page.

    Raises:
        DataInvalid: It cannot be written there.
    """
    template = jinja2.Template(
        files("detent_cli").joinpath("monitor.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = template.render(
        models=[
            {
                "name": one.model_id,
                "binding": one.binding_hash,
                "bars": f"{one.bar_count:,}",
                "newest": _time(one.newest_ts_ms).strftime("%Y-%m-%d %H:%M"),
                "alerts": [(alert.kind.value, alert.message) for alert in one.alerts],
                "brier": picture(_brier(one)),
                "ece": picture(_ece(one)),
                "features": picture(_features(one)) if one.features else "",
                "unknown": one.features_unknown,
                "retrain": one.retrain.verdict.value.replace("_", " "),
                "samples": f"{one.retrain.sample_count:,}",
                "due": _time(one.retrain.due_ts_ms).strftime("%Y-%m-%d"),
            }
            for one in reports
        ]
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _time(ts_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC)


def _brier(report: ModelReport) -> Figure:
    figure, axis = plain_axis(3.2)
    for signal in report.signals:
        times: list[Any] = [_time(point.ts_ms) for point in signal.history]
        scores = [point.brier for point in signal.history]
        name, colour = signal.signal_source.value, COLOURS[signal.signal_source]
        axis.plot(times, scores, color=colour, marker=".", label=name)
    axis.axhline(COIN_BRIER, color="black", linewidth=0.8, linestyle="--", label="a coin")
    axis.set_ylabel("Brier score, rolling")
    axis.legend(loc="best", frameon=False)
    return figure


def _ece(report: ModelReport) -> Figure:
    """Draw the ECE of both signals over what a perfect one stays below."""
    figure, axis = plain_axis(3.2)
    for signal in report.signals:
        times: list[Any] = [_time(point.ts_ms) for point in signal.history]
        name, colour = signal.signal_source.value, COLOURS[signal.signal_source]
        if signal.signal_source is SignalSource.MODEL:
            highs = [point.ece_null_high for point in signal.history]
            axis.fill_between(times, 0, highs, color=BAND, label="a perfect model, 95%")
        errors = [point.ece for point in signal.history]
        axis.plot(times, errors, color=colour, marker=".", label=name)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("ECE, rolling")
    axis.legend(loc="best", frameon=False)
    return figure


def _features(report: ModelReport) -> Figure:
    """Draw how far each feature has moved, with what the distance is worth."""
    figure, axis = plain_axis(1.0 + 0.32 * len(report.features))
    for place, drift in enumerate(report.features):
        axis.barh(place, drift.ks, color=OF_VERDICT[drift.verdict], height=0.7)
        p_value = "too few rows" if drift.p_value is None else f"p {drift.p_value:.3f}"
        text = f"{p_value}, worth {drift.effective_rows} of {drift.current_rows} rows"
        axis.text(drift.ks + 0.01, place, text, va="center", fontsize=9)
    axis.set_yticks(range(len(report.features)), [drift.feature for drift in report.features])
    axis.set_xlim(0.0, 1.3)
    axis.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axis.invert_yaxis()
    axis.set_xlabel("KS distance of the recent rows from the reference")
    return figure
