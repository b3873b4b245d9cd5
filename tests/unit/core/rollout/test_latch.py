"""Proves that repeated trouble latches a model by the bars' own time, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.reasons import Reason
from detent.core.rollout.latch import FAILURES, MEANT, Latch, LatchLimits, LatchRule
from detent.core.signals.choice import ModelOutcome, refused

HOUR_MS = 3_600_000
LIMITS = LatchLimits(window_ms=10 * HOUR_MS, failures=3, fallbacks=5, flips=4)


def answered(p_hat_bps: int) -> ModelOutcome:
    return ModelOutcome(p_hat_bps=p_hat_bps, p_hat_raw_bps=p_hat_bps)


def bars(latch: Latch, *outcomes: ModelOutcome, every_ms: int = HOUR_MS) -> list[LatchRule | None]:
    return [
        latch.note({"EURUSD": outcome}, ts_ms=(index + 1) * every_ms)
        for index, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize("reason", sorted(FAILURES))
def test_the_third_failure_within_the_window_latches(reason: Reason) -> None:
    failed = refused(reason)

    assert bars(Latch(LIMITS), failed, answered(6_000), failed, failed) == [
        None,
        None,
        None,
        LatchRule.FAILURES,
    ]


def test_failures_further_apart_than_the_window_do_not_latch() -> None:
    failed = refused(Reason.INFERENCE_ERROR)

    assert set(bars(Latch(LIMITS), *[failed] * 50, every_ms=5 * HOUR_MS)) == {None}


@pytest.mark.parametrize("reason", sorted(MEANT))
def test_what_somebody_meant_is_no_trouble(reason: Reason) -> None:
    assert set(bars(Latch(LIMITS), *[refused(reason)] * 100)) == {None}


def test_fallbacks_of_any_other_kind_have_a_limit_of_their_own() -> None:
    told = bars(Latch(LIMITS), *[refused(Reason.FEATURES_STALE)] * 5)

    assert told == [None] * 4 + [LatchRule.FALLBACKS]


def test_a_probability_that_jumps_from_side_to_side_latches() -> None:
    told = bars(Latch(LIMITS), *[answered(p) for p in (9_000, 1_000, 9_000, 5_000, 1_000, 9_000)])

    assert told == [None] * 5 + [LatchRule.FLIPS]


def test_a_steady_model_is_never_latched_and_a_limit_of_0_is_none() -> None:
    none = LatchLimits(failures=0, fallbacks=0, flips=0)

    assert set(bars(Latch(LIMITS), *[answered(9_000)] * 200)) == {None}
    assert set(bars(Latch(none), *[refused(Reason.INFERENCE_ERROR)] * 200)) == {None}


def test_a_bar_counts_once_however_many_symbols_it_has() -> None:
    many = {f"S{index}": refused(Reason.INFERENCE_ERROR) for index in range(5_000)}

    assert Latch(LIMITS).note(many, ts_ms=HOUR_MS) is None


@given(
    st.lists(st.sampled_from([*sorted(FAILURES), None]), max_size=60),
    st.integers(1, 6),
    st.integers(1, 20),
)
def test_it_latches_exactly_where_a_count_of_the_window_says(
    reasons: list[Reason | None], limit: int, window_bars: int
) -> None:
    """Against a count from scratch on every bar."""
    latch = Latch(LatchLimits(window_ms=window_bars * HOUR_MS, failures=limit))
    counted: list[int] = []
    for index, reason in enumerate(reasons):
        outcome = refused(reason) if reason is not None else answered(6_000)
        rule = latch.note({"EURUSD": outcome}, ts_ms=(index + 1) * HOUR_MS)
        if reason is not None:
            counted.append(index)
        inside = [one for one in counted if one > index - window_bars]
        assert (rule is LatchRule.FAILURES) == (len(inside) >= limit)
        if rule is not None:
            counted.clear()
