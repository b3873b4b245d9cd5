"""Proves policy by examples that can be worked out on paper."""

import itertools
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, SYMBOL, emergency, policy_config, policy_inputs_of

from detent.contracts.decision import PolicyOutcome
from detent.contracts.errors import InvalidField
from detent.contracts.plan import (
    STATE_INITIAL,
    HorizonAlpha,
    OrderStyle,
    PolicyConfig,
    PolicyState,
    RiskLimits,
    RiskOverrides,
    StandDown,
    StandDownSource,
    SymbolCap,
    TriggerState,
)
from detent.contracts.reasons import Reason
from detent.core.policy.decide import decide_weight

LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED
INACTIVE, EXIT_ONLY = TriggerState.INACTIVE, TriggerState.EXIT_ONLY
HELD = PolicyState(
    last_target_weight_ppm=100_000,
    last_rebalance_ts_ms=None,
    entry_ts_ms=START_MS - 10 * HOUR_MS,
    trade_set_count=1,
)


def outcome_of(**changes: Any) -> PolicyOutcome:
    return decide_weight(policy_inputs_of(**changes))[0]


# State, strength, volatility, current weight; dead-banded, scale, raw, final: the table of
# FORMULAS annex A in our units, where the row that upstream got wrong is right here.
ANNEX_A = [
    (LONG, 6_000, 300_000, 0, 555_556, 500_000, 250_000, 75_000),
    (LONG, 8_000, 150_000, 100_000, 777_778, 1_000_000, 250_000, 145_000),
    (SHORT, 8_000, 150_000, 0, 777_778, 1_000_000, -250_000, -75_000),
    (LONG, 500, 150_000, 100_000, 0, 1_000_000, 0, 70_000),
    (LONG, 1_010, 150_000, 0, 1_111, 1_000_000, 20_000, 6_000),
    (EXIT_ONLY, 9_999, 150_000, 200_000, 999_889, 1_000_000, 0, 140_000),
    (EXIT_ONLY, 0, 150_000, -200_000, 0, 1_000_000, 0, -140_000),
    (LONG, 8_000, 150_000, -200_000, 777_778, 1_000_000, 250_000, 0),
    (INACTIVE, 10_000, 150_000, 200_000, 1_000_000, 1_000_000, 0, 0),
]


@pytest.mark.proves("R189", "R192", "R193", "R207", "R209")
@pytest.mark.parametrize("case", ANNEX_A, ids=str)
def test_the_published_table(case: tuple[TriggerState, int, int, int, int, int, int, int]) -> None:
    state, strength_bps, vol_hat_ppm, current_ppm, deadbanded, scale, raw, final = case

    found = outcome_of(
        trigger_state=state,
        signal_strength_bps=strength_bps,
        vol_hat_ppm=vol_hat_ppm,
        current_weight_ppm=current_ppm,
    )

    assert found.signal_deadbanded_ppm == deadbanded
    assert found.vol_scale_ppm == scale
    assert found.target_weight_raw_ppm == raw
    assert found.target_weight_policy_ppm == final
    assert found.target_weight_final_ppm == final
    assert found.delta_weight_ppm == final - current_ppm


@pytest.mark.proves("R193")
@pytest.mark.parametrize(
    ("alpha_ppm", "upstream_stalls_at_ppm", "after_bars"),
    [(300_000, 16_470, 7), (100_000, 45_750, 14)],
)
def test_an_exit_passes_where_upstream_stalled(
    alpha_ppm: int, upstream_stalls_at_ppm: int, after_bars: int
) -> None:
    """Annex A: .2 is .01647 after 7 bars, or .04575 after 14, and upstream traded no more."""
    config = policy_config(alpha_by_horizon=(HorizonAlpha(horizon_id="h4", alpha_ppm=alpha_ppm),))
    held_ppm, path = 200_000, []
    while held_ppm:
        found = outcome_of(trigger_state=EXIT_ONLY, current_weight_ppm=held_ppm, config=config)
        assert found.order_style is OrderStyle.TAKER
        held_ppm = found.target_weight_final_ppm
        path.append(held_ppm)

    assert path[after_bars - 1] // 10 == upstream_stalls_at_ppm // 10
    assert min(weight for weight in path if weight) < upstream_stalls_at_ppm
    assert path[-1] == 0
    # The last step is the snap: what is worth no more than the band is not held.
    assert path[-2] > config.epsilon_w_ppm


@pytest.mark.proves("R193")
@pytest.mark.parametrize(
    ("equity", "final_ppm"),
    [
        # .7 x 10,000 ppm is 7,000 ppm: worth 10.00, which is not more than the least notional.
        (Decimal("1428.57"), 0),
        (Decimal("1428.58"), 7_000),
    ],
)
def test_an_exit_snaps_where_the_rest_is_worth_no_trade(equity: Decimal, final_ppm: int) -> None:
    found = outcome_of(trigger_state=EXIT_ONLY, current_weight_ppm=10_000, equity=equity)

    assert found.target_weight_final_ppm == final_ppm
    assert (Reason.EXIT_SNAPPED in found.reasons) == (final_ppm == 0)


