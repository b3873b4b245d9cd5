"""Proves that replans are counted exactly, day by day."""

from decimal import Decimal

import pytest

from detent.contracts.errors import InvalidField
from detent.contracts.replanning import ReplanOutcome
from detent.core.ledger.summary import ReasonCount
from detent.core.replanning.measures import ReplanRow, measure_replans

DAY, DAY_MS = 20_000, 86_400_000
REPLACED, SUPPRESSED, SKIPPED = ReplanOutcome


def row(day: int, ms: int, outcome: ReplanOutcome, reason: str = "") -> ReplanRow:
    return ReplanRow(ts_ms=(DAY + day) * DAY_MS + ms, outcome=outcome, reason=reason)


ROWS = [
    row(0, 0, REPLACED),
    row(0, DAY_MS - 1, REPLACED),
    row(0, 5, SUPPRESSED),
    row(0, 6, SKIPPED, "cooldown_not_expired"),
    row(0, 7, SKIPPED, "already_running"),
    row(2, 0, SUPPRESSED),
    row(2, 1, SUPPRESSED),
    row(2, 2, REPLACED),
    row(2, 3, SKIPPED, "cooldown_not_expired"),
]


@pytest.mark.proves("R235")
def test_scripted_days_have_exact_counts_and_an_exact_rate() -> None:
    found = measure_replans("paper", ROWS[::-1])

    assert [
        (one.day_ts_ms // DAY_MS - DAY, one.replaced_count, one.suppressed_count, one.skipped_count)
        for one in found.days
    ] == [(0, 2, 1, 2), (1, 0, 0, 0), (2, 1, 2, 1)]
    assert (found.replan_count, found.no_change_replan_suppressed_count) == (3, 3)
    assert found.replan_rate_per_day == Decimal(1)
    assert found.skips == (
        ReasonCount(reason="already_running", record_count=1),
        ReasonCount(reason="cooldown_not_expired", record_count=2),
    )


@pytest.mark.proves("R235")
def test_a_period_has_its_own_days_and_its_own_rate() -> None:
    since, until = DAY * DAY_MS, (DAY + 7) * DAY_MS
    found = measure_replans("paper", ROWS, since_ts_ms=since, until_ts_ms=until)

    assert len(found.days) == 7
    assert found.replan_rate_per_day == Decimal("0.428571428571")
    later = measure_replans("paper", ROWS, since_ts_ms=since + DAY_MS)
    assert (later.replan_count, len(later.days)) == (1, 2)
    assert later.replan_rate_per_day == Decimal("0.5")
    earlier = measure_replans("paper", ROWS, until_ts_ms=since + DAY_MS)
    assert (earlier.replan_count, len(earlier.days)) == (2, 1)
    # The first instant of a period is in it, and the first after it is not.
    middle = measure_replans("paper", ROWS, since_ts_ms=since, until_ts_ms=since + 2 * DAY_MS)
    assert (middle.replan_count, middle.no_change_replan_suppressed_count) == (2, 1)
    assert len(middle.days) == 2


def test_nothing_done_is_no_rate() -> None:
    for bounds in ({}, {"since_ts_ms": DAY_MS}, {"since_ts_ms": DAY_MS, "until_ts_ms": DAY_MS}):
        found = measure_replans("paper", [], **bounds)  # type: ignore[arg-type]
        assert (found.days, found.replan_count, found.replan_rate_per_day) == ((), 0, Decimal(0))
    quiet = measure_replans("paper", [], since_ts_ms=0, until_ts_ms=2 * DAY_MS)
    assert (len(quiet.days), quiet.replan_rate_per_day) == (2, Decimal(0))


def test_half_a_day_is_refused() -> None:
    with pytest.raises(InvalidField, match="begin of a UTC day"):
        measure_replans("paper", [], since_ts_ms=DAY_MS + 1)


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    """Bounds that were swapped would else say that nothing was ever replanned."""
    with pytest.raises(InvalidField, match="not before since_ts_ms"):
        measure_replans("paper", ROWS, since_ts_ms=(DAY + 3) * DAY_MS, until_ts_ms=DAY * DAY_MS)
