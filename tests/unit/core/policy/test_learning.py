"""Proves that a learning book keeps to its own budget, and that exits are never blocked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    START_MS,
    emergency,
    plan_of,
    policy_inputs_of,
    record_of,
    row_of,
)
from tests.trades import LEARNING_BOOK, TAGS, calm, learning_plan

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.decision import DecisionRecord, decision_of
from detent.contracts.errors import InvalidField
from detent.contracts.learning import LEARNING_GATES, LearningBook, LearningBudget, LearningShorts
from detent.contracts.plan import STATE_INITIAL, OrderStyle, TriggerState
from detent.contracts.reasons import Reason
from detent.core.ledger.record import ChainPoint, bind_plan, replay_decision
from detent.core.policy.decide import decide_weight
from detent.core.policy.learning import LearningTerms

FREE = LearningTerms(
    closed=(),
    shorts_allowed=True,
    position_ppm=1_000_000,
    exposure_left_ppm=1_000_000,
    trades_left=12,
    hold_ms=HOUR_MS,
)
GATES = st.lists(st.sampled_from(LEARNING_GATES), unique=True, max_size=3).map(tuple)
WEIGHTS = st.integers(-250_000, 250_000)


def decided(weight_ppm: int = 0, *, entry_bars_ago: int | None = None, **terms: Any) -> Any:
    state = STATE_INITIAL
    if entry_bars_ago is not None:
        entry_ts_ms = START_MS - entry_bars_ago * HOUR_MS
        state = structs.replace(state, entry_ts_ms=entry_ts_ms, trade_set_count=1)
    inputs = policy_inputs_of(
        current_weight_ppm=weight_ppm, state=state, learning=structs.replace(FREE, **terms)
    )
    return decide_weight(inputs)[0]


def learned(*, plan: Any = None, **changes: Any) -> DecisionRecord:
    """Give the record of a learning plan under calm conditions."""
    row = row_of(**({"learning": calm()} | changes))
    return record_of(bound=bind_plan(plan or learning_plan(), PROXY_BINDING), row=row)


@pytest.mark.proves("R352")
@pytest.mark.parametrize(
    ("terms", "reason", "final_ppm"),
    [
        pytest.param({"position_ppm": 2_500}, Reason.LEARNING_POSITION_CAP, 2_500, id="per trade"),
        pytest.param(
            {"exposure_left_ppm": 1_000}, Reason.LEARNING_EXPOSURE_CAP, 1_000, id="exposure"
        ),
        pytest.param({"trades_left": 0}, Reason.LEARNING_TRADE_COUNT, 0, id="count"),
        *(
            pytest.param({"closed": (gate,)}, gate, 0, id=gate.value)
            for gate in (
                Reason.DAILY_LOSS_LIMIT,
                Reason.EXPERIMENT_LOSS_LIMIT,
                Reason.CONSECUTIVE_LOSS_LIMIT,
            )
        ),
    ],
)
def test_budget_that_is_used_up_begins_nothing_new(
    terms: dict[str, Any], reason: Reason, final_ppm: int
) -> None:
    free, found = decided(), decided(**terms)

    assert free.target_weight_final_ppm == 75_000
    assert found.target_weight_final_ppm == final_ppm
    assert reason in found.reasons
    assert reason not in free.reasons


@pytest.mark.proves("R352")
@pytest.mark.parametrize(
    ("terms", "weight_ppm", "final_ppm"),
    [
        pytest.param({"position_ppm": 75_000}, 0, 75_000, id="just the position"),
        pytest.param({"exposure_left_ppm": 75_000}, 0, 75_000, id="just the exposure"),
        pytest.param({"exposure_left_ppm": 0}, 90_000, 90_000, id="no more than is held"),
        pytest.param({"trades_left": 0}, 90_000, 138_000, id="more of what is held"),
    ],
)
def test_what_a_budget_just_allows_is_not_limited(
    terms: dict[str, Any], weight_ppm: int, final_ppm: int
) -> None:
    found = decided(weight_ppm, entry_bars_ago=0, **terms)

    assert found.target_weight_final_ppm == final_ppm
    if terms != {"exposure_left_ppm": 0}:
        assert not [reason for reason in found.reasons if "LEARNING" in reason.name]


@pytest.mark.proves("R352")
@pytest.mark.parametrize("shorts", [True, False])
def test_a_bar_that_wants_nothing_breaks_no_budget(shorts: bool) -> None:
    """Nothing is not short, and begins nothing."""
    inputs = policy_inputs_of(
        signal_strength_bps=0,
        learning=structs.replace(FREE, shorts_allowed=shorts, trades_left=0, position_ppm=0),
    )
    outcome = decide_weight(inputs)[0]

    assert outcome.target_weight_final_ppm == 0
    assert outcome.reasons == (Reason.SIGNAL_BELOW_TAU,)


@pytest.mark.proves("R352")
def test_position_that_was_held_long_enough_is_closed() -> None:
    held = decided(50_000, entry_bars_ago=0)
    over = decided(50_000, entry_bars_ago=1)

    assert held.target_weight_final_ppm > 0
    assert over.target_weight_final_ppm == 0
    assert over.order_style is OrderStyle.TAKER
    assert Reason.LEARNING_HOLD_LIMIT in over.reasons


def test_position_that_is_older_than_its_plan_is_closed() -> None:
    """Otherwise whoever replans within the hour would hold for ever."""
    found = decided(50_000)

    assert found.target_weight_final_ppm == 0
    assert Reason.LEARNING_HOLD_LIMIT in found.reasons


@pytest.mark.proves("R352")
def test_learning_is_never_short_unless_its_budget_says_so() -> None:
    short = {"trigger_state": TriggerState.SHORT_ALLOWED}
    bound = bind_plan(learning_plan(), PROXY_BINDING)
    allowed = learning_plan(
        learning=LearningBook(tags=TAGS, budget=LearningBudget(shorts=LearningShorts.ALLOWED))
    )
    from detent.core.signals.proxy import ProxyAnswer

    down = ProxyAnswer(p_hat_bps=1_000, reason=None)
    row = row_of(learning=calm(), **short)
    forbidden = record_of(bound=bound, row=row, proxy=down)
    permitted = record_of(bound=bind_plan(allowed, PROXY_BINDING), row=row, proxy=down)

    assert forbidden.outcome.target_weight_final_ppm == 0
    assert Reason.LEARNING_SHORT_DISABLED in forbidden.outcome.reasons
    assert permitted.outcome.target_weight_final_ppm == -2_500


@given(WEIGHTS, GATES, st.integers(0, 1), st.integers(0, 300_000), st.booleans())
def test_terms_only_ever_shrink_and_never_keep_a_position_that_would_leave(
    weight_ppm: int, gates: tuple[Reason, ...], trades_left: int, left_ppm: int, shorts: bool
) -> None:
    """With any terms the weight is between 0 and the one without; an exit is an exit."""
    for trigger in TriggerState:
        inputs = policy_inputs_of(current_weight_ppm=weight_ppm, trigger_state=trigger)
        terms = structs.replace(
            FREE,
            closed=gates,
            trades_left=trades_left,
            exposure_left_ppm=left_ppm,
            shorts_allowed=shorts,
        )
        plain = decide_weight(inputs)[0].target_weight_final_ppm
        found = decide_weight(structs.replace(inputs, learning=terms))[0]

        assert 0 <= found.target_weight_final_ppm * (1 if plain >= 0 else -1) <= abs(plain)
        if trigger is TriggerState.INACTIVE and weight_ppm:
            assert found.target_weight_final_ppm == 0
            assert found.order_style is OrderStyle.TAKER
        if gates:
            same_side = found.target_weight_final_ppm * weight_ppm >= 0
            assert same_side
            assert abs(found.target_weight_final_ppm) <= abs(weight_ppm)


def test_emergency_leaves_a_closed_book() -> None:
    inputs = policy_inputs_of(
        current_weight_ppm=50_000,
        exit_intent=emergency(),
        learning=structs.replace(FREE, closed=LEARNING_GATES),
    )
    outcome = decide_weight(inputs)[0]

    assert outcome.target_weight_final_ppm == 0
    assert outcome.order_style is OrderStyle.TAKER


def test_row_without_conditions_begins_nothing_new() -> None:
    record = learned(learning=None)

    assert record.outcome.target_weight_final_ppm == 0
    assert Reason.DATA_GAP in record.outcome.reasons


@pytest.mark.proves("R351", "R352")
@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_whatever_learning_lost_profit_decides_the_same(
    daily_ppm: int, experiment_ppm: int, losses: int, trades: int
) -> None:
    """The profit plan has no place for what learning lost; the learning plan heeds it."""
    used = calm(
        daily_loss_ppm=daily_ppm,
        experiment_loss_ppm=experiment_ppm,
        losses_in_a_row=losses,
        trades_today=trades,
    )
    profit = record_of(bound=bind_plan(plan_of("profit"), PROXY_BINDING), row=row_of())
    same = record_of(bound=bind_plan(plan_of("profit"), PROXY_BINDING), row=row_of(learning=used))
    spent = daily_ppm >= 5_000 or experiment_ppm >= 20_000 or losses >= 3 or trades >= 12

    assert same.outcome == profit.outcome
    assert (learned(learning=used).outcome.target_weight_final_ppm == 0) == spent


@pytest.mark.proves("R250")
def test_tags_go_from_the_plan_through_the_record_to_the_decision() -> None:
    record = learned()

    assert record.learning == TAGS
    assert decision_of(record, record.record_hash).learning == TAGS
    assert record_of().learning is None
    assert "learning" not in str(record_of().canonical)


def test_learning_record_is_replayed_to_the_same_bytes() -> None:
    bound = bind_plan(learning_plan(), PROXY_BINDING)
    record = learned()
    point = ChainPoint(sequence=0, previous_hash=record.previous_hash, state=STATE_INITIAL)

    assert replay_decision(record, bound=bound, point=point).canonical == record.canonical


@pytest.mark.parametrize(
    "make",
    [
        lambda: learning_plan(book="profit"),
        lambda: plan_of("plan", book=LEARNING_BOOK),
    ],
    ids=["learning in a book of profit", "profit in a learning book"],
)
def test_book_holds_what_its_name_says(make: Any) -> None:
    """So no position of the one can ever become a position of the other."""
    with pytest.raises(InvalidField) as refused:
        make()

    assert refused.value.field == "book"
