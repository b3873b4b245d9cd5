"""Cut labelled rows into folds that walk forward in time and share no outcome.

Each fold trains on the earliest rows, calibrates on later ones, and tests on still later ones.
Between two parts lie a purge, for as long as labels look ahead, and an embargo beyond it.

Source: Lopez de Prado 2018, chapter 7; QUANT A9; R168.
"""

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import DataInvalid

Ints = NDArray[np.int64]

# Share of the instants that lie before the first test block.
HISTORY_SHARE = 0.4
# Share of what lies before a test block that calibrates.
CALIBRATION_SHARE = 0.25
# Fewer rows than this fit noise, and a test on them says nothing.
PART_ROWS_MIN = 100
PARTS = ("train", "calibration", "test")


class FoldPlan(msgspec.Struct, frozen=True, kw_only=True):
    """States how rows are cut.

    Attributes:
        fold_count: Test blocks.
        embargo_ms: What must lie between the last outcome of a part and the next part.
    """

    fold_count: int
    embargo_ms: int


class Fold(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds the places of the rows of each part, ascending.

    Attributes:
        number: Place among the folds, from 0.
        train: What a model is fitted on.
        calibration: Later: what its calibrator is fitted on.
        test: Later still: what neither has seen.
    """

    number: int
    train: Ints
    calibration: Ints
    test: Ints


def walk_forward(ts_ms: Ints, label_ts_ms: Ints, plan: FoldPlan) -> tuple[Fold, ...]:
    """Cut rows into folds; the test blocks follow one another up to the last row.

    Args:
        ts_ms: Shape (n,), when each row was read.
        label_ts_ms: Shape (n,), when all that its label says was known.
        plan: How many folds, and how far apart their parts are.

    Raises:
        DataInvalid: A part would have too few rows.
    """
    instants = np.unique(ts_ms)
    first = int(HISTORY_SHARE * len(instants))
    edges = [
        first + (len(instants) - first) * block // plan.fold_count
        for block in range(plan.fold_count + 1)
    ]
    folds = []
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        begin = int(start * (1.0 - CALIBRATION_SHARE))
        if not 0 < begin < start < stop:
            raise _too_few(f"{len(instants)} instants for {plan.fold_count} folds")
        calibration_ts_ms, test_ts_ms = int(instants[begin]), int(instants[start])
        settled_ts_ms = label_ts_ms + plan.embargo_ms
        train = np.flatnonzero(settled_ts_ms < calibration_ts_ms)
        calibration = np.flatnonzero((ts_ms >= calibration_ts_ms) & (settled_ts_ms < test_ts_ms))
        test = np.flatnonzero((ts_ms >= test_ts_ms) & (ts_ms <= instants[stop - 1]))
        fold = Fold(number=number, train=train, calibration=calibration, test=test)
        check_fold(fold, ts_ms, label_ts_ms, plan)
        folds.append(fold)
    return tuple(folds)


def check_fold(fold: Fold, ts_ms: Ints, label_ts_ms: Ints, plan: FoldPlan) -> None:
    """Refuse a fold in which an outcome, or an event, is seen on both sides of a cut.

    It is asked of every fold again right before a model is fitted, whoever made it.

    Raises:
        DataInvalid: Parts share rows, follow in the wrong order, are too close, or too small.
    """
    for name in PARTS:
        part: Ints = getattr(fold, name)
        if len(part) < PART_ROWS_MIN:
            raise _too_few(f"{len(part)} rows for {name} of fold {fold.number}")
    for earlier, later in (("train", "calibration"), ("calibration", "test"), ("train", "test")):
        before: Ints = getattr(fold, earlier)
        after: Ints = getattr(fold, later)
        if np.intersect1d(before, after).size:
            raise _leaks(fold, f"rows that are in {earlier} and in {later}", "each row once")
        last_ms, begin_ms = int(label_ts_ms[before].max()), int(ts_ms[after].min())
        if last_ms + plan.embargo_ms >= begin_ms:
            found = f"an outcome of {earlier} at {last_ms}, {later} from {begin_ms} on"
            raise _leaks(fold, found, f"more than {plan.embargo_ms} ms between them")


def inner_split(rows: Ints, ts_ms: Ints, label_ts_ms: Ints, plan: FoldPlan) -> Fold:
    """Cut training rows once more, for a search: fit on the first, judge on the last.

    Returns:
        A fold whose `calibration` is what the search is judged on; its `test` is the same.

    Raises:
        DataInvalid: A part would have too few rows.
    """
    instants = np.unique(ts_ms[rows])
    cut_ts_ms = int(instants[int(len(instants) * (1.0 - CALIBRATION_SHARE))])
    train = rows[label_ts_ms[rows] + plan.embargo_ms < cut_ts_ms]
    judged = rows[ts_ms[rows] >= cut_ts_ms]
    for name, part in (("the search", train), ("its judgement", judged)):
        if len(part) < PART_ROWS_MIN:
            raise _too_few(f"{len(part)} rows for {name}")
    return Fold(number=-1, train=train, calibration=judged, test=judged)


def rows_in_flight(ts_ms: Ints, label_ts_ms: Ints, places: Ints) -> int:
    """Count the most rows of a part that are begun and not settled when another one begins.

    So many rows before a block may know an outcome that the block tells as well.
    """
    begun = np.sort(ts_ms[places])
    settled = np.searchsorted(np.sort(label_ts_ms[places]), begun, side="left")
    return int((np.searchsorted(begun, begun, side="right") - settled).max())


def bounds_of(values: Ints, places: Ints) -> tuple[int, int]:
    """Give the least and the greatest of some values."""
    return int(values[places].min()), int(values[places].max())


def check_both_classes(labels: NDArray[np.bool_], folds: Sequence[Fold]) -> None:
    """Refuse folds with a part of one class.

    Raises:
        DataInvalid: A part is all up, or all down.
    """
    for fold in folds:
        for name in PARTS:
            up = int(np.count_nonzero(labels[getattr(fold, name)]))
            if up in (0, len(getattr(fold, name))):
                raise _too_few(f"{up} rows up for {name} of fold {fold.number}")


def _too_few(found: str) -> DataInvalid:
    expected = f"at least {PART_ROWS_MIN} rows in every part, of both classes"
    return DataInvalid(f"found {found}, expected {expected}", found=found, expected=expected)


def _leaks(fold: Fold, found: str, expected: str) -> DataInvalid:
    message = f"fold {fold.number} leaks: found {found}, expected {expected}"
    return DataInvalid(message, rule="leakage", found=found, expected=expected)
