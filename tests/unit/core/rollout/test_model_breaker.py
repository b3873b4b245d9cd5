"""Proves by an injected clock when a failing model is spared, how long, and how it is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.core.rollout.latch import FAILURES, MEANT
from detent.core.rollout.model_breaker import BreakerLimits, ModelBreaker

LIMITS = BreakerLimits(rows_min=10)
BAD = Reason.INFERENCE_ERROR


def rows(failed: int, answered: int = 0) -> list[Reason | None]:
    return [BAD] * failed + [None] * answered


@pytest.mark.proves("R342")
def test_it_opens_above_half_and_not_at_half() -> None:
    at_half, above = ModelBreaker(LIMITS), ModelBreaker(LIMITS)

    assert not at_half.note(rows(5, 5), 0.0)
    assert above.note(rows(6, 5), 0.0)
    assert (at_half.is_open(0.0), above.is_open(0.0)) == (False, True)


@pytest.mark.proves("R342")
def test_too_few_rows_open_nothing() -> None:
    breaker = ModelBreaker(LIMITS)

    assert not breaker.note(rows(9), 0.0)
    assert breaker.note(rows(1), 299.999)


@pytest.mark.proves("R342")
def test_what_is_older_than_the_window_counts_no_more() -> None:
    breaker = ModelBreaker(LIMITS)
    breaker.note(rows(9), 0.0)

    assert not breaker.note(rows(1), 300.0)
    assert not breaker.note(rows(0, 9), 301.0)
    # Of the eleven rows since, two failed.
    assert not breaker.note(rows(1), 302.0)


@pytest.mark.proves("R342")
def test_an_episode_is_counted_once_and_ends_by_itself() -> None:
    breaker = ModelBreaker(LIMITS)
    assert breaker.note(rows(10), 0.0)
    # Calls that were under way, and whatever else fails meanwhile.
    assert not any(breaker.note(rows(50), float(second)) for second in range(1, 300))
    assert (breaker.is_open(299.999), breaker.episode_count) == (True, 1)
    assert not breaker.is_open(300.0)

    assert not breaker.note(rows(9), 301.0)
    assert breaker.note(rows(1), 302.0)
    assert breaker.episode_count == 2


@pytest.mark.proves("R342")
@pytest.mark.parametrize("reason", sorted(set(Reason) - FAILURES))
def test_what_is_not_the_models_fault_opens_nothing(reason: Reason) -> None:
    assert not MEANT & FAILURES
    assert not ModelBreaker(LIMITS).note([reason] * 1_000, 0.0)


def test_without_a_least_number_of_rows_it_never_opens() -> None:
    breaker = ModelBreaker(BreakerLimits())

    assert not any(breaker.note(rows(1_000), float(second)) for second in range(50))
    assert not breaker.note([], 51.0)


def test_a_clock_that_went_backwards_closes_it() -> None:
    breaker = ModelBreaker(LIMITS)
    breaker.note(rows(10), 100.0)

    assert not breaker.is_open(99.0)


@pytest.mark.parametrize(
    "wrong", [{"rows_min": -1}, {"window_s": 0}, {"share_ppm": 1_000_001}, {"share_ppm": -1}]
)
def test_limits_that_are_none_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidField):
        BreakerLimits(**wrong)


calls = st.lists(
    st.tuples(st.floats(0.0, 200.0), st.integers(0, 12), st.integers(0, 12)), max_size=40
)


@pytest.mark.proves("R342")
@given(calls=calls)
def test_it_opens_exactly_where_the_rows_of_the_window_say_so(
    calls: list[tuple[float, int, int]],
) -> None:
    """Beside a count over everything that was noted since it last closed."""
    breaker = ModelBreaker(LIMITS)
    now_s, opened_s, kept = 0.0, None, list[tuple[float, int, int]]()
    for step_s, failed, answered in calls:
        now_s += step_s
        if opened_s is not None and now_s - opened_s >= LIMITS.window_s:
            opened_s = None
        found = breaker.note(rows(failed, answered), now_s)
        if opened_s is not None:
            assert not found
            continue
        kept.append((now_s, failed, answered))
        live = [call for call in kept if now_s - call[0] < LIMITS.window_s]
        failures = sum(call[1] for call in live)
        total = failures + sum(call[2] for call in live)
        expected = failed + answered > 0 and total >= LIMITS.rows_min and 2 * failures > total
        assert found is expected
        if expected:
            opened_s, kept = now_s, []
