"""Proves what never waits: the proxy, and plans that permit less."""

import random
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.builders import (
    OTHER_SYMBOL,
    SYMBOL,
    model_binding,
    plan_of,
    policy_config,
    policy_inputs_of,
)

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.learning import LearningBook, LearningBudget, LearningShorts, LearningTags
from detent.contracts.plan import (
    HorizonAlpha,
    L2Limits,
    MissingL2,
    Plan,
    RiskLimits,
    SymbolCap,
    Trigger,
    TriggerState,
)
from detent.core.ledger.record import bind_plan
from detent.core.policy.decide import decide_weight
from detent.core.replanning.tightening import only_tightens

MODEL = model_binding()
BOTH = (SYMBOL, OTHER_SYMBOL)
TRIGGERS = tuple(Trigger(trigger_id=f"t{i}", parameters_hash=str(i) * 64) for i in range(1, 3))
CAPPED = RiskLimits(
    max_weight_ppm=500_000, symbol_caps=(SymbolCap(symbol=SYMBOL, max_weight_ppm=200_000),)
)
BOOK = L2Limits(missing_l2=MissingL2.ALLOW)
LEARNING = LearningBook(
    tags=LearningTags(experiment_id="e"), budget=LearningBudget(shorts=LearningShorts.ALLOWED)
)
BASE = plan_of(
    "base",
    BOTH,
    triggers=TRIGGERS,
    risk_limits=CAPPED,
    l2_limits=BOOK,
    max_feature_age_ms=60_000,
    learning=LEARNING,
    book="learning/a",
)


def config(**changes: Any) -> dict[str, Any]:
    return {"policy_config": policy_config(**changes)}


def limits(max_ppm: int, *caps: tuple[str, int]) -> dict[str, Any]:
    listed = tuple(SymbolCap(symbol=name, max_weight_ppm=ppm) for name, ppm in caps)
    return {"risk_limits": RiskLimits(max_weight_ppm=max_ppm, symbol_caps=listed)}


def budget(**changes: Any) -> dict[str, Any]:
    changed = structs.replace(LEARNING.budget, **changes)
    return {"learning": structs.replace(LEARNING, budget=changed)}


def gates(**changes: Any) -> dict[str, Any]:
    return {"learning": structs.replace(LEARNING, gates=structs.replace(LEARNING.gates, **changes))}


# What tightens, and beside it the same change the other way.
PAIRS = {
    "tau": (config(tau_bps=1_001), config(tau_bps=999)),
    "vol_target": (config(vol_target_ppm=149_999), config(vol_target_ppm=150_001)),
    "w_min": (config(w_min_ppm=19_999), config(w_min_ppm=20_001)),
    "w_max": (config(w_max_ppm=249_999), config(w_max_ppm=250_001)),
    "allowlist": (config(symbol_allowlist=(SYMBOL,)), config(epsilon_w_ppm=4_999)),
    "plan cap": (
        limits(499_999, (SYMBOL, 200_000)),
        limits(500_001, (SYMBOL, 200_000)),
    ),
    "symbol cap": (limits(500_000, (SYMBOL, 1)), limits(500_000, (SYMBOL, 200_001))),
    "new cap": (limits(500_000, (SYMBOL, 200_000), (OTHER_SYMBOL, 900_000)), limits(500_000)),
    "triggers": ({"triggers": TRIGGERS[:1]}, {"triggers": (*TRIGGERS, TRIGGERS[0])[1:]}),
    "feature age": ({"max_feature_age_ms": 59_999}, {"max_feature_age_ms": None}),
    "book": ({"l2_limits": structs.replace(BOOK, entry_impact_bps=199)}, {"l2_limits": None}),
    "book age": (
        {"l2_limits": structs.replace(BOOK, exec_max_age_ms=1)},
        {"l2_limits": structs.replace(BOOK, exec_max_age_ms=1_501)},
    ),
    "no book": (
        {"l2_limits": structs.replace(BOOK, missing_l2=MissingL2.BLOCK)},
        {"l2_limits": structs.replace(BOOK, exec_impact_bps=51)},
    ),
    "loss": (budget(daily_loss_ppm=4_999), budget(daily_loss_ppm=5_001)),
    "shorts": (budget(shorts=LearningShorts.FORBIDDEN), budget(trades_per_day=13)),
    "volume": (gates(volume_ratio_bps=3_001), gates(volume_ratio_bps=2_999)),
    "spread": (gates(spread_bps=99), gates(spread_bps=101)),
}
# Neither tighter nor looser: what it does depends on the bar.
OTHERWISE = {
    "alpha": config(alpha_by_horizon=(HorizonAlpha(horizon_id="h4", alpha_ppm=1),)),
    "cooldown": config(rebalance_cooldown_bars=3),
    "hold": config(min_hold_bars=5),
    "notional": config(min_trade_notional=Decimal(11)),
    "symbols": {"symbols": (SYMBOL,)},
    "interval": {"bar_interval_ms": 60_000},
    "parameters": {
        "triggers": (structs.replace(TRIGGERS[0], parameters_hash="a" * 64), TRIGGERS[1])
    },
    "tags": {"learning": structs.replace(LEARNING, tags=LearningTags(experiment_id="f"))},
}


