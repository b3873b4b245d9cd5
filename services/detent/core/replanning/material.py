"""Say what of a plan counts: two plans that differ in nothing material are one plan.

Not material are the plan's name and the order in which things are listed that have none; how
numbers were written is gone before, in the canonical form. Everything else is: a field that a
plan gets one day is material until somebody says here that it is not.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from detent.contracts.calls.policy import PlanArm
from detent.contracts.canonical import JsonValue, canonical_bytes, canonical_hash
from detent.contracts.json_codec import to_json
from detent.core.ledger.record import BoundPlan

NOT_MATERIAL = "plan_id"
# Lists whose order means nothing, wherever in a plan they stand.
UNORDERED = frozenset(
    {"arms", "symbols", "triggers", "alpha_by_horizon", "symbol_allowlist", "symbol_caps"}
)
# Parts that have a hash of their own; what is in none of them is in `terms`.
OWN_PARTS = ("triggers", "risk_limits", "policy_config")
TERMS = "terms"


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the hashes of what counts of one plan, 64 hex each.

    Attributes:
        triggers: Names of the triggers with the hashes of their parameters.
        risk_limits: The risk limits.
        policy_config: The policy config.
        terms: What else the plan says: book, symbols, bars, ages, books, learning.
        binding: The binding hash.
        arms: The arms that were resolved: binding and symbols of each.

    Source: FORMULAS 2.3; row R234, which adds policy config, binding and arms to the
    forerunner's signature.
    """

    SCHEMA: ClassVar[str] = "detent.plan_material.v1"

    triggers: str
    risk_limits: str
    policy_config: str
    terms: str
    binding: str
    arms: str

    @property
    def material_hash(self) -> str:
        """Hash all of it to 64 hex."""
        return canonical_hash(self.SCHEMA, to_json(self))

    def differing(self, other: "Material") -> tuple[str, ...]:
        """Name the parts in which another plan differs."""
        names = self.__struct_fields__
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


def material_of(bound: BoundPlan, arms: Sequence[PlanArm]) -> Material:
    """Hash what counts of a plan under its binding."""
    fields = {name: value for name, value in to_json(bound.plan).items() if name != NOT_MATERIAL}
    parts = {name: _part(name, fields.pop(name)) for name in OWN_PARTS}
    resolved: list[JsonValue] = [
        {"binding_hash": arm.binding_hash, "symbols": list(arm.symbols)} for arm in arms
    ]
    return Material(
        **parts,
        terms=_part(TERMS, fields),
        binding=bound.binding_hash,
        arms=_part("arms", resolved),
    )


def material_of_arms(bounds: Sequence[BoundPlan]) -> Material:
    """Hash what counts of a plan that may have two arms, stable before candidate.

    A plan of its own hashes as `material_of` says. Of an arm count its rollout and what answers
    beside it too: without that a rollout in shadow would be no change. The revision does not
    count: what resolves to the same arms is the same plan.
    """
    first = bounds[0]
    if first.rollout is None:
        arm = PlanArm(
            plan_id=first.plan.plan_id,
            binding_hash=first.binding_hash,
            symbols=first.plan.symbols,
        )
        return material_of(first, (arm,))
    parts: dict[str, list[JsonValue]] = {name: [] for name in (*OWN_PARTS, TERMS)}
    arms: list[JsonValue] = []
    for bound in bounds:
        fields = to_json(bound.plan)
        del fields[NOT_MATERIAL]
        for name in OWN_PARTS:
            parts[name].append(_unordered(fields.pop(name), name))
        parts[TERMS].append(_unordered(fields))
        arms.append(_arm(bound))
    hashes: list[JsonValue] = [bound.binding_hash for bound in bounds]
    return Material(
        **{name: canonical_hash(Material.SCHEMA, {name: values}) for name, values in parts.items()},
        binding=canonical_hash(Material.SCHEMA, {"binding": hashes}),
        arms=canonical_hash(Material.SCHEMA, {"arms": arms}),
    )


def _arm(bound: BoundPlan) -> JsonValue:
    assert bound.rollout is not None, "arms are of a rollout"
    shadow = bound.shadow_binding
    symbols: list[JsonValue] = [*sorted(bound.plan.symbols)]
    return {
        "binding_hash": bound.binding_hash,
        "symbols": symbols,
        "rollout_id": bound.rollout.rollout_id,
        "arm": bound.rollout.arm.value,
        "shadow_binding_hash": None if shadow is None else shadow.binding_hash,
    }


def _part(name: str, value: JsonValue) -> str:
    return canonical_hash(Material.SCHEMA, {name: _unordered(value, name)})


def _unordered(value: JsonValue, name: str = "") -> JsonValue:
    """Sort every list whose order means nothing."""
    if isinstance(value, dict):
        return {key: _unordered(item, key) for key, item in value.items()}
    if isinstance(value, list):
        items = [_unordered(item) for item in value]
        return sorted(items, key=_text) if name in UNORDERED else items
    return value


def _text(value: JsonValue) -> bytes:
    return canonical_bytes("", {"": value})
