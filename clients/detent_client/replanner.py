"""Think a plan over when it is time, and never twice at once; go back to the proxy at once."""

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import structs

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.errors import DetentError, PlanClosed, PlanOwnerMismatch
from detent.contracts.plan import Plan
from detent.contracts.replanning import ReplanCause, ReplanSkip, ReplanSkipReason
from detent.contracts.units import ROWS_MAX
from detent.core.ledger.ownership import fitting_plan_id
from detent.core.replanning.cadence import Cadence, cadence_of_bars, judge_cadence
from detent_client.opened_plan import OpenedPlan
from detent_client.plan_calls import PlanCalls, Replanned

# Replans that may overtake a way back before it is given up as somebody else's plan.
FOLLOWED_MAX = 8


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a strategist wants in the place of its plan."""

    plan: Plan
    binding: ModelBinding


Think = Callable[[OpenedPlan, ReplanCause], Awaitable[Proposal]]


class Replanner:
    """Owns the plan that one strategist follows, through all that replace it.

    Thinking may be slow and dear, so it is asked for on an event or a heartbeat, with a least
    interval, one at a time. What is not asked for is noted, with its reason, in the ledger.
    """

    def __init__(
        self,
        client: PlanCalls,
        opened: OpenedPlan,
        *,
        opened_ts_ms: int,
        cadence: Cadence | None = None,
    ) -> None:
        """Follow an open plan.

        Args:
            client: How the service is asked.
            opened: The plan that decides now.
            opened_ts_ms: When it was made, data time; the first heartbeat counts from there.
            cadence: How often; by default that of the plan's bars.
        """
        self._client = client
        self._opened = opened
        self._last_ts_ms = opened_ts_ms
        self._cadence = cadence or cadence_of_bars(opened.plan.bar_interval_ms)
        self._is_thinking = False
        # Noted and not reported yet, by instant, the oldest first.
        self._skips: dict[int, ReplanSkip] = {}

    @property
    def opened(self) -> OpenedPlan:
        """Give the plan that decides now."""
        return self._opened

    @property
    def unreported(self) -> tuple[ReplanSkip, ...]:
        """Give the skips that no service has yet; the newest `ROWS_MAX` are kept."""
        return tuple(self._skips.values())

    async def consider(
        self, ts_ms: int, think: Think, *, event: str = ""
    ) -> Replanned | ReplanSkip:
        """Replan if it is time, or say why it is not.

        Args:
            ts_ms: The instant, Unix milliseconds in data time.
            think: Makes the new plan, under a plan id that was never used.
            event: What happened that asks for it, in words; empty when nothing did.

        Raises:
            DetentError: `think` failed, or the service refused the plan; the old one goes on.
        """
        verdict = judge_cadence(
            self._cadence,
            ts_ms=ts_ms,
            last_ts_ms=self._last_ts_ms,
            is_running=self._is_thinking,
            has_event=bool(event),
        )
        if isinstance(verdict, ReplanSkipReason):
            return await self._skipped(ts_ms, verdict)
        began_with = self._opened
        self._is_thinking, self._last_ts_ms = True, ts_ms
        try:
            wanted = await think(began_with, verdict)
            return await self._replace(began_with, wanted, ts_ms=ts_ms, cause=verdict, note=event)
        except PlanClosed as error:
            # It was overtaken: whoever went back to the proxy meanwhile has the last word.
            if self._opened is began_with:
                await self._follow(error)
            return await self._skipped(ts_ms, ReplanSkipReason.ALREADY_RUNNING)
        finally:
            self._is_thinking = False

    async def roll_back(self, plan_id: str, *, ts_ms: int, note: str = "") -> Replanned:
        """Go back to the proxy now, and change nothing else.

        It waits for no cadence and no thinking; a replan that was quicker is rolled back.

        Raises:
            DetentError: The service refused it or did not answer.
        """
        for _ in range(FOLLOWED_MAX):
            began_with = self._opened
            plan = structs.replace(began_with.plan, plan_id=plan_id)
            try:
                wanted = Proposal(plan=plan, binding=PROXY_BINDING)
                return await self._replace(
                    began_with, wanted, ts_ms=ts_ms, cause=ReplanCause.EVENT, note=note
                )
            except PlanClosed as error:
                await self._follow(error)
        raise PlanClosed(f"plan {self._opened.plan.plan_id!r} is replaced again and again")

    async def _replace(
        self, opened: OpenedPlan, wanted: Proposal, *, ts_ms: int, cause: ReplanCause, note: str
    ) -> Replanned:
        plan = wanted.plan
        try:
            answer = await self._client.replace_plan(
                opened, plan, wanted.binding, ts_ms=ts_ms, cause=cause, note=note
            )
        except PlanOwnerMismatch as error:
            # The name is ours to draw; its owner has to be the old plan's.
            fitting = fitting_plan_id(
                plan.plan_id,
                owner=int(error.metadata["owner"]),
                replica_count=int(error.metadata["replica_count"]),
            )
            plan = structs.replace(plan, plan_id=fitting)
            answer = await self._client.replace_plan(
                opened, plan, wanted.binding, ts_ms=ts_ms, cause=cause, note=note
            )
        if self._opened is opened:
            self._opened = answer.opened
        return answer

    async def _follow(self, refusal: PlanClosed) -> None:
        """Take up the plan that replaced ours, also when we never heard that it did.

        Raises:
            PlanClosed: None did: it was closed.
        """
        successor_id = refusal.metadata.get("replaced_by")
        if successor_id is None:
            raise refusal
        found = await self._client.get_plan(successor_id)
        self._opened = OpenedPlan(plan=found.plan, binding_hash=found.binding_hash)

    async def _skipped(self, ts_ms: int, reason: ReplanSkipReason) -> ReplanSkip:
        skip = ReplanSkip(ts_ms=ts_ms, reason=reason)
        self._skips.setdefault(ts_ms, skip)
        while len(self._skips) > ROWS_MAX:
            del self._skips[next(iter(self._skips))]
        pending = self.unreported
        try:
            await self._client.record_replan_skips(self._opened, pending)
        except DetentError:
            # They stay; the next one brings them along.
            return skip
        for known in pending:
            self._skips.pop(known.ts_ms, None)
        return skip
