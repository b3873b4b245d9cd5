"""Proves that policy on arrays is the scalar core, field by field."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from tests.builders import HORIZON, HOUR_MS, START_MS

from detent.contracts.decision import PolicyOutcome
from detent.contracts.plan import (
    STATE_INITIAL,
    HorizonAlpha,
    OrderStyle,
    PolicyConfig,
    PolicyState,
    RiskLimits,
    SymbolCap,
)
from detent.contracts.units import divide_half_even
from detent.core.policy.column_outcomes import (
    OutcomeColumns,
    StateColumns,
    Walked,
    before_each,
    outcomes_of,
    states_after,
    states_initial,
)
from detent.core.policy.column_steps import Walk, moves_of
from detent.core.policy.columns import (
    ABSENT,
    TRIGGER_STATES,
    VOL_MAX_PPM,
    Asked,
    Terms,
    WantedColumns,
    column_terms,
    direction_of,
    divide_columns,
    reasons_of,
    share_columns,
    wanted_columns,
)
from detent.core.policy.decide import decide_weight
from detent.core.policy.inputs import PolicyInputs
from detent.core.signals.strength import signal_strength_bps, strength_columns

BARS, SYMBOLS = 40, tuple(f"S{index}" for index in range(25))
SHAPE = (BARS, len(SYMBOLS))
QUICK_CASES, LONG_CASES = 100_000, 1_000_000
STYLES = (OrderStyle.NONE, OrderStyle.TAKER, OrderStyle.POST_ONLY)
Random = np.random.Generator


def some_config(random: Random) -> PolicyConfig:
    w_max_ppm = int(random.choice([0, 1, 250_000, 400_001, 1_000_000]))
    return PolicyConfig(
        horizon_id=HORIZON,
        tau_bps=int(random.choice([0, 1_000, 2_500, 9_999])),
        vol_target_ppm=int(random.choice([1, 150_000, 999_983, VOL_MAX_PPM + 1])),
        w_min_ppm=int(random.choice([0, min(20_000, w_max_ppm), w_max_ppm])),
        w_max_ppm=w_max_ppm,
        alpha_by_horizon=(
            HorizonAlpha(
                horizon_id=HORIZON,
                alpha_ppm=int(random.choice([1, 300_000, 500_000, 999_999, 1_000_000])),
            ),
        ),
        epsilon_w_ppm=int(random.choice([0, 1, 5_000, 100_000])),
        min_trade_notional=Decimal(str(random.choice(["0", "10", "0.333", "25000.005", "1e9"]))),
        rebalance_cooldown_bars=int(random.choice([0, 1, 2, 7, 2**31 - 1])),
        min_hold_bars=0,
        symbol_allowlist=SYMBOLS[: int(random.choice([0, 0, 20]))],
    )


def some_limits(random: Random) -> RiskLimits:
    capped = random.choice(len(SYMBOLS), size=int(random.integers(0, 10)), replace=False)
    return RiskLimits(
        max_weight_ppm=int(random.choice([1_000_000, 200_000, 0])),
        symbol_caps=tuple(
            SymbolCap(symbol=SYMBOLS[one], max_weight_ppm=int(random.integers(0, 300_000)))
            for one in capped
        ),
    )


def some_rows(random: Random) -> tuple[Asked, Any, list[int]]:
    """Give what is asked, what is held and equity; values lie on edges often."""
    trigger = random.choice([1, -1, 0, 2], p=[0.4, 0.3, 0.15, 0.15], size=SHAPE).astype(np.int8)
    p_hat_bps = random.choice([0, 5_000, 5_500, 7_500, 10_000, -7], size=SHAPE)
    drawn = random.integers(0, 10_001, size=SHAPE)
    asked = Asked(
        trigger=trigger,
        known=random.random(SHAPE) > 0.1,
        strength_bps=strength_columns(
            np.where(p_hat_bps < 0, drawn, p_hat_bps), direction_of(trigger)
        ),
        usable=random.random(SHAPE) > 0.1,
        vol_hat_ppm=np.where(
            random.random(SHAPE) < 0.5,
            random.choice([-1, 0, 1, 150_000, 10**6, VOL_MAX_PPM, VOL_MAX_PPM + 7, 10**18], SHAPE),
            random.integers(1, 600_000, size=SHAPE),
        ),
    )
    edges = random.choice([0, 1, -1, 2, 3, 250_000, -250_000, 10**8, -(10**8)], size=SHAPE)
    held = np.where(random.random(SHAPE) < 0.4, edges, random.integers(-600_000, 600_000, SHAPE))
    equity = [int(random.choice([1, 99, 10**8, 123_456_789_01, 10**15])) for _ in range(BARS)]
    return asked, held.astype(np.float64), equity


def on_arrays(
    terms: Terms, asked: Asked, held: Any, equity: list[int], present: Any
) -> tuple[WantedColumns, OutcomeColumns, StateColumns, StateColumns]:
    wanted = wanted_columns(terms, asked)
    moves, walk = moves_of(terms, asked, wanted), Walk(terms)
    ts_ms = START_MS + HOUR_MS * np.arange(BARS)
    final, trades = np.zeros(SHAPE), np.zeros(SHAPE, dtype=np.bool_)
    for bar in range(BARS):
        final[bar], trades[bar] = walk.step(
            moves, bar, ts_ms=int(ts_ms[bar]), current_ppm=held[bar], equity_cents=equity[bar]
        )
        walk.traded(trades[bar] & present[bar], int(ts_ms[bar]))
    walked = Walked(
        ts_ms=ts_ms,
        equity_cents=equity,
        current_ppm=held,
        final_ppm=final,
        trades=trades,
        present=present,
    )
    start = states_initial(len(SYMBOLS))
    states = states_after(walked, start)
    before = before_each(states.last_rebalance_ts_ms, start.last_rebalance_ts_ms)
    outcomes = outcomes_of(
        terms,
        asked,
        wanted_reasons=wanted.reasons,
        moves=moves,
        walked=walked,
        rebalanced_before=before,
    )
    return wanted, outcomes, states, start


def check_batch(seed: int) -> int:
    random = np.random.default_rng(seed)
    config, limits = some_config(random), some_limits(random)
    terms = column_terms(config, limits, SYMBOLS, HOUR_MS)
    asked, held, equity = some_rows(random)
    present = random.random(SHAPE) < random.choice([0.8, 1.0])
    wanted, outcomes, states, _ = on_arrays(terms, asked, held, equity, present)
    for place, symbol in enumerate(SYMBOLS):
        state = STATE_INITIAL
        for bar in range(BARS):
            at = bar, place
            if not present[at]:
                continue
            inputs = PolicyInputs(
                symbol=symbol,
                ts_ms=START_MS + HOUR_MS * bar,
                bar_interval_ms=HOUR_MS,
                trigger_state=TRIGGER_STATES[int(asked.trigger[at])],
                triggers_known=bool(asked.known[at]),
                signal_strength_bps=int(asked.strength_bps[at]) if asked.usable[at] else None,
                vol_hat_ppm=int(asked.vol_hat_ppm[at]),
                current_weight_ppm=int(held[at]),
                equity=Decimal(equity[bar]) / 100,
                exit_intent=None,
                emergency_only=False,
                overrides=None,
                config=config,
                limits=limits,
                state=state,
            )
            expected, state = decide_weight(inputs)
            assert outcome_at(wanted, outcomes, at) == expected, inputs
            assert state_at(outcomes, states, at) == state, inputs
    return BARS * len(SYMBOLS)


def outcome_at(
    wanted: WantedColumns, outcomes: OutcomeColumns, at: tuple[int, int]
) -> PolicyOutcome:
    return PolicyOutcome(
        signal_deadbanded_ppm=int(wanted.signal_deadbanded_ppm[at]),
        vol_scale_ppm=int(wanted.vol_scale_ppm[at]),
        target_weight_raw_ppm=int(wanted.target_weight_raw_ppm[at]),
        target_weight_policy_ppm=int(outcomes.target_weight_policy_ppm[at]),
        target_weight_capped_ppm=int(outcomes.target_weight_final_ppm[at]),
        target_weight_final_ppm=int(outcomes.target_weight_final_ppm[at]),
        delta_weight_ppm=int(outcomes.delta_weight_ppm[at]),
        order_style=STYLES[outcomes.order_style[at]],
        reasons=reasons_of(int(outcomes.reasons[at])),
        precedence_tier=int(outcomes.tier[at]),
        cooldown_recommendation_bars=None,
    )


def state_at(outcomes: OutcomeColumns, states: StateColumns, at: tuple[int, int]) -> PolicyState:
    def known(column: Any) -> int | None:
        return None if column[at] == ABSENT else int(column[at])

    return PolicyState(
        last_target_weight_ppm=int(outcomes.target_weight_final_ppm[at]),
        last_rebalance_ts_ms=known(states.last_rebalance_ts_ms),
        entry_ts_ms=known(states.entry_ts_ms),
        trade_set_count=int(states.trade_set_count[at]),
        reversing_from_ppm=int(states.reversing_from_ppm[at]) or None,
    )


def test_arrays_decide_as_the_scalar_core() -> None:
    done = 0
    while done < QUICK_CASES:
        done += check_batch(done)


@pytest.mark.long
def test_arrays_decide_as_the_scalar_core_a_million_times() -> None:
    done = 0
    while done < LONG_CASES:
        done += check_batch(7 + done)


def test_a_weight_that_is_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is worth nothing unless it notices the smallest difference."""
    rint = np.rint
    monkeypatch.setattr(
        "detent.core.policy.column_steps.np.rint", lambda items, **out: rint(items + 0.5, **out)
    )
    with pytest.raises(AssertionError):
        check_batch(0)


