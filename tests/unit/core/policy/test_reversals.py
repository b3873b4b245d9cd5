"""Proves whose entry counts while a position is turned around: the one that is held."""

from typing import Any

import pytest
from msgspec import structs
from tests.builders import HORIZON, HOUR_MS, START_MS, emergency, policy_config, policy_inputs_of

from detent.contracts.decision import PolicyOutcome
from detent.contracts.plan import HorizonAlpha, OrderStyle, PolicyState, TriggerState
from detent.contracts.reasons import Reason
from detent.core.policy.decide import decide_weight, state_seen

LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED
EXECUTED, SAME_BAR, MIN_HOLD = (
    Reason.EMERGENCY_EXIT_EXECUTED,
    Reason.EMERGENCY_EXIT_VETO_SAME_BAR,
    Reason.EMERGENCY_EXIT_VETO_MIN_HOLD,
)
# Nothing is smoothed, so one bar turns a position around; an emergency waits for four.
CONFIG = policy_config(
    alpha_by_horizon=(HorizonAlpha(horizon_id=HORIZON, alpha_ppm=1_000_000),),
    rebalance_cooldown_bars=0,
    min_hold_bars=4,
)
ENTRY_MS = START_MS - 10 * HOUR_MS
HELD = PolicyState(
    last_target_weight_ppm=200_000,
    last_rebalance_ts_ms=ENTRY_MS,
    entry_ts_ms=ENTRY_MS,
    trade_set_count=3,
)


def decided(bar: int, **asked: Any) -> tuple[PolicyOutcome, PolicyState]:
    defaults = {"trigger_state": SHORT, "signal_strength_bps": 10_000, "config": CONFIG}
    return decide_weight(
        policy_inputs_of(**(defaults | {"ts_ms": START_MS + bar * HOUR_MS} | asked))
    )


def turned(current_ppm: int = 200_000, state: PolicyState = HELD) -> PolicyState:
    """Give what is remembered after the bar that asks for the other side."""
    outcome, after = decided(0, current_weight_ppm=current_ppm, state=state)
    assert outcome.target_weight_final_ppm == -250_000
    assert outcome.order_style is OrderStyle.POST_ONLY
    return after


def test_the_bar_that_asks_for_a_reversal_keeps_the_entry_of_what_is_held() -> None:
    assert turned() == PolicyState(
        last_target_weight_ppm=-250_000,
        last_rebalance_ts_ms=START_MS,
        entry_ts_ms=ENTRY_MS,
        trade_set_count=3,
        reversing_from_ppm=200_000,
    )


@pytest.mark.parametrize(
    ("current_ppm", "entry_ts_ms", "trade_set_count", "reversing_from_ppm"),
    [
        pytest.param(-250_000, START_MS, 4, None, id="filled"),
        pytest.param(-1, START_MS, 4, None, id="the least of it"),
        pytest.param(0, ENTRY_MS, 3, None, id="left and not entered"),
        pytest.param(1, ENTRY_MS, 3, 200_000, id="left in part"),
        pytest.param(200_000, ENTRY_MS, 3, 200_000, id="not filled"),
    ],
)
def test_a_reversal_is_believed_once_it_is_held(
    current_ppm: int, entry_ts_ms: int, trade_set_count: int, reversing_from_ppm: int | None
) -> None:
    seen = state_seen(turned(), current_ppm)

    assert seen.entry_ts_ms == entry_ts_ms
    assert seen.trade_set_count == trade_set_count
    assert seen.reversing_from_ppm == reversing_from_ppm
    assert state_seen(seen, current_ppm) == seen, "what was seen is seen once"


