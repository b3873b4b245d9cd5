"""Draw on one kind of axis, and put a figure into a page that stands alone."""

import base64
import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def plain_axis(height: float) -> tuple[Figure, Axes]:
    """Give an axis of the width of a page; `height` is in inches."""
    figure = Figure(figsize=(12, height), layout="constrained")
    axis = figure.subplots()
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def name_lines(axis: Axes) -> None:
    """Name the lines of an axis above it, where no line runs through their names."""
    axis.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, frameon=False, ncols=4
    )


def picture(figure: Figure) -> str:
    """Give a figure as text that a page can hold."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return base64.b64encode(data.getvalue()).decode("ascii")