def test_division_rounds_half_to_even() -> None:
    numerators = np.arange(-2_000, 2_000)
    for denominator in (1, 2, 3, 4, 10, 16, 999):
        expected = [divide_half_even(int(one), denominator) for one in numerators]
        assert divide_columns(numerators, denominator).tolist() == expected


def test_shares_are_the_same_by_float64() -> None:
    """Next to ties of the largest wholes too, where the quotients lie closest to them."""
    random = np.random.default_rng(3)
    for whole in (1, 2, 3, 9_999, 2**20, VOL_MAX_PPM - 1, VOL_MAX_PPM):
        ties = (2 * random.integers(0, 10**6, 50_000) + 1) * whole // (2 * 10**6)
        near = np.clip(ties[:, np.newaxis] + np.arange(-1, 3), 0, whole).ravel()
        part = np.concatenate([near, random.integers(0, whole + 1, 50_000)])
        assert (share_columns(part, whole) == divide_columns(part * 10**6, whole)).all()


def test_magnitudes_are_those_of_one_row() -> None:
    for code, state in TRIGGER_STATES.items():
        beliefs = np.arange(0, 10_001, 7)
        expected = [signal_strength_bps(int(one), state) for one in beliefs]
        direction = direction_of(np.full(len(beliefs), code, dtype=np.int8))
        found = strength_columns(beliefs, direction)
        assert found.tolist() == expected
