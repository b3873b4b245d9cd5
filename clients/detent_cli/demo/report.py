"""Write the demo's page: what was decided, by whom, how well calibrated, how fast."""

import base64
import datetime as dt
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detent.contracts.binding import SignalSource
from detent.contracts.units import BPS_ONE
from detent.core.evaluation.reliability import (
    calibration_error,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.scores import brier_score
from detent_cli.demo.run import Outcome
from detent_cli.demo.spans import Span, tree
from detent_cli.reliability_plot import ReliabilitySeries, reliability_figure

mpl.use("Agg")

NULL_SEED = 7
NULL_RESAMPLES = 1_000
MODEL_COLOUR = "#1f6f8b"
PROXY_COLOUR = "#c8553d"


def write_report(
    path: Path,
    outcome: Outcome,
    spans: list[Span],
    summary: dict[str, object],
    *,
    horizon_bars: int,
    interval_ms: int,
) -> None:
    """Write one page with its pictures inside."""
    template = jinja2.Template(
        files("detent_cli.demo").joinpath("report.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    reliability, scores = _reliability(outcome, horizon_bars=horizon_bars)
    page = template.render(
        summary=summary,
        symbol=outcome.steps[0].row.symbol,
        first=_time(outcome.steps[0].bar.ts_ms).strftime("%Y-%m-%d %H:%M"),
        last=_time(outcome.steps[-1].bar.ts_ms).strftime("%Y-%m-%d %H:%M"),
        interval=dt.timedelta(milliseconds=interval_ms),
        decisions=_picture(_decisions(outcome)),
        fallback=_picture(_fallback(outcome)),
        reliability=_picture(reliability),
        scores=scores,
        spans=_waterfall(spans),
        record=outcome.steps[-1].record,
        record_hash=outcome.steps[-1].record.record_hash,
    )
    path.write_text(page, encoding="utf-8")


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


def _decisions(outcome: Outcome) -> Figure:
    """Draw price, target weight and probabilities over all bars."""
    steps = outcome.steps
    times: Any = [_time(step.bar.ts_ms) for step in steps]
    figure, (price, weight, p_hat) = _figure(8.5, 3)
    price.plot(times, [float(step.bar.close) for step in steps], color="black", linewidth=0.9)
    price.set_ylabel("close")
    weights = [step.decision.target_weight_final_ppm / 10_000 for step in steps]
    weight.step(times, weights, where="post", color=MODEL_COLOUR, linewidth=1.0)
    weight.axhline(0, color="black", linewidth=0.6)
    weight.set_ylabel("target weight, %")
    raw = [_percent(step.record.signal.p_hat_raw_bps) for step in steps]
    calibrated = [_percent(step.record.signal.p_hat_calibrated_bps) for step in steps]
    proxy = [step.record.signal.proxy_p_hat_bps / 100 for step in steps]
    p_hat.plot(times, proxy, color=PROXY_COLOUR, linewidth=0.5, alpha=0.5, label="proxy")
    p_hat.plot(times, raw, color="#888888", linewidth=0.8, label="model, raw")
    p_hat.plot(times, calibrated, color=MODEL_COLOUR, linewidth=1.1, label="model, calibrated")
    p_hat.axhline(50, color="black", linewidth=0.6)
    p_hat.set_ylabel("P(up), %")
    p_hat.legend(loc="upper left", ncols=3, frameon=False)
    for axis in (price, weight, p_hat):
        _shade(axis, outcome, times)
    price.set_title("shaded: answered by the proxy although a model is bound", loc="left")
    return figure


def _percent(value_bps: int | None) -> float:
    return float("nan") if value_bps is None else value_bps / 100


def _shade(axis: Axes, outcome: Outcome, times: Any) -> None:
    """Shade every run of bars that fell back."""
    fell = [step.decision.fallback_reason is not None for step in outcome.steps]
    start: int | None = None
    for number, now in enumerate([*fell, False]):
        if now and start is None:
            start = number
        elif not now and start is not None:
            end = min(number, len(times) - 1)
            axis.axvspan(times[start], times[end], color=PROXY_COLOUR, alpha=0.15, linewidth=0)
            start = None


def _fallback(outcome: Outcome) -> Figure:
    """Draw who answered, bar by bar, around the kill and the restart."""
    low = max(0, outcome.killed_at - 40)
    high = min(len(outcome.steps), outcome.restarted_at + 40)
    steps = outcome.steps[low:high]
    figure, (axis,) = _figure(2.6, 1)
    numbers = np.arange(low, high)
    by_model = np.array([step.decision.signal_source is SignalSource.MODEL for step in steps])
    used = np.array([step.decision.p_hat_bps / 100 for step in steps])
    axis.plot(numbers, used, color="#bbbbbb", linewidth=0.8)
    axis.scatter(
        numbers[by_model], used[by_model], s=12, color=MODEL_COLOUR, label="model", zorder=3
    )
    axis.scatter(
        numbers[~by_model], used[~by_model], s=12, color=PROXY_COLOUR, label="proxy", zorder=3
    )
    axis.axvline(outcome.killed_at, color=PROXY_COLOUR, linestyle="--", linewidth=1)
    axis.axvline(outcome.restarted_at, color="#3a7d44", linestyle="--", linewidth=1)
    axis.set_xlabel("bar   (red: inference killed, green: started again)")
    axis.set_ylabel("P(up) used, %")
    axis.legend(loc="upper right", frameon=False)
    return figure


def _reliability(outcome: Outcome, *, horizon_bars: int) -> tuple[Figure, list[dict[str, str]]]:
    """Draw the reliability of the streamed answers, whose outcomes nobody had seen."""
    closes = [step.bar.close for step in outcome.steps]
    rows = [
        (step.record.signal, closes[number + horizon_bars] > closes[number])
        for number, step in enumerate(outcome.steps[:-horizon_bars])
        if step.record.signal.p_hat_raw_bps is not None
    ]
    labels = np.array([went_up for _, went_up in rows], dtype=np.bool_)
    series = [
        ReliabilitySeries(name=name, colour=colour, p=np.array(values, dtype=np.float64) / BPS_ONE)
        for name, colour, values in (
            ("raw", "#888888", [signal.p_hat_raw_bps for signal, _ in rows]),
            ("calibrated", MODEL_COLOUR, [signal.p_hat_calibrated_bps for signal, _ in rows]),
        )
    ]
    draws = np.random.default_rng(NULL_SEED).random((NULL_RESAMPLES, len(rows)))
    scores = [
        {
            "name": one.name,
            "ece": f"{calibration_error(reliability_bins(one.p, labels)):.4f}",
            "null": f"{null_band(one.p, draws).ece_high:.4f}",
            "brier": f"{brier_score(one.p, labels):.4f}",
        }
        for one in series
    ]
    return reliability_figure(series, labels, draws), scores


def _waterfall(spans: list[Span]) -> list[dict[str, object]]:
    """Lay out the spans of the one decision whose total is the median."""
    roots = sorted(
        (span for span in spans if span.name == "client/DecideTargetWeights"),
        key=lambda span: span.duration_ms,
    )
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    fullest = max(len(by_trace[root.trace_id]) for root in roots)
    whole = [root for root in roots if len(by_trace[root.trace_id]) == fullest]
    root = whole[len(whole) // 2]
    return [
        {
            "depth": depth,
            "name": span.name,
            "process": span.process,
            "ms": f"{span.duration_ms:.2f}",
            "left": f"{100 * (span.start_ms - root.start_ms) / root.duration_ms:.2f}",
            "width": f"{max(0.4, 100 * span.duration_ms / root.duration_ms):.2f}",
        }
        for depth, span in tree(by_trace[root.trace_id])
    ]
