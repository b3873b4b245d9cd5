"""Holds the circuit breaker to its three states."""

import pytest

from detent_client.breaker import CircuitBreaker


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="breaker")
def _breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(failures_max=3, open_s=1.0, clock=clock)


@pytest.mark.proves("R318")
def test_breaker_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()

    assert breaker.is_open
    assert not breaker.allows()


def test_breaker_forgets_failures_once_answered(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    breaker.failed()

    assert not breaker.is_open
    assert breaker.allows()


@pytest.mark.proves("R318")
def test_breaker_lets_one_probe_through_per_interval(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now_s += 1.0

    assert breaker.allows()
    assert not breaker.allows()

    breaker.failed()
    clock.now_s += 0.5

    assert not breaker.allows()


def test_breaker_closes_when_the_probe_is_answered(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now_s += 1.0
    assert breaker.allows()
    breaker.succeeded()

    assert breaker.allows()
    assert breaker.allows()