@pytest.mark.proves("R192")
def test_an_inactive_trigger_flattens_now_whatever_stands_in_the_way() -> None:
    state = structs.replace(STATE_INITIAL, last_rebalance_ts_ms=START_MS)

    found = outcome_of(trigger_state=INACTIVE, current_weight_ppm=1, state=state)

    assert found.target_weight_final_ppm == 0
    assert found.order_style is OrderStyle.TAKER
    assert found.reasons == (Reason.TRIGGER_INACTIVE,)


@pytest.mark.proves("R208")
@pytest.mark.parametrize("current_ppm", [0, 100_000, -100_000])
def test_without_a_volatility_nothing_is_added(current_ppm: int) -> None:
    for vol_hat_ppm in (None, 0, -1):
        found = outcome_of(vol_hat_ppm=vol_hat_ppm, current_weight_ppm=current_ppm)

        assert found.target_weight_final_ppm == max(0, current_ppm)
        assert Reason.VOL_INVALID in found.reasons


def test_without_a_volatility_a_weak_signal_may_still_shrink() -> None:
    found = outcome_of(vol_hat_ppm=None, current_weight_ppm=100_000, signal_strength_bps=100)

    assert found.target_weight_final_ppm == 70_000


def test_without_a_signal_the_weight_is_held_within_its_limits_and_not_decayed() -> None:
    for current_ppm, final_ppm in ((100_000, 100_000), (400_000, 250_000), (-100_000, 0)):
        found = outcome_of(signal_strength_bps=None, current_weight_ppm=current_ppm)

        assert found.target_weight_final_ppm == final_ppm
        assert Reason.HOLD_OR_REDUCE in found.reasons


def test_a_trigger_that_the_plan_does_not_know_permits_nothing_new() -> None:
    found = outcome_of(triggers_known=False, current_weight_ppm=50_000)

    assert found.target_weight_final_ppm == 50_000
    assert found.reasons[-2:] == (Reason.TRIGGER_UNKNOWN, Reason.HOLD_OR_REDUCE)
    assert found.order_style is OrderStyle.NONE


@pytest.mark.proves("R209", "R222")
def test_every_override_that_fires_is_listed_and_the_strongest_decides() -> None:
    stand_down = StandDown(
        until_ts_ms=START_MS + 1, reason="news", source=StandDownSource.RISK_ENGINE
    )

    found = outcome_of(
        current_weight_ppm=240_000,
        exit_intent=emergency(),
        overrides=RiskOverrides(max_weight_ppm=10_000, stand_down=stand_down),
        limits=RiskLimits(
            max_weight_ppm=60_000,
            symbol_caps=(SymbolCap(symbol=SYMBOL, max_weight_ppm=80_000),),
        ),
        state=HELD,
    )

    assert found.reasons == (
        Reason.WEIGHT_MAX_CAPPED,
        Reason.RISK_CAP_SYMBOL,
        Reason.RISK_CAP_PLAN,
        Reason.RISK_CAP_OVERRIDE,
        Reason.STAND_DOWN,
        Reason.EMERGENCY_EXIT_EXECUTED,
    )
    assert found.precedence_tier == 1
    assert (found.target_weight_capped_ppm, found.target_weight_final_ppm) == (10_000, 0)


@pytest.mark.proves("R220")
@pytest.mark.parametrize("source", list(StandDownSource))
def test_a_stand_down_ends_at_its_instant_and_not_before(source: StandDownSource) -> None:
    for until_ts_ms, stands_down in ((START_MS + 1, True), (START_MS, False)):
        stand_down = StandDown(until_ts_ms=until_ts_ms, reason="news", source=source)

        found = outcome_of(overrides=RiskOverrides(stand_down=stand_down))

        assert (Reason.STAND_DOWN in found.reasons) == stands_down
        assert (found.target_weight_final_ppm == 0) == stands_down


@pytest.mark.proves("R220", "R216")
def test_a_stand_down_waits_for_no_cooldown() -> None:
    state = structs.replace(HELD, last_rebalance_ts_ms=START_MS)
    stand_down = StandDown(until_ts_ms=START_MS + 1, reason="news", source=StandDownSource.OPS)

    found = outcome_of(
        current_weight_ppm=1_000, overrides=RiskOverrides(stand_down=stand_down), state=state
    )

    assert (found.target_weight_final_ppm, found.order_style) == (0, OrderStyle.TAKER)


