"""Write a page with pictures of who earned and who lost."""

import datetime as dt
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from detent.contracts.decimals import format_decimal
from detent.contracts.errors import DataInvalid
from detent.core.ledger.attribution_report import AttributionReport, BookAttribution
from detent_cli.output import money_text
from detent_cli.pictures import picture, plain_axis

GAIN, LOSS, TOTAL, GREY = "#3a7d44", "#b3261e", "#1f6f8b", "#888888"
LABEL_SHARE = 0.02
THOUSANDS = StrMethodFormatter("{x:,.10g}")


def write_page(path: Path, report: AttributionReport) -> None:
    """Write the page.

    Raises:
        DataInvalid: It cannot be written there.
    """
    mpl.rcParams["svg.hashsalt"] = "detent"
    template = jinja2.Template(
        files("detent_cli").joinpath("attribution.html.j2").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    books = [book for book in (report.profit, *report.learning) if book is not None]
    page = template.render(
        books=[
            {
                "name": book.name,
                "waterfall": picture(_waterfall(book)),
                "sets": picture(_sets(book)),
                "layers": [
                    {
                        "name": layer.layer.value.replace("_", " "),
                        "amount": money_text(layer.amount),
                        "count": layer.decision_count,
                        "evidence": [
                            (
                                money_text(one.amount),
                                one.symbol,
                                _time(one.ts_ms),
                                one.record_hash[:16],
                            )
                            for one in layer.evidence
                        ],
                    }
                    for layer in book.split.layers
                ],
                "total": money_text(book.split.total),
                "residual": format_decimal(book.split.residual),
                "decisions": book.split.decision_count,
                "facts": _facts(book),
                "verdict": book.verdict,
            }
            for book in books
        ],
        experiments=[
            {
                "name": one.tags.experiment_id,
                "variant": one.tags.experiment_variant or "",
                "sets": one.set_count,
                "net": money_text(one.net),
            }
            for one in report.experiments
        ],
        breaches=report.breaches,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a file that can be written") from error


def _facts(book: BookAttribution) -> list[str]:
    """Write what stands beside the amounts: the sets, both sources' errors, the fallbacks."""
    metrics, source = book.metrics, book.source
    facts = [f"{metrics.closed_count} closed trade sets, {metrics.win_count} won"]
    if source.outcome_count:
        model, proxy = (
            f"{total / source.outcome_count / 10**8:.4f}"
            for total in (source.model_error_sum, source.proxy_error_sum)
        )
        of = f"{source.outcome_count} outcomes"
        facts.append(f"Brier score on {of}: model {model}, proxy {proxy}")
    if source.fallbacks:
        counts = ", ".join(f"{reason} {count}" for reason, count in source.fallbacks)
        facts.append(f"fallbacks: {counts}")
    return facts


def _time(ts_ms: int) -> str:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _waterfall(book: BookAttribution) -> Figure:
    """Draw how the parts lead from nothing to the total, in the order of the pipeline."""
    parts = [
        (layer.layer.value, part.value, amount)
        for layer in book.split.layers
        for part, amount in layer.parts
    ]
    figure, axis = plain_axis(4.6)
    reached = 0.0
    marks: list[tuple[str, float, int]] = []
    for number, (_, _, exact) in enumerate(parts):
        amount = float(exact)
        colour = GAIN if amount >= 0 else LOSS
        axis.barh(number, amount, left=reached, color=colour, height=0.7)
        reached += amount
        marks.append((money_text(exact), max(reached, reached - amount), number))
        axis.plot([reached, reached], [number - 0.35, number + 1.35], color=GREY, linewidth=0.8)
    total = float(book.split.total)
    axis.barh(len(parts), total, color=TOTAL, height=0.7)
    marks.append((money_text(book.split.total), max(total, 0.0), len(parts)))
    low, high = axis.get_xlim()
    for text, at, place in marks:
        axis.text(at + LABEL_SHARE / 2 * (high - low), place, text, va="center", fontsize=9)
    axis.set_xlim(low - LABEL_SHARE * (high - low), high + 5 * LABEL_SHARE * (high - low))
    axis.axvline(0, color="black", linewidth=0.8)
    names = [
        part.replace("_", " ") if part == layer else f"{layer}: {part}".replace("_", " ")
        for layer, part, _ in parts
    ]
    axis.set_yticks(range(len(parts) + 1), [*names, "total"])
    axis.invert_yaxis()
    axis.set_xlabel("account currency")
    axis.xaxis.set_major_formatter(THOUSANDS)
    return figure


def _sets(book: BookAttribution) -> Figure:
    """Draw what the closed sets earned, one by one and in sum."""
    closed = sorted(
        (item for item in book.sets if item.closed), key=lambda item: item.legs[-1].fill.ts_ms
    )
    figure, axis = plain_axis(3.0)
    if not closed:
        axis.text(0.5, 0.5, "no closed trade set", ha="center", transform=axis.transAxes)
        return figure
    times: list[Any] = [
        dt.datetime.fromtimestamp(item.legs[-1].fill.ts_ms / 1000, dt.UTC) for item in closed
    ]
    nets = [float(item.net) for item in closed]
    sums = [sum(nets[: number + 1]) for number in range(len(nets))]
    axis.vlines(times, 0, nets, color=[GAIN if net >= 0 else LOSS for net in nets], linewidth=3)
    axis.plot(times, sums, color=TOTAL, drawstyle="steps-post", marker=".", label="in sum")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel("net of closed sets")
    axis.yaxis.set_major_formatter(THOUSANDS)
    axis.set_xlabel("last fill of the set, UTC")
    axis.legend(loc="best", frameon=False)
    return figure
