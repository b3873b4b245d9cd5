"""Scores of classes, decompositions, bands and lines: against independent programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from tests.unit.reference_values import fixture

from detent.contracts.errors import InvalidField
from detent.core.evaluation.binomial_bands import (
    beta_share,
    clopper_pearson_band,
    wilson_band,
)
from detent.core.evaluation.calibration_line import calibration_line
from detent.core.evaluation.calibration_metrics import (
    binary_metrics,
    class_metrics,
    post_hoc_improvement,
)
from detent.core.evaluation.class_scores import (
    brier_class_mean,
    brier_half,
    brier_sum,
    class_log_loss,
)
from detent.core.evaluation.decomposition import corp_map, corp_parts, murphy_parts
from detent.core.evaluation.scores import brier_score, log_loss

scored = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


@pytest.mark.proves("R169")
def test_scores_of_classes_agree_with_the_reference_values() -> None:
    inputs, expected = fixture("metrics.json", "multiclass_brier_6")
    rows = np.array(inputs["P"]), np.array(inputs["y"])
    assert brier_sum(*rows) == pytest.approx(expected["sum_over_classes"], abs=1e-9)
    assert brier_half(*rows) == pytest.approx(expected["half"], abs=1e-9)
    assert brier_class_mean(*rows) == pytest.approx(expected["mean_over_classes"], abs=1e-9)

    inputs, expected = fixture("metrics.json", "multiclass_logloss_6")
    rows = np.array(inputs["P"]), np.array(inputs["y"])
    assert class_log_loss(*rows) == pytest.approx(expected["log_loss"], abs=1e-9)


def test_two_classes_score_as_one_probability() -> None:
    chance = np.random.default_rng(1)
    p = chance.random(200)
    labels = chance.random(200) < p
    rows = np.stack([1.0 - p, p], axis=1), labels.astype(np.int64)

    assert brier_half(*rows) == pytest.approx(brier_score(p, labels), abs=1e-12)
    assert class_log_loss(*rows) == pytest.approx(log_loss(p, labels), abs=1e-12)


@pytest.mark.parametrize(
    ("shares", "classes"),
    [
        pytest.param(np.zeros((0, 3)), [], id="none"),
        pytest.param([[0.5, 0.5]], [2], id="class"),
        pytest.param([[0.5, 0.5]], [-1], id="negative"),
        pytest.param([[0.5, 0.6]], [0], id="sum"),
        pytest.param([[np.nan, 0.5]], [0], id="nan"),
        pytest.param([[0.5, 0.5]], [0, 1], id="lengths"),
    ],
)
def test_classes_that_cannot_be_scored_are_refused(shares: object, classes: list[int]) -> None:
    with pytest.raises(InvalidField):
        brier_sum(np.array(shares, dtype=np.float64), np.array(classes, dtype=np.int64))


@pytest.mark.parametrize("name", ["real", "trading"])
def test_corp_agrees_with_the_reference_values(name: str) -> None:
    inputs, expected = fixture("metrics.json", f"corp_decomp_{name}")
    p, labels = np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_)

    for score, wanted in ((brier_score, expected["brier"]), (log_loss, expected["log_loss"])):
        found = corp_parts(p, labels, score=score)
        for part, value in wanted.items():
            assert getattr(found, part) == pytest.approx(value, abs=1e-9), part


def test_murphy_agrees_with_the_reference_values() -> None:
    inputs, expected = fixture("metrics.json", "murphy_exact")
    found = murphy_parts(np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_))

    for part in ("reliability", "resolution", "uncertainty"):
        assert getattr(found, part) == pytest.approx(expected[part], abs=1e-12)


@given(scored)
def test_parts_add_up_and_none_is_negative(rows: list[tuple[int, bool]]) -> None:
    p, labels = np.array([row[0] / 20 for row in rows]), np.array([row[1] for row in rows])
    murphy = murphy_parts(p, labels)
    parts = corp_parts(p, labels)

    brier = murphy.reliability - murphy.resolution + murphy.uncertainty
    assert brier == pytest.approx(brier_score(p, labels), abs=1e-12)
    assert parts.miscalibration >= -1e-12
    assert parts.discrimination >= -1e-12
    assert np.all(np.diff(corp_map(p, labels)[np.argsort(p)]) >= 0.0)


def test_one_class_has_no_uncertainty() -> None:
    inputs, expected = fixture("metrics.json", "edge_single_class")
    p, labels = np.array(inputs["p"]), np.array(inputs["y"], dtype=np.bool_)
    found = binary_metrics(p, labels, np.random.default_rng(0).random((10, len(p))))

    assert murphy_parts(p, labels).uncertainty == expected["uncertainty"]
    assert found["brier"] == pytest.approx(expected["brier"], abs=1e-12)
    assert found["log_loss_clip2p52"] == pytest.approx(expected["log_loss"], abs=1e-12)
    assert not any(name.startswith(("calibration_", "mce_")) for name in found)


@pytest.mark.parametrize("name", ["real_uniform_10", "real_quantile_15", "trading_uniform_15"])
def test_bands_agree_with_the_reference_values(name: str) -> None:
    _, expected = fixture("metrics.json", f"reliability_{name}")
    for place, rows in enumerate(expected["count"]):
        ups = round(expected["frac_pos"][place] * rows)
        wilson, exact = wilson_band(ups, rows), clopper_pearson_band(ups, rows)
        assert wilson == pytest.approx(
            (expected["wilson_lo"][place], expected["wilson_hi"][place]), abs=1e-9
        )
        assert exact == pytest.approx(
            (expected["clopper_pearson_lo"][place], expected["clopper_pearson_hi"][place]),
            abs=1e-9,
        )


@given(st.integers(1, 100_000), st.floats(0.0, 1.0))
def test_bands_agree_with_another_program_at_any_size(rows: int, share: float) -> None:
    ups = round(share * rows)
    for method, band in (("wilson", wilson_band), ("exact", clopper_pearson_band)):
        other = binomtest(ups, rows).proportion_ci(method=method)
        assert band(ups, rows) == pytest.approx((other.low, other.high), abs=1e-9)


@given(st.floats(0.0, 1.0), st.floats(0.5, 5_000.0), st.floats(0.5, 5_000.0))
def test_the_beta_function_is_that_of_another_program(x: float, a: float, b: float) -> None:
    assert beta_share(x, a, b) == pytest.approx(float(beta_distribution.cdf(x, a, b)), abs=1e-9)


@pytest.mark.parametrize(("ups", "rows"), [(0, 0), (2, 1), (-1, 4)])
def test_a_band_of_no_share_is_refused(ups: int, rows: int) -> None:
    for band in (wilson_band, clopper_pearson_band):
        with pytest.raises(InvalidField):
            band(ups, rows)


def test_a_line_is_the_regression_of_another_program_and_covers_the_truth() -> None:
    covered = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        logits = chance.normal(0.0, 1.0, 800)
        labels = chance.random(800) < 1.0 / (1.0 + np.exp(-(0.5 * logits + 0.2)))
        line = calibration_line(1.0 / (1.0 + np.exp(-logits)), labels)
        covered += abs(line.slope - 0.5) <= 1.96 * line.slope_error
        covered += abs(line.intercept - 0.2) <= 1.96 * line.intercept_error
        if seed == 0:
            other = LogisticRegression(C=1e12, tol=1e-12).fit(logits[:, None], labels)
            assert line.slope == pytest.approx(other.coef_[0, 0], abs=1e-5)
            assert line.intercept == pytest.approx(other.intercept_[0], abs=1e-5)

    assert 70 <= covered <= 80


def test_metrics_tell_a_calibrated_model_from_an_overconfident_one() -> None:
    chance = np.random.default_rng(2)
    logits = chance.normal(0.0, 0.6, 4_000)
    p = 1.0 / (1.0 + np.exp(-logits))
    loud = 1.0 / (1.0 + np.exp(-2.0 * logits))
    labels = chance.random(4_000) < p
    draws = chance.random((200, 4_000))
    good, bad = binary_metrics(p, labels, draws), binary_metrics(loud, labels, draws)

    assert good.keys() == bad.keys()
    assert good["ece_positive_width15"] <= good["ece_positive_width15_null95"]
    assert bad["ece_positive_mass15"] > bad["ece_positive_mass15_null95"]
    assert good["calibration_slope"] == pytest.approx(1.0, abs=0.2)
    assert bad["calibration_slope"] == pytest.approx(0.5, abs=0.1)
    assert bad["brier_mcb"] > 3 * good["brier_mcb"]
    assert bad["brier_dsc"] == pytest.approx(good["brier_dsc"], abs=1e-12)
    assert min(post_hoc_improvement(loud, p, labels).values()) > 0.0
    assert max(post_hoc_improvement(p, loud, labels).values()) < 0.0


def test_names_of_classes_state_their_definitions() -> None:
    shares = np.tile([0.2, 0.3, 0.5], (40, 1))
    found = class_metrics(shares, np.arange(40) % 3)

    assert set(found) == {
        "accuracy_top_label",
        "brier_sum",
        "brier_half",
        "brier_class_mean",
        "log_loss_clip2p52",
        "ece_top_label_width15",
        "ece_top_label_mass15",
        "ece_classwise_width15",
        "ece_classwise_mass15",
    }