def tightens(
    changes: dict[str, Any],
    before: ModelBinding = MODEL,
    after: ModelBinding = MODEL,
    base: Plan = BASE,
) -> bool:
    return only_tightens(
        bind_plan(base, before), bind_plan(structs.replace(base, plan_id="n", **changes), after)
    )


@pytest.mark.proves("R355")
@pytest.mark.parametrize("name", PAIRS)
def test_less_never_waits_and_more_does(name: str) -> None:
    tighter, looser = PAIRS[name]
    if name == "triggers":
        extra = Trigger(trigger_id="t9", parameters_hash="9" * 64)
        looser = {"triggers": (*TRIGGERS, extra)}

    assert tightens(tighter)
    assert tightens(tighter, after=PROXY_BINDING)
    assert not tightens(looser)
    # Something tighter beside it does not make it so.
    for other in PAIRS.values():
        if not other[0].keys() & looser.keys():
            assert not tightens(looser | other[0])


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_neither_waits(name: str) -> None:
    changes = OTHERWISE[name]
    assert not tightens(changes)
    assert not tightens(changes, after=PROXY_BINDING)


@pytest.mark.proves("R355")
def test_the_proxy_never_waits_and_the_model_does() -> None:
    assert tightens({}, after=PROXY_BINDING)
    assert tightens({}, before=PROXY_BINDING, after=PROXY_BINDING)
    assert not tightens({}, before=PROXY_BINDING)
    assert not tightens({}, after=model_binding(model_version_hash="9" * 64))


def test_allowlists_shrink_only() -> None:
    one = structs.replace(BASE, **config(symbol_allowlist=(SYMBOL,)))
    both = structs.replace(BASE, **config(symbol_allowlist=BOTH))
    allowed = {"symbol_allowlist": (SYMBOL,)}

    assert tightens(config(**allowed), base=both)
    assert not tightens(config(symbol_allowlist=BOTH), base=one)
    assert not tightens(config(), base=one)
    assert not tightens(config(symbol_allowlist=(OTHER_SYMBOL,)), base=one)


def test_a_plan_that_asked_nothing_may_ask_anything() -> None:
    bare = plan_of("bare")
    for changes in ({"l2_limits": BOOK}, {"max_feature_age_ms": 10**9}, limits(1, (SYMBOL, 0))):
        assert tightens(changes, base=bare)


@pytest.mark.proves("R355")
def test_no_bar_gets_a_larger_weight_from_a_tighter_config_or_cap() -> None:
    """What is let through without waiting must not be able to add exposure anywhere."""
    chance = random.Random(11)
    moved = 0
    for _ in range(3_000):
        state = chance.choice([TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED])
        before = policy_inputs_of(
            trigger_state=state,
            signal_strength_bps=chance.randint(0, 10_000),
            vol_hat_ppm=chance.randint(50_000, 400_000),
            current_weight_ppm=chance.choice([0, 0, 40_000, -40_000, 250_000]),
            config=policy_config(epsilon_w_ppm=0, rebalance_cooldown_bars=0),
        )
        old = before.config
        new = structs.replace(
            old,
            tau_bps=old.tau_bps + chance.choice([0, 1, 500, 5_000]),
            vol_target_ppm=old.vol_target_ppm - chance.choice([0, 1, 90_000]),
            w_min_ppm=old.w_min_ppm - chance.choice([0, 1, 20_000]),
            w_max_ppm=old.w_max_ppm - chance.choice([0, 1, 200_000]),
        )
        tighter = RiskLimits(max_weight_ppm=chance.choice([1_000_000, 100_000, 0]))
        after = structs.replace(before, config=new, limits=tighter)
        plans = [
            structs.replace(plan_of("a"), policy_config=c, risk_limits=limit)
            for c, limit in ((old, before.limits), (new, tighter))
        ]
        assert only_tightens(bind_plan(plans[0], MODEL), bind_plan(plans[1], MODEL))
        found = [abs(decide_weight(one)[0].target_weight_final_ppm) for one in (before, after)]
        assert found[1] <= found[0]
        moved += found[1] < found[0]
    assert moved > 500
