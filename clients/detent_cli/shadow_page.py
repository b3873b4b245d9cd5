"""Write a page with pictures of what models that ran unused were worth."""

import datetime as dt
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from detent.contracts.errors import DataInvalid
from detent.core.evaluation.paired_difference import PairedDifference
from detent.core.evaluation.reliability import ReliabilityBin
from detent.core.evaluation.shadow_report import (
    RolloutComparison,
    ShadowComparison,
    ShadowReport,
    SideScores,
)
from detent_cli.pictures import picture, plain_axis

FIRST, SECOND, BAND = "#1f6f8b", "#c8553d", "#d9d9d9"
# Before so many bars the bounds are as wide as the picture.
BARS_DRAWN_FROM = 20
DOT, DOTS = 14.0, 260.0


def write_page(path: Path, report: ShadowReport) -> None:
    """Write the page.

    Raises:
        DataInvalid: It cannot be written there.
    """
    template = jinja2.Template(
        files("detent_cli").joinpath("shadow.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = template.render(
        shadows=[_shadow(one) for one in report.comparisons],
        rollouts=[_rollout(one) for one in report.rollouts],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _shadow(one: ShadowComparison) -> dict[str, Any]:
    settled = one.settled
    arm = f", arm {one.arm} of rollout {one.rollout_id}" if one.rollout_id else ""
    return {
        "name": f"{one.model_id or 'proxy'}{arm}",
        "binding": one.binding_hash,
        "counts": [
            ("bars with a row", f"{one.row_count:,}"),
            ("decided without a row", f"{one.missing_count:,}"),
            ("answered", f"{one.answered_count:,}"),
            *((f"no answer: {reason}", f"{count:,}") for reason, count in one.reasons.items()),
            ("answered, outcome not known", f"{one.unlabelled_count:,}"),
            ("decided by a model", f"{one.used_model_count:,}"),
            ("on the same side of one half", _share(one.same_side_bps)),
            (
                "mean distance, basis points",
                "-" if one.distance_bps is None else str(one.distance_bps),
            ),
            ("asking, median, ms", f"{one.latency_us_p50 / 1000:.1f}"),
            ("asking, p99, ms", f"{one.latency_us_p99 / 1000:.1f}"),
        ],
        "from": _time(one.first_ts_ms).strftime("%Y-%m-%d %H:%M"),
        "until": _time(one.last_ts_ms).strftime("%Y-%m-%d %H:%M"),
        "scores": None
        if settled is None
        else _scores(
            settled.row_count,
            (("shadow", settled.shadow), ("used", settled.used)),
            settled.difference,
        ),
    }


def _rollout(one: RolloutComparison) -> dict[str, Any]:
    sides = (("candidate", one.candidate), ("stable", one.stable))
    return {
        "name": one.rollout_id,
        "scores": _scores(one.row_count, sides, one.difference),
        "arms": [
            (arm.arm, f"{arm.row_count:,}", f"{arm.brier:.4f}", f"{arm.accuracy:.1%}")
            for arm in one.arms
        ],
    }


def _scores(
    row_count: int, sides: tuple[tuple[str, SideScores], ...], difference: PairedDifference
) -> dict[str, Any]:
    (first, _), (second, _) = sides
    return {
        "rows": f"{row_count:,}",
        "sides": [
            (name, f"{side.brier:.4f}", f"{side.ece:.4f}", f"{side.accuracy:.1%}")
            for name, side in sides
        ],
        "of": f"{first} less {second}",
        "verdict": difference.verdict,
        "mean": f"{difference.mean[-1]:+.4f}",
        "low": f"{difference.low[-1]:+.4f}",
        "high": f"{difference.high[-1]:+.4f}",
        "share": f"{1 - difference.alpha:.0%}",
        "difference": picture(_difference(difference, first, second)),
        "reliability": picture(_reliability(sides)),
    }


def _share(share_bps: int | None) -> str:
    return "-" if share_bps is None else f"{share_bps / 100:.1f} %"


def _time(ts_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC)


def _difference(found: PairedDifference, first: str, second: str) -> Figure:
    """Draw the running difference with the bounds that hold at all bars at once."""
    figure, axis = plain_axis(3.6)
    start = min(BARS_DRAWN_FROM, len(found.mean) - 1)
    times: list[Any] = [_time(ts_ms) for ts_ms in found.ts_ms[start:]]
    axis.fill_between(
        times,
        found.low[start:],
        found.high[start:],
        color=BAND,
        label=f"{1 - found.alpha:.0%} at every bar at once",
    )
    axis.plot(times, found.mean[start:], color=FIRST, label="mean of the bars so far")
    axis.axhline(0, color="black", linewidth=0.8)
    # How it stands now is what one looks for; the first bounds are as wide as can be.
    widest = 2.5 * max(abs(found.low[-1]), abs(found.high[-1]))
    axis.set_ylim(-widest, widest)
    axis.set_ylabel(f"Brier, {first} less {second}")
    axis.set_xlabel(f"close of the bar, UTC; below 0 the {first} was better")
    axis.legend(loc="best", frameon=False)
    return figure


def _reliability(sides: tuple[tuple[str, SideScores], ...]) -> Figure:
    """Draw what was said against what happened; a dot is as large as its bin."""
    figure, axis = plain_axis(4.4)
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for (name, side), colour in zip(sides, (FIRST, SECOND), strict=True):
        total = sum(bin_.count for bin_ in side.bins)
        sizes = [DOT + DOTS * bin_.count / total for bin_ in side.bins]
        axis.plot(_said(side.bins), _happened(side.bins), color=colour, alpha=0.5)
        axis.scatter(
            _said(side.bins), _happened(side.bins), s=sizes, color=colour, label=name, zorder=3
        )
    said = np.concatenate([_said(side.bins) for _, side in sides])
    axis.set_xlim(max(float(said.min()) - 0.05, 0.0), min(float(said.max()) + 0.05, 1.0))
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("probability that was said")
    axis.set_ylabel("share that went up")
    axis.legend(loc="best", frameon=False)
    return figure


def _said(bins: tuple[ReliabilityBin, ...]) -> list[float]:
    return [bin_.p_mean for bin_ in bins]


def _happened(bins: tuple[ReliabilityBin, ...]) -> list[float]:
    return [bin_.up_share for bin_ in bins]