@pytest.mark.proves("R224")
@pytest.mark.parametrize("current_ppm", [0, 4_000, -150_000])
def test_a_symbol_that_is_not_on_the_list_holds_nothing(current_ppm: int) -> None:
    found = outcome_of(
        current_weight_ppm=current_ppm, config=policy_config(symbol_allowlist=("OTHER",))
    )

    assert found.target_weight_final_ppm == 0
    assert Reason.SYMBOL_NOT_ALLOWED in found.reasons
    assert found.order_style is (OrderStyle.TAKER if current_ppm else OrderStyle.NONE)


@pytest.mark.proves("R225", "R227", "R228", "R229", "R346", "R347")
@pytest.mark.parametrize(
    ("held_bars", "rule", "reason"),
    [
        (0, "stop", Reason.EMERGENCY_EXIT_VETO_SAME_BAR),
        (1, "stop", Reason.EMERGENCY_EXIT_VETO_MIN_HOLD),
        (3, "stop", Reason.EMERGENCY_EXIT_VETO_MIN_HOLD),
        (4, "stop", Reason.EMERGENCY_EXIT_EXECUTED),
        (9, "", Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE),
        (9, "   ", Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE),
    ],
)
def test_an_emergency_waits_for_its_entry_to_age_and_needs_a_rule(
    held_bars: int, rule: str, reason: Reason
) -> None:
    state = structs.replace(HELD, entry_ts_ms=START_MS - held_bars * HOUR_MS)

    found = outcome_of(current_weight_ppm=100_000, exit_intent=emergency(rule), state=state)

    assert reason in found.reasons
    executed = reason is Reason.EMERGENCY_EXIT_EXECUTED
    assert (found.target_weight_final_ppm == 0) == executed
    assert found.target_weight_final_ppm <= 100_000, "who asks to get out does not get more"
    assert (found.precedence_tier == 1) == executed


@pytest.mark.proves("R228", "R229")
def test_the_reasons_of_an_emergency_are_spelled_as_the_seed_spells_them() -> None:
    assert [str(reason) for reason in Reason if reason.name.startswith("EMERGENCY")] == [
        "emergency_exit_executed",
        "emergency_exit_veto_same_bar",
        "emergency_exit_veto_min_hold",
        "emergency_exit_missing_exit_rule",
        "emergency_exit_preempts_entry",
    ]


@pytest.mark.proves("R230")
@pytest.mark.parametrize(
    ("cooldown_bars", "min_hold_bars", "recommended"), [(0, 0, 1), (2, 4, 4), (6, 4, 6)]
)
def test_an_emergency_recommends_how_long_to_stay_out(
    cooldown_bars: int, min_hold_bars: int, recommended: int
) -> None:
    config = policy_config(rebalance_cooldown_bars=cooldown_bars, min_hold_bars=min_hold_bars)

    for intent in (emergency(), emergency("")):
        found = outcome_of(current_weight_ppm=1_000, exit_intent=intent, config=config)
        assert found.cooldown_recommendation_bars == recommended
    assert outcome_of(config=config).cooldown_recommendation_bars is None


@pytest.mark.proves("R225")
def test_an_emergency_below_the_band_is_executed_all_the_same() -> None:
    """Upstream ignored it: a small position stayed through every emergency."""
    found = outcome_of(
        current_weight_ppm=1_000, exit_intent=emergency(), equity=Decimal(1), state=HELD
    )

    assert (found.target_weight_final_ppm, found.order_style) == (0, OrderStyle.TAKER)


@pytest.mark.proves("R214")
@pytest.mark.parametrize(
    ("min_notional", "style"), [("75.00", OrderStyle.POST_ONLY), ("75.01", OrderStyle.NONE)]
)
def test_a_change_worth_less_than_the_least_notional_is_not_traded(
    min_notional: str, style: OrderStyle
) -> None:
    """.075 of 1,000 is 75: exactly the least notional is worth trading."""
    found = outcome_of(
        equity=Decimal(1_000), config=policy_config(min_trade_notional=Decimal(min_notional))
    )

    assert found.delta_weight_ppm == 75_000
    assert found.order_style is style
    assert (Reason.MIN_NOTIONAL in found.reasons) == (style is OrderStyle.NONE)


@pytest.mark.proves("R215")
@pytest.mark.parametrize(
    ("epsilon_ppm", "style"), [(74_999, OrderStyle.POST_ONLY), (75_000, OrderStyle.NONE)]
)
def test_a_change_inside_the_band_is_not_traded(epsilon_ppm: int, style: OrderStyle) -> None:
    found = outcome_of(config=policy_config(epsilon_w_ppm=epsilon_ppm))

    assert found.delta_weight_ppm == 75_000
    assert found.order_style is style


