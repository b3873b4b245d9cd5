"""Find the bars that a ledger should have and has not, and runs that lack what makes them valid."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

HOLES_MAX = 1_000
# A run without one of these is invalid (R233).
SUMMARY = "results_summary"
REQUIRED = ("plan_log", "bar_decisions", SUMMARY)


class Hole(msgspec.Struct, frozen=True, kw_only=True):
    """Names one stretch of bars that have no record.

    Attributes:
        plan_id: The plan.
        symbol: The instrument.
        from_ts_ms: Close time of the first bar without a record, Unix milliseconds.
        until_ts_ms: Close time of the last one.
        bar_count: How many there are.
    """

    plan_id: str
    symbol: str
    from_ts_ms: int
    until_ts_ms: int
    bar_count: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Says whether one plan has what a valid run has.

    Attributes:
        plan_id: The plan.
        is_open: Whether it still decides; its summary is then not due.
        missing: The tables in which nothing of it stands and something is due, of `REQUIRED`.
        lost_count: Records that its summary counts and that are not there; below 0 where there
            are more.
    """

    plan_id: str
    is_open: bool
    missing: tuple[str, ...]
    lost_count: int = 0

    @property
    def is_valid(self) -> bool:
        """Say whether nothing is missing."""
        return not self.missing and not self.lost_count


def find_holes(
    plan_id: str, symbol: str, recorded: Collection[int], calendar: Sequence[int]
) -> list[Hole]:
    """Compare the bars that have a record with those that there were.

    Args:
        plan_id: The plan.
        symbol: The instrument.
        recorded: Close times of the regular bars that have a record, Unix milliseconds.
        calendar: Close times of the bars that there were while the plan decided, rising.

    Returns:
        The stretches of the calendar without a record.
    """
    # By place and not bar by bar: a plan of short bars is due at more instants than fit in memory.
    places = [-1]
    for ts_ms in sorted(recorded):
        place = bisect_left(calendar, ts_ms, lo=places[-1] + 1)
        if place < len(calendar) and calendar[place] == ts_ms:
            places.append(place)
    places.append(len(calendar))
    return [
        Hole(
            plan_id=plan_id,
            symbol=symbol,
            from_ts_ms=calendar[before + 1],
            until_ts_ms=calendar[after - 1],
            bar_count=after - before - 1,
        )
        for before, after in pairwise(places)
        if after - before > 1
    ]


def expected_bars(
    since_ts_ms: int, until_ts_ms: int, *, calendar: Sequence[int] | None, interval_ms: int
) -> Sequence[int]:
    """Give the bars that there were from one decided bar of a plan to another.

    Args:
        since_ts_ms: Close time of the first bar that the plan decided for any symbol, or of the
            one after the last of the plan that it replaced.
        until_ts_ms: Close time of the last one.
        calendar: Close times of the symbol's bars, rising; None when it never rests.
        interval_ms: Length of the plan's bars.
    """
    if calendar is None:
        return range(since_ts_ms, until_ts_ms + 1, interval_ms)
    return [ts_ms for ts_ms in calendar if since_ts_ms <= ts_ms <= until_ts_ms]


def judge_runs(
    present: Mapping[str, Collection[str]],
    *,
    open_plans: Collection[str],
    lost_counts: Mapping[str, int] | None = None,
) -> tuple[Run, ...]:
    """Say of every run that any table knows whether it is valid (R233).

    Args:
        present: The plans that stand in each table of `REQUIRED`.
        open_plans: Those that still decide: no summary of them is due.
        lost_counts: By plan, how many of the records that its summary counts are not there.
    """
    known: Iterable[str] = sorted({plan for name in REQUIRED for plan in present[name]})
    return tuple(
        Run(
            plan_id=plan_id,
            is_open=plan_id in open_plans,
            missing=tuple(
                name
                for name in REQUIRED
                if plan_id not in present[name] and not (name == SUMMARY and plan_id in open_plans)
            ),
            lost_count=(lost_counts or {}).get(plan_id, 0),
        )
        for plan_id in known
    )
