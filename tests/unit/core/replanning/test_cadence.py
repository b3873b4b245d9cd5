"""Proves when a plan is thought over, on a scripted clock."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import START_MS

from detent.contracts.errors import InvalidField
from detent.contracts.replanning import ReplanCause, ReplanSkipReason
from detent.core.replanning.cadence import Cadence, cadence_of_bars, judge_cadence

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
EVENT, HEARTBEAT = ReplanCause.EVENT, ReplanCause.HEARTBEAT
RUNNING, IDLE, EARLY = ReplanSkipReason

SCRIPT = [
    # Minutes since the last one, an event, one under way, and what becomes of it.
    (0, False, False, IDLE),
    (0, True, False, EARLY),
    (15 - 1 / 60_000, True, False, EARLY),
    (15, True, False, EVENT),
    (15, True, True, RUNNING),
    (15, False, False, IDLE),
    (60 - 1 / 60_000, False, False, IDLE),
    (60, False, False, HEARTBEAT),
    (60, True, False, EVENT),
    (60, False, True, RUNNING),
    (-1, True, False, EARLY),
    (-1, False, False, IDLE),
]


@pytest.mark.proves("R355")
@pytest.mark.parametrize(("minutes", "has_event", "is_running", "expected"), SCRIPT)
def test_a_scripted_clock_decides(
    minutes: float, *, has_event: bool, is_running: bool, expected: object
) -> None:
    found = judge_cadence(
        Cadence(),
        ts_ms=START_MS + round(minutes * 60_000),
        last_ts_ms=START_MS,
        is_running=is_running,
        has_event=has_event,
    )

    assert found is expected


@pytest.mark.proves("R355")
def test_the_defaults_are_those_that_were_published() -> None:
    assert Cadence() == Cadence(min_interval_ms=QUARTER_MS, heartbeat_ms=HOUR_MS)
    assert cadence_of_bars(60_000).heartbeat_ms == QUARTER_MS
    assert cadence_of_bars(60_001).heartbeat_ms == HOUR_MS


def test_the_first_one_is_due_at_once() -> None:
    found = [
        judge_cadence(
            Cadence(), ts_ms=START_MS, last_ts_ms=None, is_running=False, has_event=has_event
        )
        for has_event in (False, True)
    ]

    assert found == [HEARTBEAT, EVENT]


def test_a_heartbeat_that_always_comes_too_early_is_refused() -> None:
    for wrong in ({"heartbeat_ms": QUARTER_MS - 1}, {"min_interval_ms": -1}):
        with pytest.raises(InvalidField):
            Cadence(**wrong)
    Cadence(min_interval_ms=0, heartbeat_ms=1)
    with pytest.raises(InvalidField):
        Cadence(min_interval_ms=0, heartbeat_ms=0)


@pytest.mark.proves("R355")
@given(steps=st.lists(st.tuples(st.integers(0, 2 * HOUR_MS), st.booleans()), max_size=60))
def test_no_script_brings_two_closer_than_the_interval(steps: list[tuple[int, bool]]) -> None:
    cadence, ts_ms, made = Cadence(), START_MS, [START_MS]
    for pause_ms, has_event in steps:
        ts_ms += pause_ms
        found = judge_cadence(
            cadence, ts_ms=ts_ms, last_ts_ms=made[-1], is_running=False, has_event=has_event
        )
        if isinstance(found, ReplanCause):
            made.append(ts_ms)
        elif found is IDLE:
            assert ts_ms - made[-1] < HOUR_MS

    assert all(after - before >= QUARTER_MS for before, after in itertools.pairwise(made))
