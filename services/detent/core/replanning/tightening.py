"""Say whether one plan only tightens another: what does never waits for its turn.

Going back to the proxy counts as tightening, whatever the proxy then asks for: rollback must
be possible at once (P10). Whatever is not known here to be tighter has to stay as it is.
"""

from collections.abc import Sequence

import msgspec
from msgspec import structs

from detent.contracts.binding import SignalSource
from detent.contracts.learning import LearningBook, LearningShorts
from detent.contracts.plan import L2Limits, MissingL2, Plan, PolicyConfig, RiskLimits
from detent.core.ledger.record import BoundPlan
from detent.core.rollout.plan_arms import of_symbols

CONFIG_DOWN = frozenset({"vol_target_ppm", "w_min_ppm", "w_max_ppm"})
CONFIG_UP = frozenset({"tau_bps"})
BOOK_DOWN = frozenset({"entry_impact_bps", "exec_impact_bps", "exec_max_age_ms"})
BUDGET_LIKE = frozenset({"shorts"})
GATES_UP = frozenset({"volume_ratio_bps"})
# Fields of a plan with a rule of their own below; every other one has to stay as it is.
PLAN_OWN = frozenset(
    {
        "plan_id",
        "symbols",
        "triggers",
        "policy_config",
        "risk_limits",
        "max_feature_age_ms",
        "learning",
        "l2_limits",
    }
)


def only_tightens(before: BoundPlan, after: BoundPlan) -> bool:
    """Say whether a plan permits nothing that the one before did not.

    Args:
        before: The plan that decides.
        after: The plan that would replace it.

    Source: P10; row R355.
    """
    is_proxy = after.binding.signal_source is SignalSource.PROXY
    if after.binding_hash != before.binding_hash and not is_proxy:
        return False
    old, new = before.plan, after.plan
    return (
        _within(old, new, own=PLAN_OWN)
        and set(new.symbols) == set(old.symbols)
        and set(new.triggers) <= set(old.triggers)
        and _config_tightens(old.policy_config, new.policy_config)
        and _limits_tighten(old, new.risk_limits)
        and _at_most(old.max_feature_age_ms, new.max_feature_age_ms)
        and _books_tighten(old.l2_limits, new.l2_limits)
        and _learning_tightens(old.learning, new.learning)
    )


def arms_only_tighten(before: Sequence[BoundPlan], after: Sequence[BoundPlan]) -> bool:
    """Say that of plans that may have two arms, symbol by symbol.

    Args:
        before: The plan that decides, or both arms of one.
        after: What would replace it.
    """
    named = [
        {symbol for bound in arms for symbol in bound.plan.symbols} for arms in (before, after)
    ]
    if named[0] != named[1]:
        return False
    for old in before:
        for new in after:
            shared = tuple(one for one in old.plan.symbols if one in new.plan.symbols)
            if shared and not only_tightens(_for(old, shared), _for(new, shared)):
                return False
    return True


def _for(bound: BoundPlan, symbols: tuple[str, ...]) -> BoundPlan:
    if symbols == bound.plan.symbols:
        return bound
    return structs.replace(bound, plan=of_symbols(bound.plan, symbols))


def _within(
    before: msgspec.Struct,
    after: msgspec.Struct,
    *,
    down: frozenset[str] = frozenset(),
    up: frozenset[str] = frozenset(),
    own: frozenset[str] = frozenset(),
) -> bool:
    """Compare two values field by field; what is not named has to be equal."""
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name in own:
            continue
        if name in down:
            stays = new <= old
        elif name in up:
            stays = new >= old
        else:
            stays = new == old
        if not stays:
            return False
    return True


def _at_most(before: int | None, after: int | None) -> bool:
    """Say whether a bound is not wider; None bounds nothing."""
    return before is None or (after is not None and after <= before)


def _config_tightens(before: PolicyConfig, after: PolicyConfig) -> bool:
    own = frozenset({"symbol_allowlist", "alpha_by_horizon"})
    # An empty list allows all.
    allows_no_more = not before.symbol_allowlist or (
        bool(after.symbol_allowlist) and set(after.symbol_allowlist) <= set(before.symbol_allowlist)
    )
    return (
        _within(before, after, down=CONFIG_DOWN, up=CONFIG_UP, own=own)
        and after.alpha_ppm == before.alpha_ppm
        and allows_no_more
    )


def _limits_tighten(before: Plan, after: RiskLimits) -> bool:
    limits = before.risk_limits
    return after.max_weight_ppm <= limits.max_weight_ppm and all(
        _at_most(limits.symbol_cap_ppm(symbol), after.symbol_cap_ppm(symbol))
        for symbol in {cap.symbol for cap in limits.symbol_caps}
    )


def _books_tighten(before: L2Limits | None, after: L2Limits | None) -> bool:
    if before is None or after is None:
        return before is None
    blocks = after.missing_l2 in (before.missing_l2, MissingL2.BLOCK)
    return blocks and _within(before, after, down=BOOK_DOWN, own=frozenset({"missing_l2"}))


def _learning_tightens(before: LearningBook | None, after: LearningBook | None) -> bool:
    if before is None or after is None:
        return before is after
    budget, gates = before.budget, before.gates
    shorts = after.budget.shorts in (budget.shorts, LearningShorts.FORBIDDEN)
    budget_down = frozenset(budget.__struct_fields__) - BUDGET_LIKE
    gates_down = frozenset(gates.__struct_fields__) - GATES_UP
    return (
        after.tags == before.tags
        and shorts
        and _within(budget, after.budget, down=budget_down, own=BUDGET_LIKE)
        and _within(gates, after.gates, down=gates_down, up=GATES_UP)
    )
