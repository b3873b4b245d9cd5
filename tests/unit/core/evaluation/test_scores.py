"""Scores agree with an independent library, and stay defined at the edges."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from detent.contracts.errors import InvalidField
from detent.core.evaluation.scores import accuracy, brier_score, log_loss, stated_name

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "metrics.json"


@pytest.mark.proves("R169")
@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_an_independent_implementation(seed: int) -> None:
    chance = np.random.default_rng(seed)
    p = chance.random(400)
    labels = chance.random(400) < 0.5 + 0.6 * (p - 0.5)

    assert brier_score(p, labels) == pytest.approx(brier_score_loss(labels, p), abs=1e-12)
    assert log_loss(p, labels) == pytest.approx(sklearn_log_loss(labels, p), abs=1e-12)
    assert accuracy(p, labels) == pytest.approx(accuracy_score(labels, p > 0.5), abs=1e-12)


def test_log_loss_of_a_certain_miss_is_large_and_finite() -> None:
    p, labels = np.array([0.0, 1.0, 1.0, 0.0]), np.array([False, True, False, True])

    assert log_loss(p, labels) == pytest.approx(26 * math.log(2.0), abs=1e-12)
    assert log_loss(p[:2], labels[:2]) == pytest.approx(0.0, abs=1e-12)


def test_accuracy_takes_an_even_chance_for_down() -> None:
    assert accuracy(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0.5)


@pytest.mark.parametrize("score", [brier_score, log_loss, accuracy])
@pytest.mark.parametrize(
    ("p", "labels"),
    [
        pytest.param([], [], id="none"),
        pytest.param([0.5], [True, False], id="lengths"),
        pytest.param([math.nan], [True], id="nan"),
        pytest.param([-0.1], [True], id="negative"),
        pytest.param([1.1], [True], id="above one"),
    ],
)
def test_scores_of_what_cannot_be_scored_are_refused(
    score: Any, p: list[float], labels: list[bool]
) -> None:
    """An empty run is no evidence, and least of all a perfect score."""
    with pytest.raises(InvalidField):
        score(np.array(p), np.array(labels, dtype=np.bool_))


def test_scores_agree_with_the_reference_values() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference values are not beside this checkout")
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    compared = 0
    for fixture in fixtures:
        if fixture["topic"] not in ("brier", "log_loss", "single_class", "log_loss_edges"):
            continue
        p = np.array(fixture["inputs"]["p"])
        labels = np.array(fixture["inputs"]["y"], dtype=np.bool_)
        for name, score in (("brier", brier_score), ("log_loss", log_loss)):
            if name in fixture["expected"]:
                assert score(p, labels) == pytest.approx(fixture["expected"][name], abs=1e-9)
                compared += 1

    assert compared >= 7


def test_names_of_before_are_read_as_what_they_meant() -> None:
    assert stated_name("log_loss_ppm") == "log_loss_clip2p52_ppm"
    assert stated_name("log_loss_raw_ppm") == "log_loss_clip2p52_raw_ppm"
    for name in ("log_loss_clip2p52_ppm", "brier_ppm", "ece_positive_width15_raw_ppm"):
        assert stated_name(name) == name
