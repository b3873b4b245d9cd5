"""Turn measured times into the few numbers that are printed."""

import statistics
from collections.abc import Sequence

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the distribution of one measured thing.

    Attributes:
        count: Measurements.
        min_us: The fastest, microseconds: what a machine with nothing else to do comes near.
        p50_us: Median, microseconds.
        p99_us: 99th percentile by nearest rank, microseconds; with fewer than a hundred
            measurements it is the largest.
    """

    count: int
    min_us: float
    p50_us: float
    p99_us: float


def timing_of(times_us: Sequence[float]) -> Timing:
    """Summarise measurements; there is at least one."""
    ordered = sorted(times_us)
    rank = -(-99 * len(ordered) // 100)
    return Timing(
        count=len(ordered),
        min_us=round(ordered[0], 1),
        p50_us=round(statistics.median(ordered), 1),
        p99_us=round(ordered[rank - 1], 1),
    )
