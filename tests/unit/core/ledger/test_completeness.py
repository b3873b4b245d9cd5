"""Proves that a missing bar, and a run that lacks what makes it valid, are found."""

import random
import tracemalloc

import pytest
from tests.builders import HOUR_MS, START_MS

from detent.core.ledger.completeness import expected_bars, find_holes, judge_runs

BARS = [START_MS + bar * HOUR_MS for bar in range(1_000)]


def test_a_thousand_planted_holes_are_all_found() -> None:
    chance = random.Random(1)
    for _ in range(1_000):
        at = chance.randrange(len(BARS) - 10)
        length = chance.randrange(1, 9)
        kept = BARS[:at] + BARS[at + length :]
        due = expected_bars(BARS[0], BARS[-1], calendar=None, interval_ms=HOUR_MS)
        (hole,) = find_holes("plan", "EURUSD", kept, due)

        assert (hole.from_ts_ms, hole.until_ts_ms) == (BARS[at], BARS[at + length - 1])
        assert hole.bar_count == length


def test_whole_days_that_the_calendar_rests_are_no_hole() -> None:
    week = [ts_ms for ts_ms in BARS if ts_ms // (24 * HOUR_MS) % 7 < 5]

    assert find_holes("plan", "EURUSD", week, week) == []
    assert find_holes("plan", "EURUSD", week, BARS)


def test_a_symbol_without_any_record_is_one_hole() -> None:
    due = expected_bars(BARS[3], BARS[7], calendar=BARS, interval_ms=HOUR_MS)
    (hole,) = find_holes("plan", "EURUSD", (), due)

    assert (hole.from_ts_ms, hole.until_ts_ms, hole.bar_count) == (BARS[3], BARS[7], 5)


def test_a_year_of_bars_of_one_millisecond_takes_no_memory() -> None:
    """What is due is counted, never listed: a plan file of one line must not end an audit."""
    year_ms = 365 * 24 * HOUR_MS
    due = expected_bars(START_MS, START_MS + year_ms, calendar=None, interval_ms=1)
    recorded = {START_MS, START_MS + HOUR_MS, START_MS + year_ms}
    tracemalloc.start()
    try:
        holes = find_holes("plan", "EURUSD", recorded, due)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [hole.bar_count for hole in holes] == [HOUR_MS - 1, year_ms - HOUR_MS - 1]
    assert (holes[0].from_ts_ms, holes[1].until_ts_ms) == (START_MS + 1, START_MS + year_ms - 1)
    assert most_bytes < 1_000_000


@pytest.mark.proves("R233")
@pytest.mark.parametrize("missing", ["plan_log", "bar_decisions", "results_summary"])
def test_a_run_without_one_of_the_three_is_invalid(missing: str) -> None:
    present = {
        name: set() if name == missing else {"plan"}
        for name in ("plan_log", "bar_decisions", "results_summary")
    }
    (run,) = judge_runs(present, open_plans=())

    assert (run.is_valid, run.missing) == (False, (missing,))


@pytest.mark.parametrize("lost_count", [3, -1])
def test_a_run_with_other_records_than_its_summary_counts_is_invalid(lost_count: int) -> None:
    present = {name: {"plan"} for name in ("plan_log", "bar_decisions", "results_summary")}

    (run,) = judge_runs(present, open_plans=(), lost_counts={"plan": lost_count})

    assert (run.is_valid, run.missing, run.lost_count) == (False, (), lost_count)


def test_a_plan_that_still_decides_owes_no_summary() -> None:
    present = {"plan_log": {"plan"}, "bar_decisions": {"plan"}, "results_summary": set[str]()}

    assert judge_runs(present, open_plans={"plan"})[0].is_valid
    assert not judge_runs(present, open_plans=())[0].is_valid
