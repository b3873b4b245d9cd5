"""Part rows into what is learned from and what is measured on, with nothing shared between.

A label looks ahead, so the rows before a test part know its first outcomes: they are purged.
What follows a test part is held apart as well, because features look back: the embargo. The
same holds between fitting, calibration and test.

Source: Lopez de Prado 2018, chapters 7 and 12; QUANT A9.
"""

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rows of one part, as runs of consecutive row numbers, in their order.

    Attributes:
        train: Runs to learn from; a purge may leave none.
        test: Runs to measure on, one per test part.
    """

    train: tuple[range, ...]
    test: tuple[range, ...]


def walk_forward(
    row_count: int, *, train_rows: int, test_rows: int, purged_rows: int
) -> Iterator[Split]:
    """Give splits that move forward by the length of a test part, which never overlap.

    Args:
        row_count: Rows that there are, in the order of time.
        train_rows: Rows learned from, the newest ones before the purge.
        test_rows: Rows measured on.
        purged_rows: Rows between the two that are used for neither: the label's horizon.

    Yields:
        Splits, oldest first; rows that do not fill a whole test part are left out.

    Raises:
        InvalidField: A count is below 1, or the purge below 0.
    """
    for name, value, low in (
        ("row_count", row_count, 1),
        ("train_rows", train_rows, 1),
        ("test_rows", test_rows, 1),
        ("purged_rows", purged_rows, 0),
    ):
        check_int(name, value, low, INT32_MAX)
    first_test = train_rows + purged_rows
    for start in range(first_test, row_count - test_rows + 1, test_rows):
        train_end = start - purged_rows
        yield Split(
            train=(range(train_end - train_rows, train_end),),
            test=(range(start, start + test_rows),),
        )


def combinatorial_purged(
    row_count: int, *, fold_count: int, test_fold_count: int, purged_rows: int, embargo_rows: int
) -> Iterator[Split]:
    """Give every choice of test folds, with the rows beside them purged from the others.

    Args:
        row_count: Rows that there are, in the order of time.
        fold_count: Folds of equal length; the first ones take what does not divide.
        test_fold_count: Folds of each choice that are measured on.
        purged_rows: Rows on both sides of a test fold that are not learned from.
        embargo_rows: Further rows after it.

    Yields:
        One split per choice, in lexical order.

    Raises:
        InvalidField: There are more folds than rows, no fold is left to learn from, or a
            purge is below 0.
    """
    check_int("fold_count", fold_count, 2, INT32_MAX)
    check_int("test_fold_count", test_fold_count, 1, fold_count - 1)
    check_int("purged_rows", purged_rows, 0, INT32_MAX)
    check_int("embargo_rows", embargo_rows, 0, INT32_MAX)
    if row_count < fold_count:
        raise InvalidField("row_count", row_count, f"at least {fold_count}, one per fold")
    whole, over = divmod(row_count, fold_count)
    edges = [number * whole + min(number, over) for number in range(fold_count + 1)]
    folds = [range(low, high) for low, high in itertools.pairwise(edges)]
    for test in itertools.combinations(folds, test_fold_count):
        kept_apart = [
            range(fold.start - purged_rows, fold.stop + purged_rows + embargo_rows) for fold in test
        ]
        yield Split(train=_outside(kept_apart, row_count), test=test)


def _outside(runs: Sequence[range], row_count: int) -> tuple[range, ...]:
    """Give the runs of rows that are in none of the given ones, which come in order."""
    left: list[range] = []
    start = 0
    for run in runs:
        if run.start > start:
            left.append(range(start, run.start))
        start = max(start, run.stop)
    if start < row_count:
        left.append(range(start, row_count))
    return tuple(left)
