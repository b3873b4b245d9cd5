"""Write a page with the gates of an evaluation and pictures of its evidence."""

import base64
import datetime as dt
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detent.contracts.errors import DataInvalid
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.equity import EquityCurve, bar_returns, drawdowns
from detent.core.evaluation.evaluation_report import EvaluationReport
from detent.core.evaluation.gates import is_promotable
from detent.core.evaluation.measures import AccountMeasures
from detent.core.evaluation.paired_loss import bar_means, brier_losses
from detent.core.evaluation.reliability import null_band, reliability_bins

if TYPE_CHECKING:
    from detent.offline.promotion.evaluating import Evaluated
    from detent.offline.promotion.scores import Predictions

MODEL, PROXY, RAW, GREY = "#1f6f8b", "#c77d0a", "#9a9a9a", "#666666"
WEIGHTS_SHOWN_MAX = 15


def write_page(path: Path, found: "Evaluated") -> None:
    """Write the page.

    Raises:
        DataInvalid: It cannot be written there.
    """
    template = jinja2.Template(
        files("detent_cli").joinpath("evaluation.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    report = found.report
    at = dt.datetime.fromtimestamp(report.evaluated_at_ms / 1000, dt.UTC)
    page = template.render(
        model=report.measures.origin,
        profile=report.profile.name,
        at=f"{at:%Y-%m-%d %H:%M} UTC",
        promotable=is_promotable(report.gates),
        gates=report.gates,
        pictures=_pictures(found),
        accounts=_accounts(report),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _pictures(found: "Evaluated") -> list[tuple[str, str, str]]:
    """Give heading, what it shows, and the picture, of all that there is evidence for."""
    pictures = []
    if found.predictions is not None:
        pictures += [
            (
                "Reliability",
                "Said against happened, out of fold; the band holds 95% of perfect models.",
                _reliability(found.predictions),
            ),
            (
                "Brier score against the proxy",
                "The sum over bars of the model's loss less the proxy's: falling is better.",
                _differences(found.predictions),
            ),
        ]
    if found.model is not None and found.proxy is not None:
        pictures.append(
            (
                "Equity and drawdown",
                "Both accounts over the bars after the model's data cutoff, net of all costs.",
                _equity(found.model, found.proxy),
            )
        )
    if found.report.weights:
        pictures.append(
            (
                "What moves the score",
                f"Mean magnitudes of Shapley values ({found.report.weight_method}), golden rows.",
                _weights(found.report),
            )
        )
    return pictures


def _accounts(report: EvaluationReport) -> list[tuple[str, str, str]]:
    trading = report.measures.trading
    if trading is None:
        return []
    pairs = zip(_account(trading.model), _account(trading.proxy), strict=True)
    return [(name, mine, other) for (name, mine), (_, other) in pairs]


def _account(found: AccountMeasures) -> list[tuple[str, str]]:
    def scaled(value: int | None, scale: float, form: str) -> str:
        return "-" if value is None else format(value / scale, form)

    return [
        ("bars", str(found.bar_count)),
        ("fills", str(found.trade_count)),
        ("turnover of a day", scaled(found.turnover_ppm, PPM_ONE, ".2%")),
        ("slippage, bps", scaled(found.slippage_bps_x1000, 1_000, ".3f")),
        ("deepest drawdown", scaled(found.max_drawdown_ppm, PPM_ONE, ".2%")),
        ("volatility of a year", scaled(found.pnl_volatility_ppm, PPM_ONE, ".2%")),
        ("Sharpe ratio", scaled(found.sharpe_x1000, 1_000, ".2f")),
        ("fees of gross profit", scaled(found.fees_of_gross_ppm, PPM_ONE, ".2%")),
        ("net of a fill, of equity", scaled(found.expectancy_ppb, 1e9, ".5%")),
    ]


def _axis(height: float, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, 1, **options)))
    for axis in axes:
        axis.grid(visible=True, alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _picture(figure: Figure) -> str:
    """Give a figure as text that a page can hold."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _reliability(found: "Predictions") -> str:
    from detent.offline.promotion.scores import NULL_RESAMPLES, SEED  # noqa: PLC0415

    figure, (axis, counts) = _axis(6.4, 2, sharex=True, height_ratios=[4, 1])
    draws = np.random.default_rng(SEED).random((NULL_RESAMPLES, len(found)))
    band = null_band(found.p, draws)
    bins = reliability_bins(found.p, found.labels)
    centres = [one.p_mean for one in bins]
    axis.fill_between(centres, band.up_low, band.up_high, color=MODEL, alpha=0.15, label="perfect")
    for name, p, color in (
        ("before calibration", found.p_raw, RAW),
        ("proxy", found.proxy_p, PROXY),
        ("model", found.p, MODEL),
    ):
        curve = reliability_bins(p, found.labels)
        axis.plot(
            [one.p_mean for one in curve],
            [one.up_share for one in curve],
            marker="o",
            color=color,
            label=name,
        )
    axis.axline((0.5, 0.5), slope=1, color=GREY, linewidth=0.8, linestyle="--")
    axis.set_ylabel("share that went up")
    axis.legend(loc="upper left", frameon=False)
    width = 0.8 / len(bins) if len(bins) > 1 else 0.02
    counts.bar(centres, [one.count for one in bins], width=min(width, 0.04), color=MODEL)
    counts.set_ylabel("rows")
    counts.set_xlabel("probability of up")
    return _picture(figure)


def _differences(found: "Predictions") -> str:
    losses = brier_losses(found.p, found.labels) - brier_losses(found.proxy_p, found.labels)
    sums = np.cumsum(bar_means(found.ts_ms, losses))
    figure, (axis,) = _axis(3.2)
    axis.plot(_times(np.unique(found.ts_ms)), sums, color=MODEL)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel("sum of differences")
    return _picture(figure)


def _equity(model: EquityCurve, proxy: EquityCurve) -> str:
    figure, (axis, under) = _axis(5.4, 2, sharex=True, height_ratios=[3, 2])
    for name, curve, color in (("proxy", proxy, PROXY), ("model", model, MODEL)):
        returns, times = bar_returns(curve), _times(curve.ts_ms)
        axis.plot(times, np.cumprod(1.0 + returns), color=color, label=name)
        under.fill_between(times, 100.0 * drawdowns(returns), color=color, alpha=0.35)
    axis.set_ylabel("equity, start = 1")
    axis.legend(loc="upper left", frameon=False)
    under.set_ylabel("drawdown, %")
    return _picture(figure)


def _weights(report: EvaluationReport) -> str:
    shown = report.weights[:WEIGHTS_SHOWN_MAX]
    figure, (axis,) = _axis(0.9 + 0.34 * len(shown))
    axis.barh([one.name for one in shown], [one.weight_ppm / 10_000 for one in shown], color=MODEL)
    axis.invert_yaxis()
    axis.set_xlabel("% of the sum over all features")
    return _picture(figure)


def _times(ts_ms: Any) -> list[Any]:
    return [dt.datetime.fromtimestamp(one / 1000, dt.UTC) for one in ts_ms.tolist()]
