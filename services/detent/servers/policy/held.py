"""Hold what deciding needs to know of an artifact that is served elsewhere, and check by it."""

from collections.abc import Mapping

import msgspec

from detent.contracts.binding import Head, ModelBinding, SignalSource
from detent.contracts.calls.policy import PlanArm
from detent.contracts.errors import BindingMismatch, HorizonMismatch, InvalidField
from detent.contracts.plan import Plan
from detent.core.ledger.record import BoundPlan

NAMES_SHOWN_MAX = 16


class HeldBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a binding that a held manifest gives asks of plans and of rows.

    Attributes:
        bar_interval_ms: Length of the bars that the model was trained on.
        caller_names: The features of the set that only the strategist knows.
    """

    bar_interval_ms: int
    caller_names: frozenset[str] = frozenset()

    @property
    def caller_names_expected(self) -> str:
        """Say which names a row may give: the first of them, and how many more there are."""
        names = sorted(self.caller_names)
        shown = ", ".join(names[:NAMES_SHOWN_MAX]) or "none"
        rest = len(names) - NAMES_SHOWN_MAX
        more = f" and {rest} more" if rest > 0 else ""
        return f"a caller feature of the feature set: {shown}{more}"


def check_binding(
    found: str, plan: Plan, binding: ModelBinding, held: Mapping[str, HeldBinding]
) -> None:
    """Refuse a binding that is not the one named, held, of direction, or of the horizon.

    Args:
        found: The hash that came with it.
        plan: The plan that it would be of.
        binding: What it effectively is.
        held: The bindings that the held manifests give, by hash.
    """
    if found != binding.binding_hash:
        raise BindingMismatch(found, binding.binding_hash)
    if binding.signal_source is SignalSource.PROXY:
        return
    check_held(found, binding, held)
    horizon_id = plan.policy_config.horizon_id
    if binding.horizon_id != horizon_id:
        field = "plan.policy_config.horizon_id"
        raise HorizonMismatch(field, horizon_id, binding.horizon_id)
    interval_ms = held[found].bar_interval_ms
    if plan.bar_interval_ms != interval_ms:
        raise HorizonMismatch("plan.bar_interval_ms", plan.bar_interval_ms, interval_ms)


def check_held(found: str, binding: ModelBinding, held: Mapping[str, HeldBinding]) -> None:
    """Refuse a model that no held manifest gives, or that is not of direction.

    Args:
        found: The hash of the binding.
        binding: What it effectively is: a model.
        held: The bindings that the held manifests give, by hash.
    """
    if found not in held:
        names = ", ".join(sorted(held)) or "none: no artifact is held here"
        raise BindingMismatch(found, f"one that a held manifest gives ({names})")
    if binding.head is not Head.DIRECTION:
        # The other heads advise the strategist; none of them scales a position (D1).
        raise InvalidField("model_binding.head", binding.head, str(Head.DIRECTION))


def check_alike(
    stable: ModelBinding, candidate: ModelBinding, held: Mapping[str, HeldBinding]
) -> None:
    """Refuse two bindings that cannot take turns on one plan: held, of one horizon, of one bar.

    Raises:
        BindingMismatch: One is not held here.
        HorizonMismatch: They are of different horizons or bars.
    """
    check_held(candidate.binding_hash, candidate, held)
    if stable.signal_source is SignalSource.PROXY:
        return
    check_held(stable.binding_hash, stable, held)
    if candidate.horizon_id != stable.horizon_id:
        field = "candidate_binding.horizon_id"
        raise HorizonMismatch(field, candidate.horizon_id, stable.horizon_id)
    found, expected = (held[one.binding_hash].bar_interval_ms for one in (candidate, stable))
    if found != expected:
        raise HorizonMismatch("candidate_binding.bar_interval_ms", found, expected)


def arms_of(*bounds: BoundPlan) -> tuple[PlanArm, ...]:
    """Give the arms as a caller knows them: one, or two for a rollout."""
    return tuple(
        PlanArm(
            plan_id=bound.plan.plan_id,
            binding_hash=bound.binding_hash,
            symbols=bound.plan.symbols,
        )
        for bound in bounds
    )
