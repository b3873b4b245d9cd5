"""Replace a plan by another in one step, or say why the old one goes on."""

import logging
from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from detent.adapters.sqlite_file import Statement
from detent.adapters.sqlite_replans import ReplanKey
from detent.contracts import events
from detent.contracts.calls.replanning import (
    RecordReplanSkipsRequest,
    RecordReplanSkipsResponse,
    ReplacePlanRequest,
    ReplacePlanResponse,
)
from detent.contracts.errors import BarFromFuture, BindingMismatch, InvalidField
from detent.contracts.replanning import CarriedState, ReplanOutcome, ReplanSkipReason
from detent.contracts.rollout import RolloutArm, base_plan_id
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.replanning.cadence import not_before_ts_ms
from detent.core.replanning.entry import CarriedRecord, ReplanEntry
from detent.core.replanning.material import Material, material_of_arms
from detent.core.replanning.tightening import arms_only_tighten
from detent.servers.policy.held import HeldBinding, arms_of, check_binding
from detent.servers.policy.opening import arms_under, check_plan_id, same_arms
from detent.servers.policy.plans import Plans
from detent.servers.policy.rollouts import Rollouts

log = logging.getLogger(__name__)

EVENTS = {
    ReplanOutcome.REPLACED: events.PLAN_REPLACED,
    ReplanOutcome.SUPPRESSED: events.REPLAN_SUPPRESSED,
    ReplanOutcome.SKIPPED: events.REPLAN_SKIPPED,
}


class PlanReplacer:
    """Answers `ReplacePlan` and keeps the skips that strategists note."""

    def __init__(
        self,
        *,
        plans: Plans,
        held: Mapping[str, HeldBinding],
        rollouts: Rollouts,
        now_ms: Callable[[], int],
        future_skew_ms: int,
        min_interval_ms: int,
    ) -> None:
        """Take the plans and what bounds a replan; see `PolicyHandler`."""
        self._plans = plans
        self._replans = plans.replans
        self._held = held
        self._rollouts = rollouts
        self._now_ms = now_ms
        self._future_skew_ms = future_skew_ms
        self._min_interval_ms = min_interval_ms

    async def replace(self, query: ReplacePlanRequest) -> ReplacePlanResponse:
        """Replace a plan, suppress a replan that changes nothing, or skip one that is too early.

        Raises:
            PlanClosed: The plan decides nothing more; the error names what replaced it.
            DetentError: The new plan, or its binding, cannot be.
        """
        # (1) The question is sound: an old plan's hash, bindings that are held, one book.
        old = [bound for bound, _ in await self._plans.arms_of(query.plan_id)]
        if not old:
            await self._plans.find(query.plan_id)
        if query.binding_hash not in [bound.binding_hash for bound in old]:
            raise BindingMismatch(query.binding_hash, old[0].binding_hash)
        if query.plan.book != old[0].plan.book:
            expected = f"the replaced plan's {old[0].plan.book}"
            raise InvalidField("plan.book", query.plan.book, expected)
        self._check_instant(query.ts_ms)
        check_plan_id(query.plan.plan_id)
        new = await self._wanted(query)
        after = material_of_arms(new)
        # One at a time: two replans of one plan must not both find it open.
        async with self._plans.changing():
            # (2) What came before is answered as it was.
            known = await self._replans.find(_key(query, after))
            if known is not None and known.outcome is ReplanOutcome.REPLACED:
                return _response(new, known, None)
            # An arm may have been closed alone: what decides now is what would change.
            opened = await self._plans.arms_open(query.plan_id)
            asked = _asked(query, [one.bound for one in opened], new, after)
            not_before = await self._not_before_ts_ms(query.plan_id)
            is_early = query.ts_ms < not_before and not await self._takes_back(old, new)
            entry = known or _judged(asked, is_early=is_early)
            # (3) Durable, then the answer may leave.
            if entry.outcome is ReplanOutcome.REPLACED:
                await self._plans.replace(opened, new, self._noting(entry))
            elif known is None:
                await self._replans.add(entry, at_ms=self._now_ms())
        _log(entry)
        replaced = entry.outcome is ReplanOutcome.REPLACED
        in_force = new if replaced else [one.bound for one in opened]
        return _response(in_force, entry, not_before)

    async def _wanted(self, query: ReplacePlanRequest) -> Sequence[BoundPlan]:
        """Give what would replace a plan: under its binding, or the arms of a rollout.

        Arms that the very replan was answered with before are given as they were.
        """
        if query.rollout_id is None:
            assert query.model_binding is not None
            binding = query.model_binding.effective
            check_binding(query.new_binding_hash, query.plan, binding, self._held)
            return (bind_plan(query.plan, binding),)
        before = await self._replans.predecessor(query.plan.plan_id)
        if before is not None and before.plan_id == base_plan_id(query.plan_id):
            known = await self._plans.arms_of(query.plan.plan_id)
            return same_arms([bound for bound, _ in known], query.plan, query.rollout_id)
        rollout = await self._rollouts.get(query.rollout_id)
        return arms_under(query.plan, rollout, self._held)

    async def _takes_back(self, old: Sequence[BoundPlan], new: Sequence[BoundPlan]) -> bool:
        """Say whether a replan only follows a rollback: nobody waits to get off a candidate."""
        arms = [bound.rollout for bound in old if bound.rollout is not None]
        left = [one.rollout_id for one in arms if one.arm is RolloutArm.CANDIDATE]
        stays = [bound.rollout for bound in new if bound.rollout is not None]
        if not left or any(one.arm is RolloutArm.CANDIDATE for one in stays):
            return False
        return self._rollouts.is_rolled_back(left[0])

    async def record_skips(self, query: RecordReplanSkipsRequest) -> RecordReplanSkipsResponse:
        """Keep skips of a plan, open or closed; those that are held already change nothing."""
        bound, _ = await self._plans.find(query.plan_id)
        if query.binding_hash != bound.binding_hash:
            raise BindingMismatch(query.binding_hash, bound.binding_hash)
        entries = [
            ReplanEntry(
                book=bound.plan.book,
                plan_id=query.plan_id,
                new_plan_id="",
                ts_ms=skip.ts_ms,
                outcome=ReplanOutcome.SKIPPED,
                skip_reason=skip.reason,
            )
            for skip in query.skips
        ]
        # Nobody else adds to the plan's rows meanwhile: the count of the new ones is exact.
        async with self._plans.changing():
            accepted_count = await self._replans.add_new(entries, at_ms=self._now_ms())
        return RecordReplanSkipsResponse(
            binding_hash=bound.binding_hash,
            accepted_count=accepted_count,
            known_count=len(entries) - accepted_count,
        )

    def _check_instant(self, ts_ms: int) -> None:
        """Refuse a replan of the future: later ones would wait for it."""
        now_ms = self._now_ms()
        if ts_ms > now_ms + self._future_skew_ms:
            message = f"the replan is of {ts_ms}, the clock says {now_ms}"
            raise BarFromFuture(message, ts_ms=ts_ms, now_ms=now_ms)

    async def _not_before_ts_ms(self, plan_id: str) -> int:
        """Give the first instant at which a plan may be replaced again."""
        before = await self._replans.predecessor(plan_id)
        last_ts_ms = before.ts_ms if before is not None else None
        return not_before_ts_ms(self._min_interval_ms, last_ts_ms)

    def _noting(self, entry: ReplanEntry) -> Callable[[Mapping[str, CarriedState]], Statement]:
        def noting(carried: Mapping[str, CarriedState]) -> Statement:
            records = tuple(
                CarriedRecord(symbol=symbol, record_hash=state.record_hash)
                for symbol, state in sorted(carried.items())
            )
            full = structs.replace(entry, carried=records)
            return self._replans.adding(full, at_ms=self._now_ms())

        return noting


