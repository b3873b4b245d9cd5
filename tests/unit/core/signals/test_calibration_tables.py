"""Isotonic and Venn-Abers: the fits of other programs, exactly, and in a bounded table."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from tests.unit.reference_values import fixture

from detent.contracts.calibration_tables import KNOTS_MAX
from detent.contracts.errors import ArtifactInvalid
from detent.core.signals.binary_maps import LineMap, StepMap, binary_map
from detent.core.signals.calibration_tables import (
    fit_isotonic,
    fit_venn_abers,
    isotonic_knots,
    venn_abers_shares,
)
from detent.core.signals.score_groups import (
    ScoreGroups,
    pool_violators,
    shares_as_hit,
    shares_as_miss,
)

counted = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=12)


@pytest.mark.parametrize("name", ["real", "trading"])
def test_isotonic_agrees_with_the_reference_values(name: str) -> None:
    inputs, expected = fixture("calibrators.json", f"isotonic_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    knots = isotonic_knots(ScoreGroups.of(p, labels))
    found = LineMap(
        x=tuple(place for place, _ in knots),
        y=tuple(block.ups / block.rows for _, block in knots),
    )

    assert found.x == pytest.approx(expected["X_thresholds"], abs=1e-15)
    assert found.y == pytest.approx(expected["y_thresholds"], abs=1e-15)
    assert [found.one(p) for p in inputs["grid"]] == pytest.approx(expected["q_grid"], abs=1e-9)
    assert [found.one(p) for p in inputs["p_test"]] == pytest.approx(expected["q_test"], abs=1e-9)


def test_pooling_agrees_with_the_reference_values() -> None:
    inputs, expected = fixture("calibrators.json", "isotonic_pav_blocks_trading")
    blocks = pool_violators([1] * len(inputs["y_sorted"]), inputs["y_sorted"])
    found = [block.ups / block.rows for block in blocks for _ in range(block.rows)]

    assert found == pytest.approx(expected["x"], abs=1e-12)


@pytest.mark.parametrize("name", ["real", "trading"])
def test_venn_abers_agrees_with_the_reference_values(name: str) -> None:
    inputs, expected = fixture("calibrators.json", f"venn_abers_{name}")
    p, labels = np.array(inputs["p_cal"]), np.array(inputs["y_cal"], dtype=np.bool_)
    groups = ScoreGroups.of(p, labels)
    at, between = venn_abers_shares(groups)
    found = StepMap(
        x=groups.low, at=tuple(map(float, at)), between=tuple(float(share) for share in between)
    )

    assert [found.one(p) for p in inputs["grid"]] == pytest.approx(expected["p_grid"], abs=1e-6)
    served = binary_map(fit_venn_abers(p, labels))
    inside = [p for p in inputs["grid"] if 1e-7 < p < 1 - 1e-7]
    if len(groups.rows) <= KNOTS_MAX:
        assert [served.one(p) for p in inside] == pytest.approx(
            [found.one(p) for p in inside], abs=1e-11
        )


@given(counted)
def test_every_share_is_that_of_a_fit_with_one_more_row(groups: list[tuple[int, int]]) -> None:
    """All fits at once give what one fit after the other gives, as exact fractions."""
    rows = [row_count for row_count, _ in groups]
    ups = [min(up_count, row_count) for row_count, up_count in groups]
    hits, misses = shares_as_hit(rows, ups), shares_as_miss(rows, ups)

    for place in range(len(groups)):
        for extra, found in ((1, hits[place]), (0, misses[place])):
            more_rows = [count + (group == place) for group, count in enumerate(rows)]
            more_ups = [count + extra * (group == place) for group, count in enumerate(ups)]
            block = next(b for b in pool_violators(more_rows, more_ups) if b.last >= place)
            assert Fraction(*found) == Fraction(block.ups, block.rows)


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_agrees_with_an_independent_implementation(seed: int) -> None:
    chance = np.random.default_rng(seed)
    p = chance.integers(1, 200, 900) / 200
    labels = chance.random(900) < p**2
    other = IsotonicRegression(out_of_bounds="clip").fit(p, labels)
    grid = np.linspace(0.0, 1.0, 333)
    found = binary_map(fit_isotonic(p, labels)).many(grid)
    inside = np.clip(other.y_thresholds_, 1 / 902, 901 / 902)

    assert found == pytest.approx(np.interp(grid, other.X_thresholds_, inside), abs=1e-11)


def test_a_table_of_many_scores_stays_bounded_and_close() -> None:
    """More scores than places: neighbours are grouped, and little changes."""
    chance = np.random.default_rng(5)
    p = chance.random(20_000)
    labels = chance.random(20_000) < p
    spec = fit_venn_abers(p, labels)
    groups = ScoreGroups.of(p, labels)
    at, between = venn_abers_shares(groups)
    exact = StepMap(x=groups.low, at=tuple(map(float, at)), between=tuple(map(float, between)))

    assert len(groups.rows) > 19_000
    assert len(spec.x) <= KNOTS_MAX
    away = np.abs(binary_map(spec).many(p) - exact.many(p))
    assert (away.mean() < 0.005, away.max() < 0.1) == (True, True)


def test_an_isotonic_fit_with_too_many_knots_is_grouped() -> None:
    """Shares that ascend from score to score: no two scores are pooled."""
    score = np.repeat(np.arange(1, 601), 600)
    labels = np.tile(np.arange(600), 600) < score

    assert len(isotonic_knots(ScoreGroups.of(score / 601, labels))) == 600
    assert KNOTS_MAX // 4 < len(fit_isotonic(score / 601, labels).x) <= KNOTS_MAX


def test_the_ends_of_a_fit_claim_no_certainty() -> None:
    p, labels = np.linspace(0.1, 0.9, 8), np.arange(8) > 3
    spec = fit_isotonic(p, labels)

    assert (float(spec.y[0]), float(spec.y[-1])) == pytest.approx((0.1, 0.9), abs=1e-12)
    assert 0 < min(fit_venn_abers(p, labels).between) < max(fit_venn_abers(p, labels).between) < 1


@pytest.mark.parametrize("labels", [[], [True, True], [True, False]])
def test_rows_without_an_order_are_refused(labels: list[bool]) -> None:
    p = np.linspace(0.2, 0.8, len(labels))
    with pytest.raises(ArtifactInvalid):
        fit_isotonic(p, np.array(labels, dtype=np.bool_))


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=60))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int, bool]]) -> None:
    p = np.array([place / 30 for place, _ in rows])
    labels = np.array([label for _, label in rows])

    assert fit_venn_abers(p, labels) == fit_venn_abers(p[::-1], labels[::-1])
