"""Draw reliability: what was said against what happened, and how far chance alone would go.

The grey boxes are the consistency band of a perfectly calibrated model with the same
probabilities: a point outside of its box is evidence, one inside is none. The line is the best
monotone map (CORP), which needs no bins. Below, how often each probability was said.

Source: Broecker and Smith 2007; Dimitriadis, Gneiting and Jordan 2021; decision D21.
"""

import io
from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detent.core.evaluation.binning import Binning
from detent.core.evaluation.decomposition import corp_map
from detent.core.evaluation.reliability import (
    calibration_error,
    ece_name,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.scores import Floats, Labels

BAND_COLOUR = "#d9d9d9"
HISTOGRAM_BINS = 50
MARGIN = 0.03


class ReliabilitySeries(msgspec.Struct, frozen=True, kw_only=True):
    """Names what is drawn in one column.

    Attributes:
        name: Its title.
        colour: Of its points, line and bars.
        p: Shape (n,), float64, each in [0, 1].
    """

    name: str
    colour: str
    p: Floats


def reliability_figure(
    series: Sequence[ReliabilitySeries],
    labels: Labels,
    draws: Floats,
    *,
    binning: Binning = Binning.WIDTH,
) -> Figure:
    """Draw one column per series, all over one range and of the same rows.

    Args:
        series: What is compared, for example before and after calibration.
        labels: Shape (n,), bool.
        draws: Shape (resamples, n), float64, uniform on [0, 1), for the bands.
        binning: Where the edges of the bins are.

    Raises:
        InvalidField: There are no rows or no draws, or a value is no probability.
    """
    figure = Figure(figsize=(5.8 * len(series), 6.4), layout="constrained")
    grid = figure.subplots(
        2,
        len(series),
        squeeze=False,
        sharex=True,
        sharey="row",
        gridspec_kw={"height_ratios": [4, 1]},
    )
    for column, one in enumerate(series):
        _draw_curve(grid[0, column], one, labels, draws, binning)
        _draw_histogram(grid[1, column], one)
    grid[0, 0].set_ylabel("share that came true")
    grid[1, 0].set_ylabel("rows")
    said = np.concatenate([one.p for one in series])
    grid[0, 0].set_xlim(max(float(said.min()) - MARGIN, 0.0), min(float(said.max()) + MARGIN, 1.0))
    figure.suptitle(
        f"{ece_name(binning=binning)}; grey: 95 % of a perfectly calibrated model",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    return figure


def figure_bytes(figure: Figure, form: Literal["svg", "png"]) -> bytes:
    """Give the file of a figure; the same figure gives the same bytes."""
    data = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "detent"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(data, format=form, dpi=110, metadata=metadata)
    return data.getvalue()


def _draw_curve(
    axis: Axes, one: ReliabilitySeries, labels: Labels, draws: Floats, binning: Binning
) -> None:
    bins = reliability_bins(one.p, labels, binning=binning)
    band = null_band(one.p, draws, binning=binning)
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for bin_, low, high in zip(bins, band.up_low, band.up_high, strict=True):
        axis.fill_between([bin_.low, bin_.high], low, high, color=BAND_COLOUR, linewidth=0.5)
    order = np.argsort(one.p, kind="stable")
    mapped = corp_map(one.p, labels)[order]
    axis.plot(one.p[order], mapped, color=one.colour, linewidth=1.1, alpha=0.7)
    sizes = [14 + 160 * bin_.count / len(labels) for bin_ in bins]
    means = [bin_.p_mean for bin_ in bins]
    axis.scatter(means, [bin_.up_share for bin_ in bins], s=sizes, color=one.colour, zorder=3)
    error, most = calibration_error(bins), band.ece_high
    verdict = "inside" if error <= most else "outside"
    axis.set_title(
        f"{one.name} (n = {len(labels)}): {error:.4f}, {verdict} its null band {most:.4f}",
        loc="left",
        fontsize="small",
    )
    _clean(axis)


def _draw_histogram(axis: Axes, one: ReliabilitySeries) -> None:
    axis.hist(one.p, bins=HISTOGRAM_BINS, range=(0.0, 1.0), color=one.colour, alpha=0.8)
    axis.set_xlabel("probability that was said")
    _clean(axis)


def _clean(axis: Axes) -> None:
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
