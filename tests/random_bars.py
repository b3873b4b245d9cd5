"""Draws bars for policy, as arrays for the reference and one by one for the real thing."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
from tests import reference_policy
from tests.builders import HOUR_MS, START_MS, SYMBOL
from tests.reference_policy import NONE, PPM, Bools, Cases, Ints

from detent.contracts.plan import (
    ExitIntent,
    ExitKind,
    HorizonAlpha,
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
from detent.core.policy.inputs import PolicyInputs

TRIGGERS = {
    reference_policy.INACTIVE: TriggerState.INACTIVE,
    reference_policy.LONG: TriggerState.LONG_ALLOWED,
    reference_policy.SHORT: TriggerState.SHORT_ALLOWED,
    reference_policy.EXIT_ONLY: TriggerState.EXIT_ONLY,
}
INTENTS = {
    reference_policy.NO_INTENT: None,
    reference_policy.WITH_RULE: ExitIntent(kind=ExitKind.EMERGENCY, exit_rule_id="stop"),
    reference_policy.WITHOUT_RULE: ExitIntent(kind=ExitKind.EMERGENCY, exit_rule_id="  "),
}
# Configs are dear to build, so some hundred bars share one.
BARS_PER_CONFIG = 250


class _Draw:
    """Draws arrays of one length, some of them shared by a config's bars."""

    def __init__(self, count: int, *, seed: int) -> None:
        self.chance = np.random.Generator(np.random.PCG64(seed))
        self.count = count
        self.configs = -(-count // BARS_PER_CONFIG)

    def shared(self, values: Ints | Bools) -> Any:
        return np.repeat(values, BARS_PER_CONFIG)[: self.count]

    def integers(self, low: int, high: int, size: int | None = None) -> Ints:
        size = self.count if size is None else size
        return self.chance.integers(low, high, size, endpoint=True, dtype=np.int64)

    def one_of(self, *choices: Ints) -> Ints:
        return np.choose(self.integers(0, len(choices) - 1, len(choices[0])), choices)

    def none_or(self, values: Ints) -> Ints:
        return np.where(self.chance.random(len(values)) < 0.5, NONE, values)

    def constant(self, value: int, size: int | None = None) -> Ints:
        return np.full(self.count if size is None else size, value, dtype=np.int64)


def draw_cases(count: int, *, seed: int) -> Cases:
    """Draw bars that crowd around every boundary that the rules have."""
    draw = _Draw(count, seed=seed)
    shared, integers, one_of = draw.shared, draw.integers, draw.one_of
    none_or, constant, chance, configs = draw.none_or, draw.constant, draw.chance, draw.configs

    tau = one_of(constant(0, configs), integers(0, 9_999, configs), constant(1_000, configs))
    w_max = one_of(constant(PPM, configs), integers(0, PPM, configs), constant(250_000, configs))
    w_min = np.minimum(one_of(constant(0, configs), integers(0, 50_000, configs)), w_max)
    vol_target = one_of(constant(150_000, configs), integers(1, 10_000_000, configs))
    epsilon = one_of(constant(0, configs), constant(5_000, configs), integers(0, PPM, configs))
    shared_tau, shared_w_max, shared_target = shared(tau), shared(w_max), shared(vol_target)
    shared_epsilon = shared(epsilon)
    strength = one_of(
        integers(0, 10_000),
        np.clip(shared_tau + integers(-1, 1), 0, 10_000),
        constant(10_000),
        constant(NONE),
    )
    current = one_of(
        constant(0),
        integers(-400_000, 400_000),
        integers(-3, 3),
        shared_w_max * integers(-1, 1) + integers(-1, 1),
        shared_epsilon * integers(-1, 1) + integers(-1, 1),
        integers(-100_000_000, 100_000_000),
    )
    return Cases(
        trigger=integers(0, 3),
        known=chance.random(count) < 0.9,
        strength_bps=strength,
        vol_hat_ppm=one_of(
            shared_target + integers(-1, 1),
            integers(1, 99_999_999),
            integers(1, 300_000),
            integers(-2, 0),
        ),
        current_ppm=current,
        equity_cents=one_of(integers(1, 10_000_000_000), constant(100_000_000), constant(1)),
        intent=np.where(chance.random(count) < 0.8, 0, integers(0, 2)),
        emergency_only=chance.random(count) < 0.1,
        override_cap_ppm=none_or(one_of(integers(0, PPM), integers(0, 1), np.abs(current) % PPM)),
        stands_down=chance.random(count) < 0.1,
        tau_bps=shared_tau,
        vol_target_ppm=shared_target,
        w_min_ppm=shared(w_min),
        w_max_ppm=shared_w_max,
        alpha_ppm=shared(one_of(constant(300_000, configs), integers(1, PPM, configs))),
        epsilon_ppm=shared_epsilon,
        min_notional_cents=shared(
            one_of(constant(1_000, configs), constant(0, configs), integers(0, 10**8, configs))
        ),
        cooldown_bars=shared(integers(0, 5, configs)),
        min_hold_bars=shared(integers(0, 5, configs)),
        allowed=shared(chance.random(configs) < 0.9),
        max_weight_ppm=shared(one_of(constant(PPM, configs), integers(0, PPM, configs))),
        symbol_cap_ppm=shared(none_or(integers(0, PPM, configs))),
        bars_since_rebalance=none_or(integers(0, 6)),
        bars_since_entry=none_or(integers(0, 6)),
        no_new_long=chance.random(count) < 0.2,
        no_new_short=chance.random(count) < 0.2,
        latched=chance.random(count) < 0.1,
        reduce_ppm=np.where(
            chance.random(count) < 0.85,
            NONE,
            one_of(integers(1, PPM - 1), constant(1), constant(PPM - 1), constant(PPM // 2)),
        ),
        risk_off=chance.random(count) < 0.05,
    )


def policy_inputs_of(cases: Cases) -> Iterator[PolicyInputs]:
    """Give the same bars one by one, as policy takes them."""
    columns = {name: getattr(cases, name) for name in cases.__struct_fields__}
    lists = {name: values.tolist() for name, values in columns.items()}
    config, limits = _config(lists, 0)
    for index in range(len(cases)):
        if index % BARS_PER_CONFIG == 0:
            config, limits = _config(lists, index)
        intents = _intents(lists, index)
        yield PolicyInputs(
            symbol=SYMBOL,
            ts_ms=START_MS,
            bar_interval_ms=HOUR_MS,
            trigger_state=TRIGGERS[lists["trigger"][index]],
            triggers_known=lists["known"][index],
            signal_strength_bps=_or_none(lists["strength_bps"][index]),
            vol_hat_ppm=_volatility(lists["vol_hat_ppm"][index]),
            current_weight_ppm=lists["current_ppm"][index],
            equity=Decimal(lists["equity_cents"][index]).scaleb(-2),
            exit_intent=intents[0] if intents else None,
            further_exit_intents=intents[1:],
            emergency_only=lists["emergency_only"][index],
            overrides=_overrides(
                _or_none(lists["override_cap_ppm"][index]), lists["stands_down"][index]
            ),
            config=config,
            limits=limits,
            state=_state(
                lists["bars_since_rebalance"][index],
                lists["bars_since_entry"][index],
                latched=lists["latched"][index],
            ),
            no_new_long=_SHUT if lists["no_new_long"][index] else (),
            no_new_short=_SHUT if lists["no_new_short"][index] else (),
        )


def _config(lists: dict[str, list[Any]], index: int) -> tuple[PolicyConfig, RiskLimits]:
    cap_ppm = lists["symbol_cap_ppm"][index]
    config = PolicyConfig(
        horizon_id="h",
        tau_bps=lists["tau_bps"][index],
        vol_target_ppm=lists["vol_target_ppm"][index],
        w_min_ppm=lists["w_min_ppm"][index],
        w_max_ppm=lists["w_max_ppm"][index],
        alpha_by_horizon=(HorizonAlpha(horizon_id="h", alpha_ppm=lists["alpha_ppm"][index]),),
        epsilon_w_ppm=lists["epsilon_ppm"][index],
        min_trade_notional=Decimal(lists["min_notional_cents"][index]).scaleb(-2),
        rebalance_cooldown_bars=lists["cooldown_bars"][index],
        min_hold_bars=lists["min_hold_bars"][index],
        symbol_allowlist=() if lists["allowed"][index] else ("OTHER",),
    )
    caps = () if cap_ppm == NONE else (SymbolCap(symbol=SYMBOL, max_weight_ppm=cap_ppm),)
    return config, RiskLimits(max_weight_ppm=lists["max_weight_ppm"][index], symbol_caps=caps)


def _intents(lists: dict[str, list[Any]], index: int) -> tuple[ExitIntent, ...]:
    """Give the exits of a bar, each now and then twice, in an order that means nothing."""
    found = [INTENTS[lists["intent"][index]]]
    share_ppm = lists["reduce_ppm"][index]
    if share_ppm != NONE:
        found.append(_reduction(share_ppm))
        if index % 3 == 0:
            found.append(_reduction(1 + share_ppm // 2))
    if lists["risk_off"][index]:
        found += [_RISK_OFF] * (1 + index % 2)
    intents = [intent for intent in found if intent is not None]
    turned = index % len(intents) if intents else 0
    return (*intents[turned:], *intents[:turned])


def _reduction(share_ppm: int) -> ExitIntent:
    share_ppm = min(share_ppm, PPM - 1)
    return ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=share_ppm)


def _or_none(value: int) -> int | None:
    return None if value == NONE else value


def _volatility(value: int) -> int | None:
    # -2 stands for a missing one, so that all three ways of being unusable are drawn.
    return None if value == -2 else value


def _overrides(cap_ppm: int | None, stands_down: bool) -> RiskOverrides | None:
    if cap_ppm is None and not stands_down:
        return None
    return RiskOverrides(max_weight_ppm=cap_ppm, stand_down=_STAND_DOWN if stands_down else None)


def _state(bars_since_rebalance: int, bars_since_entry: int, *, latched: bool) -> PolicyState:
    return PolicyState(
        last_target_weight_ppm=0,
        last_rebalance_ts_ms=_instant(bars_since_rebalance),
        entry_ts_ms=_instant(bars_since_entry),
        trade_set_count=1,
        latched_ts_ms=START_MS - HOUR_MS if latched else None,
    )


def _instant(bars_ago: int) -> int | None:
    return None if bars_ago == NONE else START_MS - bars_ago * HOUR_MS


_SHUT = (Reason.L2_BLOCK_BUY,)
_RISK_OFF = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")
_STAND_DOWN = StandDown(
    until_ts_ms=START_MS + HOUR_MS, reason="news", source=StandDownSource.RISK_ENGINE
)
