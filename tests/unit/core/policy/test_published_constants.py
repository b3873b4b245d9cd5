"""Holds constants and edges of policy to what was published, each to its last digit."""

from decimal import Decimal
from typing import Any

import pytest
from tests.builders import HOUR_MS, START_MS, emergency, policy_config, policy_inputs_of

from detent.contracts.decision import PolicyOutcome
from detent.contracts.plan import (
    ALPHA_DEFAULT_PPM,
    STATE_INITIAL,
    L2Limits,
    MissingL2,
    OrderStyle,
    PolicyConfig,
    PolicyState,
    RiskLimits,
    TriggerState,
    VolUnit,
)
from detent.contracts.reasons import Reason
from detent.core.policy.decide import decide_weight

LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED


def outcome_of(**changes: Any) -> PolicyOutcome:
    return decide_weight(policy_inputs_of(**changes))[0]


@pytest.mark.proves("R211")
def test_the_defaults_of_a_config_are_those_that_were_published() -> None:
    """FORMULAS 2.1; the hold is that of the emergency exits there (2.2)."""
    config = PolicyConfig(horizon_id="default")

    assert config == PolicyConfig(
        horizon_id="default",
        tau_bps=1_000,
        vol_target_ppm=150_000,
        vol_unit=VolUnit.ANNUALISED,
        w_min_ppm=20_000,
        w_max_ppm=250_000,
        alpha_by_horizon=(),
        epsilon_w_ppm=5_000,
        min_trade_notional=Decimal(10),
        rebalance_cooldown_bars=2,
        min_hold_bars=4,
        symbol_allowlist=(),
    )
    assert config.alpha_ppm == ALPHA_DEFAULT_PPM == 300_000
    assert RiskLimits() == RiskLimits(max_weight_ppm=1_000_000, symbol_caps=())


@pytest.mark.proves("R327", "R328")
def test_the_thresholds_of_the_book_are_those_that_were_published() -> None:
    """ADR-057 and ADR-062 of that system; what a missing book means has no default here."""
    assert L2Limits(missing_l2=MissingL2.ALLOW) == L2Limits(
        missing_l2=MissingL2.ALLOW,
        entry_impact_bps=200,
        exec_impact_bps=50,
        exec_max_age_ms=1_500,
    )
    with pytest.raises(TypeError, match="missing_l2"):
        L2Limits()  # type: ignore[call-arg]


@pytest.mark.proves("R207")
@pytest.mark.parametrize(
    ("strength_bps", "deadbanded_ppm"),
    [(0, 0), (999, 0), (1_000, 0), (1_001, 111), (5_500, 500_000), (10_000, 1_000_000)],
)
def test_the_dead_band_begins_and_ends_where_the_formula_does(
    strength_bps: int, deadbanded_ppm: int
) -> None:
    """(s - tau) / (1 - tau) at tau = .1, without the forerunner's 1e-9: 1 is exactly 1."""
    found = outcome_of(signal_strength_bps=strength_bps)

    assert found.signal_deadbanded_ppm == deadbanded_ppm
    assert (Reason.SIGNAL_BELOW_TAU in found.reasons) == (deadbanded_ppm == 0)


@pytest.mark.proves("R207", "R208")
@pytest.mark.parametrize(
    ("vol_hat_ppm", "scale_ppm"),
    [
        (1, 1_000_000),
        (149_999, 1_000_000),
        (150_000, 1_000_000),
        (150_001, 999_993),
        (300_000, 500_000),
        (450_000, 333_333),
        (150_000_000_000, 1),
    ],
)
def test_volatility_scales_down_and_never_up(vol_hat_ppm: int, scale_ppm: int) -> None:
    assert outcome_of(vol_hat_ppm=vol_hat_ppm).vol_scale_ppm == scale_ppm


@pytest.mark.proves("R207")
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("strength_bps", "raw_ppm", "reason"),
    [
        # tau 0: the strength is the magnitude; w_min .02 and w_max .25 are met exactly.
        (1, 20_000, Reason.WEIGHT_MIN_RAISED),
        (199, 20_000, Reason.WEIGHT_MIN_RAISED),
        (200, 20_000, None),
        (201, 20_100, None),
        (2_499, 249_900, None),
        (2_500, 250_000, None),
        (2_501, 250_000, Reason.WEIGHT_MAX_CAPPED),
        (10_000, 250_000, Reason.WEIGHT_MAX_CAPPED),
    ],
)
def test_the_bounds_of_a_weight_hold_at_their_very_edge(
    strength_bps: int, raw_ppm: int, reason: Reason | None, direction: int
) -> None:
    found = outcome_of(
        trigger_state=LONG if direction > 0 else SHORT,
        signal_strength_bps=strength_bps,
        config=policy_config(tau_bps=0),
    )

    assert found.target_weight_raw_ppm == direction * raw_ppm
    bounds = {Reason.WEIGHT_MIN_RAISED, Reason.WEIGHT_MAX_CAPPED}
    assert bounds.intersection(found.reasons) == ({reason} if reason else set())


@pytest.mark.proves("R207")
def test_bounds_of_zero_hold_nothing_and_equal_bounds_hold_one_weight() -> None:
    for w_min_ppm, w_max_ppm, raw_ppm in ((0, 0, 0), (30_000, 30_000, 30_000)):
        config = policy_config(w_min_ppm=w_min_ppm, w_max_ppm=w_max_ppm)
        assert outcome_of(config=config).target_weight_raw_ppm == raw_ppm
        silent = outcome_of(config=config, signal_strength_bps=0)
        assert silent.target_weight_raw_ppm == 0


@pytest.mark.proves("R216")
@pytest.mark.parametrize(("bars", "trades"), [(0, False), (1, False), (2, True), (3, True)])
def test_the_cooldown_lasts_its_bars_and_not_one_more(bars: int, *, trades: bool) -> None:
    state = PolicyState(
        last_target_weight_ppm=0,
        last_rebalance_ts_ms=START_MS - bars * HOUR_MS,
        entry_ts_ms=None,
        trade_set_count=0,
    )

    found = outcome_of(state=state)

    assert (found.order_style is not OrderStyle.NONE) is trades
    # Before the first rebalance there is nothing to cool down from.
    assert outcome_of(state=STATE_INITIAL).order_style is OrderStyle.POST_ONLY


@pytest.mark.proves("R227", "R346")
def test_an_emergency_needs_no_hold_where_none_is_asked_and_none_where_none_is_known() -> None:
    entered = PolicyState(
        last_target_weight_ppm=100_000,
        last_rebalance_ts_ms=None,
        entry_ts_ms=START_MS - HOUR_MS,
        trade_set_count=1,
    )
    unknown = PolicyState(
        last_target_weight_ppm=100_000,
        last_rebalance_ts_ms=None,
        entry_ts_ms=None,
        trade_set_count=1,
    )

    for state, config in ((entered, policy_config(min_hold_bars=0)), (unknown, policy_config())):
        found = outcome_of(
            current_weight_ppm=100_000, exit_intent=emergency(), state=state, config=config
        )
        assert found.target_weight_final_ppm == 0
        assert Reason.EMERGENCY_EXIT_EXECUTED in found.reasons
