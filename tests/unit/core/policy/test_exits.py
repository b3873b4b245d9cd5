"""Proves the ladder of exits by tables: what beats what, and that nothing is done twice."""

import itertools
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, emergency, policy_config, policy_inputs_of, row_of

from detent.contracts.decision import PolicyOutcome
from detent.contracts.errors import InvalidField
from detent.contracts.plan import (
    STATE_INITIAL,
    ExitIntent,
    ExitKind,
    OrderStyle,
    PolicyState,
    RiskOverrides,
    StandDown,
    StandDownSource,
    TriggerState,
)
from detent.contracts.reasons import Reason
from detent.core.policy.decide import decide_weight
from detent.core.policy.stand_down import stand_down_in_force

LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED
INACTIVE, EXIT_ONLY = TriggerState.INACTIVE, TriggerState.EXIT_ONLY
OFF = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")
HALF = ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=500_000)
THIRD = ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=333_333)
YOUNG = PolicyState(
    last_target_weight_ppm=200_000,
    last_rebalance_ts_ms=START_MS - HOUR_MS,
    entry_ts_ms=START_MS - HOUR_MS,
    trade_set_count=1,
)
OLD = structs.replace(YOUNG, entry_ts_ms=START_MS - 10 * HOUR_MS)


def decided(*intents: ExitIntent, **changes: Any) -> tuple[PolicyOutcome, PolicyState]:
    first, *further = (*intents, None)
    asked = {"exit_intent": first, "further_exit_intents": tuple(further[:-1])}
    # .3250 is .25 after the dead band: as much as is allowed, and not cut.
    defaults = {"state": OLD, "signal_strength_bps": 3_250}
    return decide_weight(policy_inputs_of(**(defaults | asked | changes)))


# Who asks, how old the entry is; what is held after 200,000 under a full long signal, the tier.
EXECUTED, TOO_YOUNG = Reason.EMERGENCY_EXIT_EXECUTED, Reason.EMERGENCY_EXIT_VETO_MIN_HOLD
LOST = Reason.EMERGENCY_EXIT_PREEMPTS_ENTRY
REDUCE, RISK_OFF = Reason.RISK_REDUCE, Reason.RISK_OFF
LADDER = [
    ((), OLD, 215_000, 4, ()),
    ((HALF,), OLD, 100_000, 3, (REDUCE,)),
    ((OFF,), OLD, 0, 3, (RISK_OFF,)),
    ((emergency(),), OLD, 0, 1, (EXECUTED, LOST)),
    # No doubling up: the largest share counts once, and is not compounded.
    ((THIRD, HALF), OLD, 100_000, 3, (REDUCE,)),
    ((HALF, HALF), OLD, 100_000, 3, (REDUCE,)),
    ((OFF, OFF), OLD, 0, 3, (RISK_OFF,)),
    ((emergency(), emergency()), OLD, 0, 1, (EXECUTED, LOST)),
    # The stronger decides, and the weaker is on record.
    ((HALF, OFF), OLD, 0, 3, (REDUCE, RISK_OFF)),
    ((HALF, emergency()), OLD, 0, 1, (REDUCE, EXECUTED)),
    ((OFF, emergency()), OLD, 0, 1, (RISK_OFF, EXECUTED)),
    ((HALF, OFF, emergency()), OLD, 0, 1, (REDUCE, RISK_OFF, EXECUTED)),
    # A veto delays the emergency and nothing else.
    ((emergency(),), YOUNG, 200_000, 4, (TOO_YOUNG, LOST)),
    ((HALF, emergency()), YOUNG, 100_000, 3, (REDUCE, TOO_YOUNG)),
    ((OFF, emergency()), YOUNG, 0, 3, (RISK_OFF, TOO_YOUNG)),
    # An emergency that names no rule costs the one that does nothing.
    ((emergency(" "), emergency()), OLD, 0, 1, (EXECUTED, LOST)),
]


