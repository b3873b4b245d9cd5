"""Replace a plan by another in one step, or say why the old one goes on."""

import logging
from collections.abc import Callable, Mapping

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
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.replanning.cadence import not_before_ts_ms
from detent.core.replanning.entry import CarriedRecord, ReplanEntry
from detent.core.replanning.material import material_of
from detent.core.replanning.tightening import only_tightens
from detent.servers.policy.held import HeldBinding, arms_of, check_binding
from detent.servers.policy.plans import Plans

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
        now_ms: Callable[[], int],
        future_skew_ms: int,
        min_interval_ms: int,
    ) -> None:
        """Take the plans and what bounds a replan; see `PolicyHandler`."""
        self._plans = plans
        self._replans = plans.replans
        self._held = held
        self._now_ms = now_ms
        self._future_skew_ms = future_skew_ms
        self._min_interval_ms = min_interval_ms

    async def replace(self, query: ReplacePlanRequest) -> ReplacePlanResponse:
        """Replace a plan, suppress a replan that changes nothing, or skip one that is too early.

        Raises:
            PlanClosed: The plan decides nothing more; the error names what replaced it.
            DetentError: The new plan, or its binding, cannot be.
        """
        # (1) The question is sound: the old plan's hash, a binding that is held, one book.
        old, _ = await self._plans.find(query.plan_id)
        if query.binding_hash != old.binding_hash:
            raise BindingMismatch(query.binding_hash, old.binding_hash)
        if query.model_binding is None:
            raise InvalidField("rollout_id", query.rollout_id, "a binding")
        binding = query.model_binding.effective
        check_binding(query.new_binding_hash, query.plan, binding, self._held)
        if query.plan.book != old.plan.book:
            raise InvalidField("plan.book", query.plan.book, f"the replaced plan's {old.plan.book}")
        self._check_instant(query.ts_ms)
        new = bind_plan(query.plan, binding)
        asked = _asked(query, old, new)
        # One at a time: two replans of one plan must not both find it open.
        async with self._plans.changing():
            # (2) What came before is answered as it was.
            known = await self._replans.find(_key(asked))
            if known is not None and known.outcome is ReplanOutcome.REPLACED:
                return _response(new, known, None)
            opened = await self._plans.get_open(query.plan_id)
            not_before = await self._not_before_ts_ms(query.plan_id)
            entry = known or _judged(asked, not_before_ts_ms=not_before)
            # (3) Durable, then the answer may leave.
            if entry.outcome is ReplanOutcome.REPLACED:
                await self._plans.replace(opened, new, self._noting(entry))
            elif known is None:
                await self._replans.add(entry, at_ms=self._now_ms())
        _log(entry)
        in_force = new if entry.outcome is ReplanOutcome.REPLACED else opened.bound
        return _response(in_force, entry, not_before)

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


def _asked(query: ReplacePlanRequest, old: BoundPlan, new: BoundPlan) -> ReplanEntry:
    """Say what a replan would change."""
    before, after = material_of(old, arms_of(old)), material_of(new, arms_of(new))
    return ReplanEntry(
        book=old.plan.book,
        plan_id=query.plan_id,
        new_plan_id=query.plan.plan_id,
        ts_ms=query.ts_ms,
        outcome=ReplanOutcome.REPLACED,
        cause=query.cause,
        note=query.note,
        changed=before.differing(after),
        only_tightens=only_tightens(old, new),
        material_hash=after.material_hash,
    )


def _judged(asked: ReplanEntry, *, not_before_ts_ms: int) -> ReplanEntry:
    """Say what becomes of a replan: suppressed, too early, or made."""
    if not asked.changed:
        return structs.replace(asked, outcome=ReplanOutcome.SUPPRESSED)
    if asked.ts_ms < not_before_ts_ms and not asked.only_tightens:
        return structs.replace(
            asked,
            outcome=ReplanOutcome.SKIPPED,
            skip_reason=ReplanSkipReason.COOLDOWN_NOT_EXPIRED,
        )
    return asked


def _key(entry: ReplanEntry) -> ReplanKey:
    return ReplanKey(
        plan_id=entry.plan_id,
        new_plan_id=entry.new_plan_id,
        ts_ms=entry.ts_ms,
        material_hash=entry.material_hash,
    )


def _response(
    bound: BoundPlan, entry: ReplanEntry, not_before_ts_ms: int | None
) -> ReplacePlanResponse:
    skipped = entry.outcome is ReplanOutcome.SKIPPED
    return ReplacePlanResponse(
        binding_hash=bound.binding_hash,
        outcome=entry.outcome,
        plan_id=bound.plan.plan_id,
        arms=arms_of(bound),
        policy_config_hash=bound.policy_config_hash,
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
