"""The reliability figure: what it draws is what was measured, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest

from detent.contracts.errors import InvalidField
from detent.core.evaluation.reliability import null_band, reliability_bins
from detent_cli.reliability_plot import ReliabilitySeries, figure_bytes, reliability_figure

CHANCE = np.random.default_rng(4)
LOGITS = CHANCE.normal(0.0, 0.5, 1_500)
LABELS = CHANCE.random(1_500) < 1.0 / (1.0 + np.exp(-LOGITS))
DRAWS = CHANCE.random((200, 1_500))
LOUD, CALM = (
    ReliabilitySeries(name=name, colour="#1f6f8b", p=1.0 / (1.0 + np.exp(-stretch * LOGITS)))
    for name, stretch in (("loud", 2.5), ("calm", 1.0))
)


def test_the_figure_says_which_series_chance_explains() -> None:
    figure = reliability_figure([LOUD, CALM], LABELS, DRAWS)
    loud, calm, *_ = figure.axes

    assert "outside its null band" in loud.get_title(loc="left")
    assert "inside its null band" in calm.get_title(loc="left")
    assert "n = 1500" in calm.get_title(loc="left")


def test_points_and_boxes_are_the_bins_and_their_bands() -> None:
    curve, histogram = reliability_figure([CALM], LABELS, DRAWS).axes
    bins, band = reliability_bins(CALM.p, LABELS), null_band(CALM.p, DRAWS)
    *boxes, points = curve.collections

    assert np.asarray(points.get_offsets()) == pytest.approx(
        np.array([[bin_.p_mean, bin_.up_share] for bin_ in bins])
    )
    assert len(boxes) == len(bins)
    for box, low, high in zip(boxes, band.up_low, band.up_high, strict=True):
        heights = box.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))
    assert sum(patch.get_height() for patch in histogram.patches) == len(LABELS)


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_same_rows_give_the_same_file(form: str, start: bytes) -> None:
    first, second = (
        figure_bytes(reliability_figure([CALM], LABELS, DRAWS), form)  # type: ignore[arg-type]
        for _ in range(2)
    )

    assert first.startswith(start)
    assert first == second


def test_nothing_is_drawn_of_no_rows() -> None:
    nothing = ReliabilitySeries(name="none", colour="#000000", p=np.zeros(0))
    with pytest.raises(InvalidField):
        reliability_figure([nothing], np.zeros(0, dtype=np.bool_), np.zeros((5, 0)))