@pytest.mark.proves("R349")
@pytest.mark.parametrize(("intents", "state", "final_ppm", "tier", "reasons"), LADDER, ids=str)
def test_exits_of_one_bar_have_one_order_and_do_not_add_up(
    intents: tuple[ExitIntent, ...],
    state: PolicyState,
    final_ppm: int,
    tier: int,
    reasons: tuple[Reason, ...],
) -> None:
    for asked in itertools.permutations(intents):
        found, _ = decided(*asked, current_weight_ppm=200_000, state=state)

        assert found.target_weight_final_ppm == final_ppm
        assert found.precedence_tier == tier
        assert found.reasons[-len(reasons) :] == reasons if reasons else True
        assert set(found.reasons) - set(reasons) <= {Reason.REBALANCE_COOLDOWN}


@pytest.mark.proves("R349")
def test_a_reduction_and_a_decay_give_the_smaller_of_both_and_not_the_product() -> None:
    """.200 decays to .140; half is .100, a third given up is .133."""
    for intent, final_ppm in ((HALF, 100_000), (THIRD, 133_333)):
        found, _ = decided(intent, trigger_state=EXIT_ONLY, current_weight_ppm=200_000)
        assert found.target_weight_final_ppm == final_ppm

    small = structs.replace(HALF, reduce_ppm=10_000)
    found, _ = decided(small, trigger_state=EXIT_ONLY, current_weight_ppm=200_000)
    assert found.target_weight_final_ppm == 140_000


@pytest.mark.proves("R349")
def test_a_reduction_takes_at_once_and_does_not_leave_dust() -> None:
    cooling = structs.replace(OLD, last_rebalance_ts_ms=START_MS)
    found, _ = decided(HALF, current_weight_ppm=20_000, state=cooling)
    assert (found.target_weight_final_ppm, found.order_style) == (10_000, OrderStyle.TAKER)

    found, _ = decided(HALF, current_weight_ppm=10_000)
    assert found.target_weight_final_ppm == 0, "what is left is no more than the band"
    assert Reason.EXIT_SNAPPED in found.reasons
    found, _ = decided(HALF, current_weight_ppm=20_000, equity=Decimal(1_000))
    assert found.target_weight_final_ppm == 0, "ten in money is not worth holding"


@pytest.mark.proves("R348")
@pytest.mark.parametrize("rule", ["stop", "", "  "])
@pytest.mark.parametrize(("trigger_state", "held_ppm"), [(LONG, 0), (SHORT, 0), (SHORT, 40_000)])
def test_an_emergency_beats_the_surest_entry_and_the_entry_is_on_record(
    rule: str, trigger_state: TriggerState, held_ppm: int
) -> None:
    free = structs.replace(OLD, last_rebalance_ts_ms=None)
    surest: dict[str, Any] = {
        "trigger_state": trigger_state,
        "signal_strength_bps": 10_000,
        "state": free,
    }

    entered, _ = decided(current_weight_ppm=held_ppm, **surest)
    found, _ = decided(emergency(rule), current_weight_ppm=held_ppm, **surest)

    assert entered.target_weight_final_ppm != 0
    assert found.target_weight_policy_ppm == entered.target_weight_policy_ppm
    assert found.target_weight_final_ppm == 0
    assert found.reasons[-2:] == (
        EXECUTED if rule.strip() else Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE,
        LOST,
    )


@pytest.mark.proves("R348")
def test_an_emergency_without_an_entry_beside_it_lost_none() -> None:
    for changes in (
        {"trigger_state": EXIT_ONLY, "current_weight_ppm": 200_000},
        {"trigger_state": INACTIVE, "current_weight_ppm": 0},
        {"signal_strength_bps": 0, "current_weight_ppm": 200_000},
        {"emergency_only": True, "current_weight_ppm": 200_000},
    ):
        found, _ = decided(emergency(), **changes)
        assert found.reasons[-1] is EXECUTED


@pytest.mark.proves("R209", "R222")
@pytest.mark.parametrize(
    ("trigger_state", "held_ppm", "final_ppm", "reasons"),
    [
        (INACTIVE, 200_000, 0, (Reason.TRIGGER_INACTIVE, TOO_YOUNG)),
        (SHORT, 200_000, 0, (Reason.HOLD_OR_REDUCE, TOO_YOUNG)),
        (LONG, 400_000, 250_000, (Reason.HOLD_OR_REDUCE, TOO_YOUNG)),
        (LONG, 200_000, 200_000, (TOO_YOUNG,)),
        (EXIT_ONLY, 200_000, 200_000, (TOO_YOUNG,)),
    ],
)
def test_a_vetoed_emergency_between_bars_says_what_took_weight_away(
    trigger_state: TriggerState, held_ppm: int, final_ppm: int, reasons: tuple[Reason, ...]
) -> None:
    """A veto alone beside a weight that shrinks would read as a veto that was not obeyed."""
    free = structs.replace(YOUNG, last_rebalance_ts_ms=None)
    found, _ = decided(
        emergency(),
        trigger_state=trigger_state,
        current_weight_ppm=held_ppm,
        emergency_only=True,
        state=free,
    )

    assert found.target_weight_final_ppm == final_ppm
    assert found.reasons == reasons


