"""Count the replans of a book, day by day, from what the ledger keeps of them."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import msgspec

from detent.contracts.errors import InvalidField
from detent.contracts.replanning import ReplanOutcome
from detent.core.ledger.exact_money import rounded
from detent.core.ledger.summary import ReasonCount

DAY_MS = 86_400_000


class ReplanRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what is counted of one replan; `reason` is empty unless it was skipped."""

    ts_ms: int
    outcome: ReplanOutcome
    reason: str


class ReplanDay(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the replans of one UTC day, which begins at `day_ts_ms`."""

    day_ts_ms: int
    replaced_count: int
    suppressed_count: int
    skipped_count: int


class ReplanMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the replans of one book over whole UTC days.

    Attributes:
        book: The book.
        days: Every day of the period, those without any included, in order.
        replan_count: Plans that were replaced.
        replan_rate_per_day: They per day, to 12 places, half to even; 0 without a day.
        no_change_replan_suppressed_count: Replans that would have changed nothing material.
        skips: Replans that were not made, by reason.
    """

    book: str
    days: tuple[ReplanDay, ...]
    replan_count: int
    replan_rate_per_day: Decimal
    no_change_replan_suppressed_count: int
    skips: tuple[ReasonCount, ...]


def measure_replans(
    book: str,
    rows: Iterable[ReplanRow],
    *,
    since_ts_ms: int | None = None,
    until_ts_ms: int | None = None,
) -> ReplanMeasures:
    """Count replans over a period.

    Args:
        book: The book that they are of.
        rows: In any order; what lies outside the period is left out.
        since_ts_ms: First instant, the begin of a UTC day; None begins with the first row.
        until_ts_ms: First instant that is left out, as well; None ends with the last row's day.

    Raises:
        InvalidField: A bound is not the begin of a UTC day, or the period ends first.

    Source: FORMULAS 2.3; row R235.
    """
    for name, bound in (("since_ts_ms", since_ts_ms), ("until_ts_ms", until_ts_ms)):
        if bound is not None and bound % DAY_MS:
            raise InvalidField(name, bound, "the begin of a UTC day")
    if since_ts_ms is not None and until_ts_ms is not None and until_ts_ms < since_ts_ms:
        raise InvalidField("until_ts_ms", until_ts_ms, f"not before since_ts_ms {since_ts_ms}")
    kept = [
        row
        for row in rows
        if (since_ts_ms is None or row.ts_ms >= since_ts_ms)
        and (until_ts_ms is None or row.ts_ms < until_ts_ms)
    ]
    of_day = Counter((row.ts_ms // DAY_MS, row.outcome) for row in kept)
    counts = Counter(row.outcome for row in kept)
    skips = Counter(row.reason for row in kept if row.outcome is ReplanOutcome.SKIPPED)
    numbers = _days(kept, since_ts_ms, until_ts_ms)
    replan_count = counts[ReplanOutcome.REPLACED]
    return ReplanMeasures(
        book=book,
        days=tuple(
            ReplanDay(
                day_ts_ms=number * DAY_MS,
                replaced_count=of_day[number, ReplanOutcome.REPLACED],
                suppressed_count=of_day[number, ReplanOutcome.SUPPRESSED],
                skipped_count=of_day[number, ReplanOutcome.SKIPPED],
            )
            for number in numbers
        ),
        replan_count=replan_count,
        replan_rate_per_day=rounded(Fraction(replan_count, max(1, len(numbers)))),
        no_change_replan_suppressed_count=counts[ReplanOutcome.SUPPRESSED],
        skips=tuple(
            ReasonCount(reason=reason, record_count=count)
            for reason, count in sorted(skips.items())
        ),
    )


def _days(rows: list[ReplanRow], since_ts_ms: int | None, until_ts_ms: int | None) -> range:
    """Number the days of the period."""
    times = [row.ts_ms // DAY_MS for row in rows]
    if not times and (since_ts_ms is None or until_ts_ms is None):
        return range(0)
    first = min(times) if since_ts_ms is None else since_ts_ms // DAY_MS
    end = max(times) + 1 if until_ts_ms is None else until_ts_ms // DAY_MS
    return range(first, end)