@pytest.mark.proves("R216")
def test_flip_flopping_trades_once_per_cooldown() -> None:
    config, state, held_ppm, traded = policy_config(), STATE_INITIAL, 0, []
    for bar in range(30):
        inputs = policy_inputs_of(
            ts_ms=START_MS + bar * HOUR_MS,
            signal_strength_bps=10_000 if bar % 2 else 0,
            current_weight_ppm=held_ppm,
            config=config,
            state=state,
        )
        found, state = decide_weight(inputs)
        if found.order_style is not OrderStyle.NONE:
            held_ppm = found.target_weight_final_ppm
            traded.append(bar)

    gaps = [later - earlier for earlier, later in itertools.pairwise(traded)]
    assert traded
    assert min(gaps) >= config.rebalance_cooldown_bars


@pytest.mark.proves("R216")
def test_a_tightened_limit_does_not_wait_for_the_cooldown() -> None:
    state = structs.replace(HELD, last_rebalance_ts_ms=START_MS - HOUR_MS)
    tighter = RiskOverrides(max_weight_ppm=50_000)

    found = outcome_of(current_weight_ppm=200_000, overrides=tighter, state=state)

    assert (found.target_weight_final_ppm, found.order_style) == (50_000, OrderStyle.POST_ONLY)


@pytest.mark.proves("R216")
def test_a_reversal_waits_for_the_cooldown_though_a_limit_cuts_it() -> None:
    """It is as large as before on the other side: nothing shrinks."""
    state = structs.replace(HELD, last_rebalance_ts_ms=START_MS - HOUR_MS)
    alphas = (HorizonAlpha(horizon_id="h4", alpha_ppm=1_000_000),)

    found = outcome_of(
        current_weight_ppm=-50_000,
        overrides=RiskOverrides(max_weight_ppm=50_000),
        config=policy_config(alpha_by_horizon=alphas),
        state=state,
    )

    assert (found.target_weight_final_ppm, found.order_style) == (50_000, OrderStyle.NONE)
    assert found.reasons[-2:] == (Reason.RISK_CAP_OVERRIDE, Reason.REBALANCE_COOLDOWN)


@pytest.mark.proves("R217")
def test_only_the_way_out_may_take() -> None:
    assert outcome_of().order_style is OrderStyle.POST_ONLY
    for changes in (
        {"trigger_state": EXIT_ONLY},
        {"trigger_state": INACTIVE},
        {"exit_intent": emergency()},
    ):
        found = outcome_of(current_weight_ppm=200_000, state=HELD, **changes)
        assert found.order_style is OrderStyle.TAKER


@pytest.mark.proves("R211")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tau_bps", -1),
        ("tau_bps", 10_000),
        ("vol_target_ppm", 0),
        ("w_min_ppm", -1),
        ("w_min_ppm", 250_001),
        ("w_max_ppm", 1_000_001),
        ("epsilon_w_ppm", -1),
        ("min_trade_notional", Decimal(-1)),
        ("min_trade_notional", Decimal("NaN")),
        ("min_trade_notional", 10.0),
        ("rebalance_cooldown_bars", -1),
        ("min_hold_bars", -1),
        ("tau_bps", True),
        ("tau_bps", 0.1),
    ],
)
def test_a_config_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidField, match=field.removesuffix("_ppm")):
        PolicyConfig(horizon_id="h", **{field: value})  # type: ignore[arg-type]


@pytest.mark.proves("R211")
def test_smoothing_is_the_horizons_own_and_has_a_default() -> None:
    alphas = (
        HorizonAlpha(horizon_id="scalper", alpha_ppm=500_000),
        HorizonAlpha(horizon_id="swing", alpha_ppm=100_000),
    )
    for horizon_id, final_ppm in (("scalper", 125_000), ("swing", 25_000), ("h4", 75_000)):
        config = policy_config(horizon_id=horizon_id, alpha_by_horizon=alphas)
        assert outcome_of(config=config).target_weight_final_ppm == final_ppm


def test_a_trade_set_lasts_from_flat_to_flat() -> None:
    state, counts = STATE_INITIAL, []
    # Current weight as the strategist holds it, and whether a direction is allowed.
    for bar, (held_ppm, trigger_state) in enumerate(
        [
            (0, LONG),
            (75_000, LONG),
            (127_500, INACTIVE),
            (0, INACTIVE),
            (0, SHORT),
            (-75_000, INACTIVE),
            (0, INACTIVE),
        ]
    ):
        inputs = policy_inputs_of(
            ts_ms=START_MS + 5 * bar * HOUR_MS,
            trigger_state=trigger_state,
            current_weight_ppm=held_ppm,
            state=state,
        )
        _, state = decide_weight(inputs)
        counts.append(state.trade_set_count)

    assert counts == [1, 1, 1, 1, 2, 2, 2]
    assert state.entry_ts_ms is None