@pytest.mark.parametrize("trigger_state", [INACTIVE, SHORT, LONG, EXIT_ONLY])
def test_an_emergency_between_bars_that_is_executed_needs_no_other_reason(
    trigger_state: TriggerState,
) -> None:
    found, _ = decided(
        emergency(),
        trigger_state=trigger_state,
        current_weight_ppm=200_000,
        emergency_only=True,
        state=OLD,
    )

    assert (found.target_weight_final_ppm, found.reasons) == (0, (EXECUTED,))


@pytest.mark.proves("R225")
def test_an_emergency_passes_every_hindrance_and_records_what_was_wanted() -> None:
    config = policy_config(symbol_allowlist=("OTHER",), epsilon_w_ppm=1_000_000)
    cooling = structs.replace(OLD, last_rebalance_ts_ms=START_MS)

    found, _ = decided(emergency(), current_weight_ppm=1, config=config, state=cooling)

    assert (found.target_weight_raw_ppm, found.target_weight_policy_ppm) == (250_000, 75_001)
    assert (found.target_weight_final_ppm, found.order_style) == (0, OrderStyle.TAKER)
    assert found.reasons == (Reason.SYMBOL_NOT_ALLOWED, EXECUTED)


@pytest.mark.proves("R349")
def test_risk_off_keeps_new_exposure_out_until_the_permission_is_given_anew() -> None:
    state, held_ppm, path = STATE_INITIAL, 0, []
    steps = [
        (LONG, None, 75_000),
        (LONG, OFF, 0),
        # The permission that stood goes on standing, and lets nothing in.
        (LONG, None, 0),
        (SHORT, None, 0),
        # It is withdrawn; what is given after that is new.
        (INACTIVE, None, 0),
        (SHORT, None, -75_000),
    ]
    for bar, (trigger_state, intent, expected_ppm) in enumerate(steps):
        inputs = policy_inputs_of(
            ts_ms=START_MS + 3 * bar * HOUR_MS,
            trigger_state=trigger_state,
            exit_intent=intent,
            current_weight_ppm=held_ppm,
            state=state,
        )
        found, state = decide_weight(inputs)
        held_ppm = found.target_weight_final_ppm
        path.append((held_ppm, state.latched_ts_ms is not None))
        assert held_ppm == expected_ppm
        assert (Reason.RISK_OFF_LATCHED in found.reasons) == (bar in (2, 3))

    assert [latched for _, latched in path] == [False, True, True, True, False, False]


@pytest.mark.proves("R349")
def test_an_emergency_between_bars_does_not_release_the_latch() -> None:
    latched = structs.replace(OLD, latched_ts_ms=START_MS - HOUR_MS)

    for emergency_only, released in ((True, False), (False, True)):
        _, state = decided(
            emergency(), trigger_state=INACTIVE, state=latched, emergency_only=emergency_only
        )
        assert (state.latched_ts_ms is None) == released


def test_a_latch_lets_what_is_held_stay_and_shrink() -> None:
    latched = structs.replace(OLD, latched_ts_ms=START_MS - HOUR_MS)

    for strength_bps, final_ppm in ((10_000, 100_000), (0, 70_000)):
        found, _ = decided(
            current_weight_ppm=100_000, signal_strength_bps=strength_bps, state=latched
        )
        assert found.target_weight_final_ppm == final_ppm