# What is held when the emergency comes, on which bar, and what becomes of it.
EMERGENCIES = [
    pytest.param(-250_000, 0, SAME_BAR, id="turned-on-this-bar"),
    pytest.param(-250_000, 1, MIN_HOLD, id="turned-a-bar-ago"),
    pytest.param(-250_000, 3, MIN_HOLD, id="turned-three-bars-ago"),
    pytest.param(-250_000, 4, EXECUTED, id="turned-four-bars-ago"),
    # Who still holds what is ten bars old gets out of it, whatever was ordered meanwhile.
    pytest.param(200_000, 0, EXECUTED, id="not-filled-on-this-bar"),
    pytest.param(200_000, 1, EXECUTED, id="not-filled-a-bar-later"),
    pytest.param(40_000, 1, EXECUTED, id="filled-in-part"),
]


@pytest.mark.proves("R227", "R228", "R346")
@pytest.mark.parametrize(("current_ppm", "bar", "expected"), EMERGENCIES)
@pytest.mark.parametrize("emergency_only", [False, True])
def test_an_emergency_waits_for_the_entry_of_what_is_held(
    current_ppm: int, bar: int, expected: Reason, *, emergency_only: bool
) -> None:
    outcome, _ = decided(
        bar,
        current_weight_ppm=current_ppm,
        state=turned(),
        exit_intent=emergency(),
        emergency_only=emergency_only,
    )

    assert expected in outcome.reasons
    assert (outcome.target_weight_final_ppm == 0) == (
        expected is EXECUTED or (current_ppm > 0 and emergency_only)
    )


def test_a_young_position_that_could_not_be_turned_keeps_its_own_veto() -> None:
    young = structs.replace(HELD, entry_ts_ms=START_MS - HOUR_MS)
    for bar, expected in ((1, MIN_HOLD), (3, EXECUTED)):
        outcome, _ = decided(
            bar, current_weight_ppm=200_000, state=turned(state=young), exit_intent=emergency()
        )
        assert expected in outcome.reasons


def test_a_fill_that_comes_late_counts_from_the_bar_that_ordered_it() -> None:
    """Nothing is traded for two bars, so the order of the first is the one that was filled."""
    waits = structs.replace(CONFIG, rebalance_cooldown_bars=9)
    state = turned()
    for bar in (1, 2):
        outcome, state = decided(bar, current_weight_ppm=200_000, state=state, config=waits)
        assert outcome.order_style is OrderStyle.NONE
        assert (state.entry_ts_ms, state.reversing_from_ppm) == (ENTRY_MS, 200_000)
    _, state = decided(3, current_weight_ppm=-250_000, state=state, config=waits)
    assert (state.entry_ts_ms, state.reversing_from_ppm) == (START_MS, None)
    assert state.trade_set_count == 4


def test_the_next_rebalance_takes_the_place_of_a_reversal() -> None:
    _, state = decided(1, current_weight_ppm=200_000, trigger_state=LONG, state=turned())
    assert state.last_rebalance_ts_ms == START_MS + HOUR_MS
    assert (state.entry_ts_ms, state.reversing_from_ppm) == (ENTRY_MS, None)
    assert state.trade_set_count == 3


def test_a_position_may_be_turned_on_every_bar() -> None:
    state, held_ppm, sets = turned(), -250_000, []
    for bar, trigger_state in enumerate((LONG, SHORT, LONG), start=1):
        outcome, state = decided(
            bar, current_weight_ppm=held_ppm, trigger_state=trigger_state, state=state
        )
        assert state.reversing_from_ppm == held_ppm
        assert state.entry_ts_ms == START_MS + (bar - 1) * HOUR_MS
        held_ppm = outcome.target_weight_final_ppm
        sets.append(state.trade_set_count)
    assert sets == [4, 5, 6]


@pytest.mark.proves("R353")
def test_sets_of_a_position_older_than_its_plan_are_counted_too() -> None:
    unknown = structs.replace(HELD, entry_ts_ms=None, last_rebalance_ts_ms=None, trade_set_count=0)
    state = turned(state=unknown)
    assert (state.entry_ts_ms, state.trade_set_count) == (None, 1)
    state = state_seen(state, -250_000)
    assert (state.entry_ts_ms, state.trade_set_count) == (START_MS, 2)
