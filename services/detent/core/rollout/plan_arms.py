"""Split a plan over the arms of its rollout, as they are when it opens (D10)."""

from collections.abc import Iterable

from msgspec import structs

from detent.contracts.binding import SignalSource
from detent.contracts.plan import Plan, RiskLimits
from detent.contracts.rollout import (
    CANDIDATE_SUFFIX,
    PlanRollout,
    RampCaps,
    Rollout,
    RolloutArm,
    RolloutStage,
)
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.rollout.assignment import resolve_arms
from detent.core.rollout.changes import step_at

NO_CAPS = RampCaps()


def arm_plans(plan: Plan, rollout: Rollout) -> tuple[BoundPlan, ...]:
    """Give the plans that a plan comes to under a rollout: stable, candidate, or both.

    Each is watched by the other's model, so that the two can be compared symbol by symbol; the
    proxy needs no watching, it is computed on every bar. A rollout that was taken back has no
    candidate any more, neither beside.

    Args:
        plan: What the strategist asked for.
        rollout: As it stands now.

    Source: decisions D10 and D18; rows R116, R122 and R137; ADR 0049.
    """
    share_bps = rollout.canary_bps if rollout.is_live else 0
    arms = resolve_arms(plan.symbols, salt=rollout.salt, canary_bps=share_bps)
    stable, candidate = rollout.stable_binding, rollout.candidate_binding
    found = []
    if arms.stable:
        found.append(
            bind_plan(
                of_symbols(plan, arms.stable),
                stable,
                rollout=_facts(rollout, RolloutArm.STABLE),
                shadow_binding=candidate if rollout.is_live else None,
            )
        )
    if arms.candidate:
        is_model = stable.signal_source is SignalSource.MODEL
        found.append(
            bind_plan(
                candidate_plan(plan, arms.candidate, caps_of(rollout)),
                candidate,
                rollout=_facts(rollout, RolloutArm.CANDIDATE),
                shadow_binding=stable if is_model else None,
            )
        )
    return tuple(found)


def candidate_plan_id(plan_id: str) -> str:
    """Name the plan of the candidate's symbols."""
    return plan_id + CANDIDATE_SUFFIX


def caps_of(rollout: Rollout) -> RampCaps:
    """Give the caps of the present step; a promoted candidate has none."""
    if rollout.stage is not RolloutStage.CANARY:
        return NO_CAPS
    return step_at(rollout.ramp, rollout.canary_bps).caps


def candidate_plan(plan: Plan, symbols: tuple[str, ...], caps: RampCaps) -> Plan:
    """Give the plan of the candidate's symbols, tightened by the caps of a step."""
    part = structs.replace(of_symbols(plan, symbols), plan_id=candidate_plan_id(plan.plan_id))
    most_ppm = min(part.risk_limits.max_weight_ppm, caps.max_weight_ppm)
    if caps.max_exposure_ppm is not None:
        most_ppm = min(most_ppm, caps.max_exposure_ppm // len(symbols))
    limits = structs.replace(part.risk_limits, max_weight_ppm=most_ppm)
    return structs.replace(part, risk_limits=limits)


def of_symbols(plan: Plan, symbols: Iterable[str]) -> Plan:
    """Give a plan for some of its symbols; every other word of it stays."""
    kept = tuple(symbols)
    allowed = plan.policy_config.symbol_allowlist
    allowed_here = tuple(symbol for symbol in allowed if symbol in kept)
    limits = plan.risk_limits
    if allowed and not allowed_here:
        # An empty list allows all: what allowed none of these symbols still has to.
        limits = RiskLimits(max_weight_ppm=0)
    caps = tuple(cap for cap in limits.symbol_caps if cap.symbol in kept)
    return structs.replace(
        plan,
        symbols=kept,
        policy_config=structs.replace(plan.policy_config, symbol_allowlist=allowed_here),
        risk_limits=structs.replace(limits, symbol_caps=caps),
    )


def _facts(rollout: Rollout, arm: RolloutArm) -> PlanRollout:
    return PlanRollout(
        rollout_id=rollout.rollout_id,
        arm=arm,
        canary_bps=rollout.canary_bps,
        revision=rollout.revision,
    )
