"""Folds: parts follow one another, share no outcome, and a fold that leaks is never fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.training_rows import dataset

from detent.contracts.errors import DataInvalid
from detent.offline.walk_forward.fold_fit import FoldTask, fit_fold
from detent.offline.walk_forward.folds import (
    PART_ROWS_MIN,
    Fold,
    FoldPlan,
    check_both_classes,
    check_fold,
    inner_split,
    walk_forward,
)
from detent.offline.walk_forward.leakage import auc, check_plausible

BAR_MS = 900_000
PLAN = FoldPlan(fold_count=3, embargo_ms=BAR_MS)


def clean() -> Fold:
    """Give a fold of the planted rows."""
    return walk_forward(dataset().rows.ts_ms, dataset().rows.label_ts_ms, PLAN)[0]


def refused(fold: Fold, match: str) -> None:
    rows = dataset().rows
    with pytest.raises(DataInvalid, match=match) as caught:
        check_fold(fold, rows.ts_ms, rows.label_ts_ms, PLAN)

    assert caught.value.metadata["rule"] == "leakage"


@pytest.mark.proves("R168", "R153")
@settings(max_examples=40, deadline=None)
@given(
    bars=st.integers(2_200, 3_000),
    symbols=st.integers(1, 3),
    horizon=st.integers(1, 40),
    embargo=st.integers(0, 40),
    cut=st.tuples(st.integers(1, 5), st.integers(0, 200)),
)
def test_no_part_sees_an_outcome_of_a_later_one(
    bars: int, symbols: int, horizon: int, embargo: int, cut: tuple[int, int]
) -> None:
    """For any horizon, embargo, number of symbols and a gap in the bars."""
    fold_count, gap = cut
    places = np.arange(bars) + np.where(np.arange(bars) > bars // 2, gap, 0)
    ts_ms = np.repeat(places * BAR_MS, symbols)
    ahead = np.minimum(np.arange(bars) + horizon, bars - 1)
    label_ts_ms = np.repeat(places[ahead] * BAR_MS, symbols)
    plan = FoldPlan(fold_count=fold_count, embargo_ms=embargo * BAR_MS)

    folds = walk_forward(ts_ms, label_ts_ms, plan)

    tested = np.concatenate([fold.test for fold in folds])
    assert len(np.unique(tested)) == len(tested)
    assert tested.max() == len(ts_ms) - 1
    for fold in folds:
        calibrated = ts_ms[fold.calibration].min()
        assert label_ts_ms[fold.train].max() + plan.embargo_ms < calibrated
        assert label_ts_ms[fold.calibration].max() + plan.embargo_ms < ts_ms[fold.test].min()
        # No bar lies on both sides of a cut: all symbols of an instant go together.
        assert not set(ts_ms[fold.train]) & set(ts_ms[fold.calibration])
        assert not set(ts_ms[fold.calibration]) & set(ts_ms[fold.test])


@pytest.mark.proves("R168")
def test_calibration_on_test_rows_is_refused() -> None:
    fold = clean()

    refused(structs.replace(fold, calibration=fold.test), "calibration and in test")
    both = np.concatenate([fold.calibration, fold.test[:1]])
    refused(structs.replace(fold, calibration=both), "calibration and in test")


def test_training_on_calibration_rows_is_refused() -> None:
    fold = clean()

    refused(
        structs.replace(fold, train=np.concatenate([fold.train, fold.calibration[:1]])), "train"
    )


def test_a_fold_without_a_purge_is_refused() -> None:
    """The next row after the cut is clean, and the last one before it straddles it."""
    fold = clean()
    between = np.arange(fold.calibration[-1] + 1, fold.test[0])
    assert len(between) > 0

    refused(
        structs.replace(fold, calibration=np.concatenate([fold.calibration, between])), "outcome"
    )


def test_a_fold_that_straddles_an_event_is_refused() -> None:
    """All rows of an event are settled at once; one of them before the cut is one too many."""
    fold, rows = clean(), dataset().rows
    label_ts_ms = rows.label_ts_ms.copy()
    check_fold(fold, rows.ts_ms, label_ts_ms, PLAN)
    event = np.concatenate([fold.calibration[-3:], fold.test[:3]])
    label_ts_ms[event] = rows.ts_ms[fold.test[10]]

    with pytest.raises(DataInvalid, match="outcome"):
        check_fold(fold, rows.ts_ms, label_ts_ms, PLAN)


def test_a_fold_in_the_wrong_order_is_refused() -> None:
    fold = clean()

    refused(structs.replace(fold, train=fold.test, test=fold.train), "outcome")


def test_no_model_is_fitted_on_a_fold_that_leaks() -> None:
    """The guard is asked where the fit happens, not only where folds are made."""
    rows, fold = dataset().rows, clean()
    task = FoldTask(
        architecture_id="logistic",
        params={},
        seed=0,
        fold=structs.replace(fold, calibration=fold.test),
        plan=PLAN,
        ts_ms=rows.ts_ms,
        label_ts_ms=rows.label_ts_ms,
        values=rows.values,
        labels=rows.labels,
        window=(),
        purge_rows=6,
    )

    with pytest.raises(DataInvalid, match="leaks"):
        fit_fold(task)
    assert fit_fold(structs.replace(task, fold=fold)).refusal is None


def test_a_search_sees_training_rows_only_and_is_purged_too() -> None:
    rows, fold = dataset().rows, clean()
    inner = inner_split(fold.train, rows.ts_ms, rows.label_ts_ms, PLAN)

    assert set(inner.train) | set(inner.calibration) <= set(fold.train)
    last_ms = rows.label_ts_ms[inner.train].max() + PLAN.embargo_ms
    assert last_ms < rows.ts_ms[inner.calibration].min()


def test_parts_that_are_too_small_or_of_one_class_are_refused() -> None:
    few = np.arange(PART_ROWS_MIN, dtype=np.int64)
    with pytest.raises(DataInvalid, match="rows"):
        walk_forward(few, few + 1, PLAN)
    fold, labels = clean(), np.ones(len(dataset().rows), dtype=np.bool_)

    with pytest.raises(DataInvalid, match="both classes"):
        check_both_classes(labels, [fold])


@pytest.mark.proves("R159")
def test_a_feature_that_knows_the_outcome_is_refused() -> None:
    """What comes true, seen through noise, is still far more than a market gives away."""
    rows, names = dataset().rows, dataset().manifest.input_features
    check_plausible(rows.values, rows.labels, names)
    leaked = rows.values.copy()
    noise = np.random.default_rng(1).normal(0.0, 0.6, len(rows))
    leaked[:, 3] = rows.labels + noise

    with pytest.raises(DataInvalid, match=names[3]):
        check_plausible(leaked, rows.labels, names)
    leaked[:, 3] = -leaked[:, 3]
    with pytest.raises(DataInvalid, match=names[3]):
        check_plausible(leaked, rows.labels, names)


def test_area_under_the_curve_counts_ties_as_half() -> None:
    scores = np.array([0, 0, 1, 1], dtype=np.float32)

    assert auc(scores, np.array([False, True, False, True])) == pytest.approx(0.5)
    assert auc(scores, np.array([False, False, True, True])) == pytest.approx(1.0)
    assert auc(scores, np.array([True, True, True, True])) == pytest.approx(0.5)
