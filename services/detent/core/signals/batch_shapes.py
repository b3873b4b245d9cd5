"""Cut a batch into runs of few fixed sizes.

Matrix kernels sum in another order for another number of rows, which shows in the last bit. A
graph therefore only ever runs with as many rows as its certificate was made for; what is missing
is filled with a copy of the last row and thrown away afterwards.
"""

from collections.abc import Iterator, Sequence

import msgspec

# The smallest costs a single row nothing; between two neighbours at most half a run is padding.
BATCH_SHAPES = (16, 64, 256, 1_024)


class Part(msgspec.Struct, frozen=True):
    """Names the rows of one run.

    Attributes:
        start: First row.
        stop: First row that is no longer part of it.
        shape: Rows that the graph runs with, at least `stop - start`.
    """

    start: int
    stop: int
    shape: int


def parts_of(count: int, shapes: Sequence[int]) -> Iterator[Part]:
    """Yield the runs that a batch is cut into, in order.

    A rest that fills more than half of a larger run goes there; otherwise it is cut again.

    Args:
        count: Rows of the batch, at least 0.
        shapes: The sizes that may run, ascending.
    """
    start = 0
    while start < count:
        rest = count - start
        above = next((shape for shape in shapes if shape >= rest), None)
        below = max((shape for shape in shapes if shape <= rest), default=None)
        if above is not None and (below is None or 2 * rest > above):
            shape = above
        else:
            assert below is not None, "a rest above every shape has one below it"
            shape = below
        stop = min(count, start + shape)
        yield Part(start, stop, shape)
        start = stop


def cost_s(count: int, seconds: dict[int, float]) -> float:
    """Give what a batch is thought to take.

    Args:
        count: Rows of the batch.
        seconds: What one run of each shape took.
    """
    shapes = sorted(seconds)
    return sum(seconds[part.shape] for part in parts_of(count, shapes))
