"""How a batch is cut into runs of fixed sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.certificate import check_shapes
from detent.contracts.errors import InvalidField
from detent.core.signals.batch_shapes import BATCH_SHAPES, cost_s, parts_of


@pytest.mark.parametrize(
    ("count", "shapes"),
    [
        (0, []),
        (1, [16]),
        (16, [16]),
        (17, [16, 16]),
        (40, [64]),
        (256, [256]),
        (300, [256, 64]),
        (1_000, [1_024]),
        (5_000, [1_024, 1_024, 1_024, 1_024, 1_024]),
    ],
)
def test_a_batch_is_cut_into_known_sizes(count: int, shapes: list[int]) -> None:
    assert [part.shape for part in parts_of(count, BATCH_SHAPES)] == shapes


@given(
    st.integers(0, 20_000),
    st.lists(st.integers(1, 4_096), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_every_row_is_in_exactly_one_run(count: int, shapes: list[int]) -> None:
    parts = list(parts_of(count, shapes))

    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start <= part.shape for part in parts)
    assert {part.shape for part in parts} <= set(shapes)
    wasted = sum(part.shape - (part.stop - part.start) for part in parts)
    assert wasted < max(shapes[0], count)


def test_cost_is_that_of_the_runs() -> None:
    assert cost_s(300, {64: 2.0, 256: 5.0}) == 7.0


@pytest.mark.parametrize("shapes", [(), (0,), (16, 16), (64, 16), (70_000,), (True,)])
def test_odd_shapes_are_refused(shapes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidField):
        check_shapes("batch_shapes", shapes)
