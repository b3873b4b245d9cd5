"""Splits: the same rows as an independent library, and nothing shared between the parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.core.evaluation.walk_forward import Split, combinatorial_purged, walk_forward

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "drift_sequential.json"


def fixture(name: str) -> Any:
    if not REFERENCE.exists():
        pytest.skip("the reference values lie beside the repository")
    found = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    return next(one for one in found if one["id"] == name)


def test_walk_forward_gives_the_rows_of_an_independent_library() -> None:
    given_ = fixture("walk_forward")
    inputs = given_["inputs"]
    splits = walk_forward(
        inputs["n"],
        train_rows=inputs["train"],
        test_rows=inputs["test"],
        purged_rows=inputs["purge"],
    )

    assert [
        {name: [run.start, run.stop - 1] for name, run in (("train", train), ("test", test))}
        for split in splits
        for (train,), (test,) in [(split.train, split.test)]
    ] == given_["expected"]["splits"]


def test_combinatorial_splits_are_those_of_an_independent_library() -> None:
    given_ = fixture("cpcv")
    inputs, expected = given_["inputs"], given_["expected"]
    splits = list(
        combinatorial_purged(
            inputs["n"],
            fold_count=inputs["n_folds"],
            test_fold_count=inputs["n_test_folds"],
            purged_rows=inputs["purge"],
            embargo_rows=inputs["embargo"],
        )
    )
    found = [
        {
            "train": [row for run in split.train for row in run],
            "test": [list(run) for run in split.test],
        }
        for split in splits
    ]

    assert len(splits) == expected["n_splits"]
    assert found[: len(expected["splits"])] == expected["splits"]


def shares_outcomes(split: Split, *, horizon_rows: int) -> bool:
    """Say whether the label of a row learned from reaches into a test part, or the reverse."""
    return any(
        train.start < test.stop + horizon_rows and test.start < train.stop + horizon_rows
        for train in split.train
        for test in split.test
    )


@given(
    row_count=st.integers(8, 200),
    fold_count=st.integers(2, 8),
    test_fold_count=st.integers(1, 7),
    purged_rows=st.integers(0, 12),
    embargo_rows=st.integers(0, 12),
)
def test_no_label_reaches_from_one_part_into_the_other(
    row_count: int, fold_count: int, test_fold_count: int, purged_rows: int, embargo_rows: int
) -> None:
    folds = min(test_fold_count, fold_count - 1)
    for split in combinatorial_purged(
        row_count,
        fold_count=fold_count,
        test_fold_count=folds,
        purged_rows=purged_rows,
        embargo_rows=embargo_rows,
    ):
        assert not shares_outcomes(split, horizon_rows=purged_rows)
        assert len(split.test) == folds
    for split in walk_forward(
        row_count, train_rows=fold_count, test_rows=folds, purged_rows=purged_rows
    ):
        assert not shares_outcomes(split, horizon_rows=purged_rows)


def test_a_split_without_purge_shares_outcomes() -> None:
    """The control: what looks for shared outcomes finds them where nothing was purged."""
    split = next(walk_forward(60, train_rows=24, test_rows=6, purged_rows=0))

    assert shares_outcomes(split, horizon_rows=1)


@pytest.mark.parametrize(
    ("row_count", "fold_count", "test_fold_count"), [(5, 6, 2), (60, 1, 1), (60, 6, 6), (60, 6, 0)]
)
def test_folds_that_cannot_be_are_refused(
    row_count: int, fold_count: int, test_fold_count: int
) -> None:
    with pytest.raises(InvalidField):
        list(
            combinatorial_purged(
                row_count,
                fold_count=fold_count,
                test_fold_count=test_fold_count,
                purged_rows=0,
                embargo_rows=0,
            )
        )


@pytest.mark.parametrize("name", ["train_rows", "test_rows"])
def test_a_part_without_rows_is_refused(name: str) -> None:
    counts = {"train_rows": 4, "test_rows": 2, "purged_rows": 0} | {name: 0}
    with pytest.raises(InvalidField, match=name):
        list(walk_forward(10, **counts))