def _asked(
    query: ReplacePlanRequest,
    opened: Sequence[BoundPlan],
    new: Sequence[BoundPlan],
    after: Material,
) -> ReplanEntry:
    """Say what a replan would change."""
    return ReplanEntry(
        book=query.plan.book,
        plan_id=base_plan_id(query.plan_id),
        new_plan_id=query.plan.plan_id,
        ts_ms=query.ts_ms,
        outcome=ReplanOutcome.REPLACED,
        cause=query.cause,
        note=query.note,
        changed=material_of_arms(opened).differing(after),
        only_tightens=arms_only_tighten(opened, new),
        material_hash=after.material_hash,
    )


def _judged(asked: ReplanEntry, *, is_early: bool) -> ReplanEntry:
    """Say what becomes of a replan: suppressed, too early, or made."""
    if not asked.changed:
        return structs.replace(asked, outcome=ReplanOutcome.SUPPRESSED)
    if is_early and not asked.only_tightens:
        return structs.replace(
            asked,
            outcome=ReplanOutcome.SKIPPED,
            skip_reason=ReplanSkipReason.COOLDOWN_NOT_EXPIRED,
        )
    return asked


def _key(query: ReplacePlanRequest, after: Material) -> ReplanKey:
    return ReplanKey(
        plan_id=base_plan_id(query.plan_id),
        new_plan_id=query.plan.plan_id,
        ts_ms=query.ts_ms,
        material_hash=after.material_hash,
    )


def _response(
    bounds: Sequence[BoundPlan], entry: ReplanEntry, not_before_ts_ms: int | None
) -> ReplacePlanResponse:
    skipped = entry.outcome is ReplanOutcome.SKIPPED
    first = bounds[0]
    return ReplacePlanResponse(
        binding_hash=first.binding_hash,
        outcome=entry.outcome,
        plan_id=base_plan_id(first.plan.plan_id),
        arms=arms_of(*bounds),
        policy_config_hash=first.policy_config_hash,
        skip_reason=entry.skip_reason,
        not_before_ts_ms=not_before_ts_ms if skipped else None,
    )


def _log(entry: ReplanEntry) -> None:
    facts: dict[str, object] = {
        "plan_id": entry.plan_id,
        "new_plan_id": entry.new_plan_id,
        "book": entry.book,
        "ts_ms": entry.ts_ms,
        "cause": entry.cause.value if entry.cause is not None else "",
        "changed": entry.changed,
    }
    if entry.skip_reason is not None:
        facts |= {"reason": entry.skip_reason.value}
    log.info(EVENTS[entry.outcome], extra=facts)
