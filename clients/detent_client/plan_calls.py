"""Open, replace, close and read plans, and keep symbols flat."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    ClosePlanResponse,
    GetPlanRequest,
    GetPlanResponse,
    OpenPlanRequest,
    OpenPlanResponse,
    PlanArm,
    SetStandDownRequest,
    SetStandDownResponse,
)
from detent.contracts.calls.replanning import (
    RecordReplanSkipsRequest,
    RecordReplanSkipsResponse,
    ReplacePlanRequest,
    ReplacePlanResponse,
)
from detent.contracts.errors import DetentError, ServiceUnavailable
from detent.contracts.plan import Plan
from detent.contracts.replanning import ReplanCause, ReplanOutcome, ReplanSkip
from detent_client.opened_plan import OpenedPlan
from detent_client.refusals import check_echo

T = TypeVar("T")


class Replanned(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of a replan, and which plan decides from here on."""

    response: ReplacePlanResponse
    opened: OpenedPlan


class PlanCalls(ABC):
    """Is the part of the client that asks `PolicyService` about plans."""

    @abstractmethod
    async def _ask_policy(self, request: Any, response_type: type[T]) -> T:
        """Make one call of `PolicyService`, with deadlines and typed errors."""

    @abstractmethod
    async def _ask_replica(self, target: str, request: Any, response_type: type[T]) -> T:
        """Make the same call of the replica at an address."""

    async def open_plan(self, plan: Plan, binding: ModelBinding) -> OpenedPlan:
        """Open a plan under a binding; the same content may be opened again.

        Raises:
            PlanConflict: The plan id, or the book and symbol, is taken.
            BindingMismatch: No artifact held by the service gives this binding.
        """
        request = OpenPlanRequest(
            binding_hash=binding.binding_hash, plan=plan, model_binding=binding
        )
        response = await self._ask_policy(request, OpenPlanResponse)
        check_echo(response.binding_hash, request.binding_hash)
        return OpenedPlan(plan=plan, binding_hash=response.binding_hash)

    async def open_under_rollout(self, plan: Plan, rollout_id: str) -> tuple[OpenedPlan, ...]:
        """Open a plan under a rollout: one plan or two, which together have all of its symbols.

        Raises:
            PlanConflict: The plan id, or the book and symbol, is taken.
            RolloutNotFound: There is no such rollout.
            ServiceUnavailable: The control database is away; ask again.
        """
        request = OpenPlanRequest(plan=plan, rollout_id=rollout_id)
        response = await self._ask_policy(request, OpenPlanResponse)
        return await self._arms(response.arms)

    async def replace_under_rollout(
        self,
        opened: OpenedPlan,
        plan: Plan,
        rollout_id: str,
        *,
        ts_ms: int,
        cause: ReplanCause = ReplanCause.EVENT,
        note: str = "",
    ) -> tuple[ReplacePlanResponse, tuple[OpenedPlan, ...]]:
        """Replace a plan, with its other arm if it has one, by what a rollout makes of another.

        Args:
            opened: The plan that decides now, or either arm of one.
            plan: What should decide, under a plan id that was never used.
            rollout_id: The rollout whose bindings are taken.
            ts_ms: The instant of which the replan is, Unix milliseconds in data time.
            cause: What makes the strategist replan.
            note: Why, in words; it is kept.

        Returns:
            What became of it, and the plans that decide from here on.

        Raises:
            DetentError: As for `replace_plan` and `open_under_rollout`.
        """
        request = ReplacePlanRequest(
            binding_hash=opened.binding_hash,
            plan_id=opened.plan.plan_id,
            ts_ms=ts_ms,
            plan=plan,
            rollout_id=rollout_id,
            cause=cause,
            note=note,
        )
        response = await self._ask_policy(request, ReplacePlanResponse)
        return response, await self._arms(response.arms)

    async def _arms(self, arms: Sequence[PlanArm]) -> tuple[OpenedPlan, ...]:
        """Give arms as they were opened: with their symbols, and with the caps of their step."""
        opened = []
        for arm in arms:
            held = await self.get_plan(arm.plan_id)
            check_echo(held.binding_hash, arm.binding_hash)
            opened.append(OpenedPlan(plan=held.plan, binding_hash=held.binding_hash))
        return tuple(opened)

    async def replace_plan(
        self,
        opened: OpenedPlan,
        plan: Plan,
        binding: ModelBinding,
        *,
        ts_ms: int,
        cause: ReplanCause = ReplanCause.EVENT,
        note: str = "",
    ) -> Replanned:
        """Close a plan and open another in its place, both or neither.

        Args:
            opened: The plan that decides now.
            plan: What should decide, under a plan id that was never used.
            binding: Its binding; with `signal_source` PROXY it is the way back.
            ts_ms: The instant of which the replan is, Unix milliseconds in data time.
            cause: What makes the strategist replan.
            note: Why, in words; it is kept.

        Raises:
            PlanClosed: The plan was closed or replaced; the metadata name what replaced it.
            PlanOwnerMismatch: The new plan id is another replica's; `fitting_plan_id` of
                `detent.core.ledger.ownership` gives one that is not.
            DetentError: The new plan, or its binding, cannot be.
        """
        request = ReplacePlanRequest(
            binding_hash=opened.binding_hash,
            plan_id=opened.plan.plan_id,
            ts_ms=ts_ms,
            plan=plan,
            model_binding=binding,
            new_binding_hash=binding.binding_hash,
            cause=cause,
            note=note,
        )
        response = await self._ask_policy(request, ReplacePlanResponse)
        replaced = response.outcome is ReplanOutcome.REPLACED
        in_force = OpenedPlan(plan=plan, binding_hash=binding.binding_hash) if replaced else opened
        check_echo(response.binding_hash, in_force.binding_hash)
        return Replanned(response=response, opened=in_force)

    async def record_replan_skips(
        self, opened: OpenedPlan, skips: Sequence[ReplanSkip]
    ) -> RecordReplanSkipsResponse:
        """Hand replans that were not made to the service; the same ones again change nothing."""
        request = RecordReplanSkipsRequest(
            binding_hash=opened.binding_hash, plan_id=opened.plan.plan_id, skips=tuple(skips)
        )
        response = await self._ask_policy(request, RecordReplanSkipsResponse)
        check_echo(response.binding_hash, opened.binding_hash)
        return response

    async def close_plan(self, opened: OpenedPlan) -> ClosePlanResponse:
        """Close a plan; it decides nothing more, and the other arm of a rollout goes on."""
        request = ClosePlanRequest(binding_hash=opened.binding_hash, plan_id=opened.plan.plan_id)
        return await self._ask_policy(request, ClosePlanResponse)

    async def get_plan(self, plan_id: str) -> GetPlanResponse:
        """Give a plan as it was opened."""
        return await self._ask_policy(GetPlanRequest(plan_id=plan_id), GetPlanResponse)

    async def set_stand_down(self, request: SetStandDownRequest) -> SetStandDownResponse:
        """Keep symbols of a book flat until an instant, or lift that; safe to repeat.

        Every replica is told: the plans of a book may have several owners.

        Returns:
            What the replicas confirm; a scope that changed with any of them counts as changed.

        Raises:
            ServiceUnavailable: Some replicas were told and others not, which it names; ask again.
            DetentError: The first replica that was asked refused, or none is in reach.
        """
        first = await self._ask_policy(request, SetStandDownResponse)
        told, untold = [first], dict[str, DetentError]()

        async def tell(target: str) -> None:
            try:
                told.append(await self._ask_replica(target, request, SetStandDownResponse))
            except DetentError as error:
                untold[target] = error

        await asyncio.gather(*(tell(target) for target in first.other_targets))
        for error in untold.values():
            targets = ", ".join(untold)
            raise ServiceUnavailable(
                f"{len(untold)} of {len(told) + len(untold)} replicas were not told, ask again:"
                f" {targets}: {error.message}",
                untold_targets=targets,
            ) from error
        changed = max(told, key=lambda one: one.changed_count)
        return structs.replace(changed, other_targets=())
