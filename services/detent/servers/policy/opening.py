"""Open plans, under a binding of their own or under those of a rollout."""

import logging
from collections.abc import Mapping, Sequence

from msgspec import structs

from detent.contracts import events
from detent.contracts.calls.policy import OpenPlanRequest, OpenPlanResponse
from detent.contracts.errors import InvalidField, PlanConflict, RolloutConflict
from detent.contracts.plan import Plan
from detent.contracts.rollout import CANDIDATE_SUFFIX, Rollout, RolloutStage
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.rollout.plan_arms import arm_plans, of_symbols
from detent.servers.policy.held import HeldBinding, arms_of, check_binding
from detent.servers.policy.plans import Plans, check_open
from detent.servers.policy.rollouts import Rollouts

log = logging.getLogger(__name__)


class PlanOpener:
    """Answers `OpenPlan`."""

    def __init__(
        self, *, plans: Plans, held: Mapping[str, HeldBinding], rollouts: Rollouts
    ) -> None:
        """Take the plans, what is held, by hash, and the rollouts."""
        self._plans = plans
        self._held = held
        self._rollouts = rollouts

    async def open(self, query: OpenPlanRequest) -> OpenPlanResponse:
        """Open what a call asks for; the same again gives what is open.

        Raises:
            DetentError: The plan, its binding or its rollout cannot be.
        """
        check_plan_id(query.plan.plan_id)
        bounds = await self._opened(query)
        for bound in bounds:
            facts = {"plan_id": bound.plan.plan_id, "binding_hash": bound.binding_hash}
            log.info(events.PLAN_OPENED, extra=facts)
        return OpenPlanResponse(
            binding_hash=bounds[0].binding_hash,
            arms=arms_of(*bounds),
            policy_config_hash=bounds[0].policy_config_hash,
        )

    async def _opened(self, query: OpenPlanRequest) -> tuple[BoundPlan, ...]:
        if query.rollout_id is not None:
            return await self._under_rollout(query.plan, query.rollout_id)
        assert query.model_binding is not None
        binding = query.model_binding.effective
        check_binding(query.binding_hash, query.plan, binding, self._held)
        bound = bind_plan(query.plan, binding)
        await self._plans.open(bound)
        return (bound,)

    async def _under_rollout(self, plan: Plan, rollout_id: str) -> tuple[BoundPlan, ...]:
        """Open the arms, or give those that were opened before, as they were."""
        async with self._plans.changing():
            known = await self._plans.arms_of(plan.plan_id)
            if known:
                for bound, status in known:
                    check_open(bound, status)
                return same_arms([bound for bound, _ in known], plan, rollout_id)
            bounds = arms_under(plan, await self._rollouts.get(rollout_id), self._held)
            await self._plans.open_all(bounds)
        return bounds


def arms_under(
    plan: Plan, rollout: Rollout, held: Mapping[str, HeldBinding]
) -> tuple[BoundPlan, ...]:
    """Give the plans that a plan comes to under a rollout as it stands, checked.

    Raises:
        RolloutConflict: The rollout has ended, or is of another book.
        DetentError: An arm's binding is not held here, or not of the plan's horizon.
    """
    if rollout.stage is RolloutStage.ENDED:
        expected = "a rollout that no other one followed"
        raise RolloutConflict(rollout.rollout_id, found=rollout.stage, expected=expected)
    if rollout.book != plan.book:
        found, expected = f"a plan of book {plan.book}", f"one of book {rollout.book}"
        raise RolloutConflict(rollout.rollout_id, found=found, expected=expected)
    bounds = arm_plans(plan, rollout)
    for bound in bounds:
        for binding in (bound.binding, bound.shadow_binding):
            if binding is not None:
                check_binding(binding.binding_hash, bound.plan, binding, held)
    return bounds


def check_plan_id(plan_id: str) -> None:
    """Refuse a name that the plan of a candidate's symbols would have."""
    if plan_id.endswith(CANDIDATE_SUFFIX):
        raise InvalidField("plan.plan_id", plan_id, f"a name that does not end {CANDIDATE_SUFFIX}")


def same_arms(known: Sequence[BoundPlan], plan: Plan, rollout_id: str) -> tuple[BoundPlan, ...]:
    """Give the arms that a plan was opened as, if it was this plan under this rollout.

    The percent may have changed since: which symbols are whose was settled then.

    Raises:
        PlanConflict: The name was used for something else.
    """
    symbols = {symbol for bound in known for symbol in bound.plan.symbols}
    for bound in known:
        is_arm = bound.rollout is not None and bound.rollout.rollout_id == rollout_id
        if not is_arm or symbols != set(plan.symbols) or not _is_part(bound.plan, plan):
            raise PlanConflict(
                f"plan {bound.plan.plan_id!r} is known otherwise; a change needs a new plan id",
                plan_id=bound.plan.plan_id,
                found="other content",
                expected="the content and the rollout it was opened with",
            )
    return tuple(known)


def _is_part(part: Plan, plan: Plan) -> bool:
    """Say whether a plan is what another says of some of its symbols."""
    # The caps of the step as it was then are in the limits.
    expected = structs.replace(
        of_symbols(plan, part.symbols), plan_id=part.plan_id, risk_limits=part.risk_limits
    )
    return part == expected
