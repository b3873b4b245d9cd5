"""Group rows by their score, in whole numbers: what monotone fits are made of.

Counts are integers, so the slopes of a fit are compared exactly: no rounding decides which
rows are pooled, on any machine.

Source: Ayer et al. 1955 (pool adjacent violators); Vovk, Petej and Fedorova 2015.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration import Labels

Point = tuple[int, int]


class ScoreGroups(msgspec.Struct, frozen=True, kw_only=True):
    """Holds groups of rows in ascending order of their scores.

    Attributes:
        low: Least score of each group.
        high: Greatest score of each group.
        rows: Rows of each group.
        ups: Rows of each group that went up.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    rows: tuple[int, ...]
    ups: tuple[int, ...]

    @classmethod
    def of(cls, scores: Floats, labels: Labels, *, groups_max: int | None = None) -> "ScoreGroups":
        """Group rows of equal scores, and neighbours where that gives too many groups.

        Args:
            scores: Shape (n,), float64.
            labels: Shape (n,), bool.
            groups_max: Most groups that are wanted; None for one per score.
        """
        distinct, place = np.unique(scores, return_inverse=True)
        low = high = distinct
        if groups_max is not None and len(distinct) > groups_max:
            # As many rows in each as in any other, as far as equal scores stay together.
            before = np.concatenate([[0], np.cumsum(np.bincount(place))[:-1]])
            _, coarse = np.unique(before * groups_max // len(scores), return_inverse=True)
            first = np.flatnonzero(np.diff(coarse, prepend=-1))
            low, high = distinct[first], distinct[np.append(first[1:], len(distinct)) - 1]
            place = coarse[place]
        return cls(
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            rows=tuple(np.bincount(place).tolist()),
            ups=tuple(np.bincount(place, weights=labels).astype(np.int64).tolist()),
        )


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Holds neighbouring groups that a monotone fit gives one value: ups / rows.

    Attributes:
        first: Place of the first group.
        last: Place of the last group.
        rows: Rows of them all.
        ups: Rows that went up.
    """

    first: int
    last: int
    rows: int
    ups: int


def pool_violators(rows: Sequence[int], ups: Sequence[int]) -> tuple[Block, ...]:
    """Fit the best monotone map: pool neighbours until shares of ups ascend.

    Args:
        rows: Rows of each group, at least 1, in the order of the groups.
        ups: Rows of each group that went up.

    Returns:
        Blocks whose shares strictly ascend.
    """
    blocks: list[Block] = []
    for place, (row_count, up_count) in enumerate(zip(rows, ups, strict=True)):
        block = Block(first=place, last=place, rows=row_count, ups=up_count)
        while blocks and blocks[-1].ups * block.rows >= block.ups * blocks[-1].rows:
            below = blocks.pop()
            block = Block(
                first=below.first,
                last=place,
                rows=below.rows + block.rows,
                ups=below.ups + block.ups,
            )
        blocks.append(block)
    return tuple(blocks)


def shares_as_hit(rows: Sequence[int], ups: Sequence[int]) -> list[Point]:
    """Fit once per group, with one more row in it that went up, and give the group's share.

    The corners of the convex minorant are kept from one group to the next, so that all fits
    together cost about as much as one.

    Args:
        rows: Rows of each group, at least 1, in the order of the groups.
        ups: Rows of each group that went up.

    Returns:
        Per group (ups, rows), whose quotient is the share.
    """
    points: list[Point] = [(-1, -1), (0, 0)]
    for row_count, up_count in zip(rows, ups, strict=True):
        across, along = points[-1]
        points.append((across + row_count, along + up_count))
    corners: list[Point] = []
    for point in points:
        while len(corners) > 1 and not _turns_left(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    corners.reverse()
    shares = []
    for place in range(2, len(points)):
        (from_x, from_y), (to_x, to_y) = corners[-1], corners[-2]
        shares.append((to_y - from_y, to_x - from_x))
        # The extra row moves from before this group to behind it: the point between moves.
        before, here, after = points[place - 2 : place + 1]
        moved = (before[0] + after[0] - here[0], before[1] + after[1] - here[1])
        points[place - 1] = moved
        _replace_corner(corners, moved)
    return shares


def shares_as_miss(rows: Sequence[int], ups: Sequence[int]) -> list[Point]:
    """Fit once per group, with one more row in it that did not go up; else the same."""
    misses = [row_count - up_count for row_count, up_count in zip(rows, ups, strict=True)]
    turned = shares_as_hit(rows[::-1], misses[::-1])
    return [(across - along, across) for along, across in reversed(turned)]


def _replace_corner(corners: list[Point], point: Point) -> None:
    """Put a point in place of the last corner, unless the minorant stays below it."""
    top, following = corners[-1], corners[-2]
    if _cross(top, following, point) >= 0:
        return
    corners.pop()
    while len(corners) > 1 and not _turns_left(point, corners[-1], corners[-2]):
        corners.pop()
    corners.append(point)


def _turns_left(a: Point, b: Point, c: Point) -> bool:
    return _cross(a, b, c) > 0


def _cross(a: Point, b: Point, c: Point) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