@pytest.mark.parametrize(
    ("kind", "share_ppm", "expected"),
    [
        (ExitKind.RISK_REDUCE, None, "the share that is given up"),
        (ExitKind.RISK_REDUCE, 0, "an integer in [1, 999999]"),
        (ExitKind.RISK_REDUCE, 1_000_000, "an integer in [1, 999999]"),
        (ExitKind.RISK_OFF, 500_000, "no share for risk_off"),
        (ExitKind.EMERGENCY, 1, "no share for emergency"),
    ],
)
def test_a_share_stands_where_it_belongs(
    kind: ExitKind, share_ppm: int | None, expected: str
) -> None:
    """A reduction of everything is an exit, and has a name of its own."""
    with pytest.raises(InvalidField) as refused:
        ExitIntent(kind=kind, exit_rule_id="r", reduce_ppm=share_ppm)

    assert (refused.value.field, refused.value.expected) == ("reduce_ppm", expected)


def test_further_exits_need_a_first_one_and_have_a_bound() -> None:
    with pytest.raises(InvalidField, match="exit_intent"):
        row_of(further_exit_intents=(OFF,))
    with pytest.raises(InvalidField, match="1 to 16 items"):
        row_of(exit_intent=OFF, further_exit_intents=(OFF,) * 17)


# Stand-down


def standing(until_ts_ms: int, source: StandDownSource = StandDownSource.OPS) -> StandDown:
    return StandDown(until_ts_ms=until_ts_ms, reason="news", source=source)


@pytest.mark.proves("R220")
def test_the_stand_down_that_ends_last_is_in_force_and_ends_by_itself() -> None:
    judge = standing(START_MS + 10, StandDownSource.JUDGE)
    ops = standing(START_MS + 20)
    engine = standing(START_MS + 20, StandDownSource.RISK_ENGINE)
    known = (judge, None, ops, engine)

    for ts_ms, expected in ((START_MS, ops), (START_MS + 19, ops), (START_MS + 20, None)):
        assert stand_down_in_force(known, ts_ms) == expected
    assert stand_down_in_force((None,), START_MS) is None
    assert stand_down_in_force((judge,), START_MS + 9) == judge


@pytest.mark.proves("R222")
@pytest.mark.parametrize(
    ("service_ms", "row_ms", "stands"), [(1, 0, True), (0, 1, True), (0, 0, False), (1, 1, True)]
)
def test_a_stand_down_counts_wherever_it_comes_from(
    service_ms: int, row_ms: int, stands: bool
) -> None:
    found, _ = decided(
        current_weight_ppm=200_000,
        stand_down=standing(START_MS + service_ms),
        overrides=RiskOverrides(stand_down=standing(START_MS + row_ms)),
    )

    assert found.reasons.count(Reason.STAND_DOWN) == stands
    assert (found.target_weight_final_ppm == 0) == stands
    assert (found.precedence_tier == 2) == stands


@pytest.mark.proves("R222", "R225")
def test_precedence_is_emergency_then_stand_down_then_caps_then_policy() -> None:
    """All eight combinations: the strongest that is there names the tier."""
    for asked in itertools.product((False, True), repeat=3):
        gets_out, stands, caps = asked
        found, _ = decided(
            *([emergency()] if gets_out else []),
            current_weight_ppm=200_000,
            stand_down=standing(START_MS + 1) if stands else None,
            overrides=RiskOverrides(max_weight_ppm=60_000) if caps else None,
        )
        expected = next((tier for tier, there in enumerate(asked, 1) if there), 4)
        assert found.precedence_tier == expected
        assert (EXECUTED in found.reasons) == gets_out
        assert (Reason.STAND_DOWN in found.reasons) == stands
        assert (Reason.RISK_CAP_OVERRIDE in found.reasons) == caps
        assert found.target_weight_capped_ppm == (60_000 if caps else 215_000)


@pytest.mark.proves("R222")
@pytest.mark.parametrize("trigger_state", list(TriggerState))
def test_overrides_are_looked_at_whatever_the_trigger_says(trigger_state: TriggerState) -> None:
    """Upstream returned early from an inactive bar: who stood it down left no trace."""
    found, _ = decided(
        emergency(),
        trigger_state=trigger_state,
        current_weight_ppm=200_000,
        stand_down=standing(START_MS + 1),
        overrides=RiskOverrides(max_weight_ppm=60_000),
    )

    assert {Reason.STAND_DOWN, EXECUTED} <= set(found.reasons)
    assert (found.target_weight_final_ppm, found.precedence_tier) == (0, 1)
    assert found.order_style is OrderStyle.TAKER
