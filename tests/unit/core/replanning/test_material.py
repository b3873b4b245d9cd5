"""Proves what of a plan counts: everything but its name, its order and its writing."""

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.builders import OTHER_SYMBOL, SYMBOL, model_binding, plan_of, policy_config

from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.calls.policy import PlanArm
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.learning import LearningBook, LearningBudget, LearningTags
from detent.contracts.plan import (
    HorizonAlpha,
    L2Limits,
    MissingL2,
    Plan,
    RiskLimits,
    SymbolCap,
    Trigger,
)
from detent.core.ledger.record import bind_plan
from detent.core.replanning.material import UNORDERED, Material, material_of

TRIGGERS = tuple(Trigger(trigger_id=f"t{i}", parameters_hash=str(i) * 64) for i in range(1, 4))
CAPS = tuple(SymbolCap(symbol=name, max_weight_ppm=9) for name in (SYMBOL, OTHER_SYMBOL))
ALPHAS = tuple(HorizonAlpha(horizon_id=f"h{i}", alpha_ppm=i) for i in range(1, 5))
FULL = plan_of(
    "full",
    (SYMBOL, OTHER_SYMBOL),
    triggers=TRIGGERS,
    policy_config=policy_config(
        alpha_by_horizon=ALPHAS,
        symbol_allowlist=(SYMBOL, OTHER_SYMBOL),
        min_trade_notional=Decimal(10),
    ),
    risk_limits=RiskLimits(symbol_caps=CAPS),
    book="learning/a",
    learning=LearningBook(tags=LearningTags(experiment_id="e")),
    l2_limits=L2Limits(missing_l2=MissingL2.BLOCK),
    max_feature_age_ms=60_000,
)
LISTS = {
    "symbols": FULL.symbols,
    "triggers": FULL.triggers,
    "alpha_by_horizon": ALPHAS,
    "symbol_allowlist": FULL.policy_config.symbol_allowlist,
    "symbol_caps": CAPS,
}


def material(plan: Plan, binding: ModelBinding = PROXY_BINDING) -> Material:
    bound = bind_plan(plan, binding)
    arm = PlanArm(plan_id=plan.plan_id, binding_hash=bound.binding_hash, symbols=plan.symbols)
    return material_of(bound, (arm,))


def shuffled(value: Any, chance: random.Random) -> Any:
    """Give a value with every list in some other order."""
    if isinstance(value, tuple):
        items = [shuffled(item, chance) for item in value]
        chance.shuffle(items)
        return tuple(items)
    if isinstance(value, msgspec.Struct):
        return structs.replace(
            value,
            **{name: shuffled(getattr(value, name), chance) for name in value.__struct_fields__},
        )
    return value


@pytest.mark.proves("R234")
def test_order_name_and_writing_are_not_material() -> None:
    expected, chance = material(FULL), random.Random(7)
    seen = set()
    for number in range(200):
        again = structs.replace(shuffled(FULL, chance), plan_id=f"p{number}")
        config = structs.replace(again.policy_config, min_trade_notional=Decimal("1.0e1"))
        again = structs.replace(again, policy_config=config)
        seen.add(str(to_json(again)))
        assert material(again) == expected

    # The control: they were written otherwise, nearly all of them.
    assert len(seen) > 150


def variants(value: Any) -> list[Any]:
    """Give values that differ from one in exactly one leaf."""
    if isinstance(value, msgspec.Struct):
        return [
            changed
            for name in value.__struct_fields__
            for changed in changes(value, name, getattr(value, name))
        ]
    if isinstance(value, tuple):
        return [value[1:], *[(changed, *value[1:]) for changed in variants(value[0])]]
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, Decimal):
        return [value + Decimal("0.01")]
    if isinstance(value, str):
        members = list(type(value)) if hasattr(type(value), "__members__") else []
        return [one for one in members if one is not value] or other_texts(value)
    raise TypeError(type(value))


def other_texts(value: str) -> list[str]:
    if len(value) == 64:
        return ["f" * 64]
    return [f"{value}Z" if value.isupper() else f"{value}z"]


def changes(value: Any, name: str, part: Any) -> list[Any]:
    found = []
    for changed in variants(part):
        try:
            found.append(structs.replace(value, **{name: changed}))
        except InvalidField:
            # No plan can have it.
            continue
    return found


@pytest.mark.proves("R234")
def test_every_single_change_of_a_plan_is_material() -> None:
    """Any trigger, limit, tau or other field, one at a time, whatever the type."""
    expected = material(FULL)
    changed = [one for one in variants(FULL) if one.plan_id == FULL.plan_id]

    assert len(changed) > 60
    for one in changed:
        assert one != FULL
        assert material(one).material_hash != expected.material_hash, one
    touched = {name for one in changed for name in material(one).differing(expected)}
    assert touched == {"triggers", "risk_limits", "policy_config", "terms"}
    wider = structs.replace(FULL, symbols=(*FULL.symbols, "AUDUSD"))
    assert material(wider).differing(expected) == ("terms", "arms")


@pytest.mark.proves("R234")
def test_another_binding_or_other_arms_are_material() -> None:
    plan = plan_of("p")
    model = model_binding()
    turned = structs.replace(model, signal_source=SignalSource.PROXY)
    expected = material(plan, model)

    assert material(plan, turned).differing(expected) == ("binding", "arms")
    assert material(plan, turned) == material(plan, PROXY_BINDING)
    other = model_binding(model_version_hash="9" * 64)
    assert material(plan, other).differing(expected) == ("binding", "arms")
    bound = bind_plan(plan, model)
    arms = [
        PlanArm(plan_id=name, binding_hash=bound.binding_hash, symbols=symbols)
        for name, symbols in (("x", (SYMBOL,)), ("y", (OTHER_SYMBOL,)))
    ]
    two = material_of(bound, arms)
    assert two.differing(expected) == ("arms",)
    assert material_of(bound, arms[::-1]) == two


def test_every_list_of_a_plan_is_named_as_one_whose_order_means_nothing() -> None:
    """A list that a plan gets one day fails here: somebody has to say whether order counts."""
    found: set[str] = set()

    def walk(value: Any, name: str) -> None:
        if isinstance(value, list):
            found.add(name)
        for key, item in value.items() if isinstance(value, dict) else ():
            walk(item, key)
        for item in value if isinstance(value, list) else ():
            walk(item, name)

    walk(to_json(FULL), "")
    assert found == set(LISTS) == UNORDERED - {"arms"}
    assert all(getattr(FULL, name) is not None for name in FULL.__struct_fields__)
    assert FULL.learning is not None
    assert FULL.learning.budget == LearningBudget()
