"""Change and follow the rollouts of the control database for one process."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from detent.contracts import events
from detent.contracts.calls.rollout import (
    PromoteRolloutRequest,
    RollBackRequest,
    SetCanaryPercentRequest,
    WatchRolloutRequest,
    WatchRolloutResponse,
)
from detent.contracts.errors import ControlUnavailable, ServiceUnavailable
from detent.contracts.rollout import Rollout, RolloutEvent, RolloutStage
from detent.core.rollout.kill_state import READ_EVERY_S, is_stale

if TYPE_CHECKING:
    # A process without a control database does not load what speaks to one.
    from detent.adapters.kill_reader import KillSwitchReader
    from detent.adapters.rollout_store import RolledBack, RolloutStore

log = logging.getLogger(__name__)
NOT_CONFIGURED = "no control database is configured: set DETENT_POLICY_CONTROL_URL"
AT_ONCE = 4
# Who watches is told that we are here.
BEAT_S = 10.0
# Who watches a database that is away for longer is sent elsewhere.
LOST_S = 3.0


class SharedRollouts:
    """Holds the shared side: who changes rollouts, and who reads them."""

    def __init__(self, store: "RolloutStore", reader: "KillSwitchReader") -> None:
        """Take both; the reader is that of the kill switches."""
        self.store = store
        self.reader = reader


class Rollouts:
    """Answers for the rollouts; what is changed here is obeyed here before it is answered."""

    def __init__(self, shared: SharedRollouts | None = None, *, clock: Callable[[], float]) -> None:
        """Take the control database's side and the monotonic clock; None refuses every question."""
        self._shared = shared
        self._clock = clock
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rollout")

    def close(self) -> None:
        """Let go of the threads; what hangs in the database ends with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def start(self, rollout: Rollout, *, actor: str, reason: str) -> Rollout:
        """Start a rollout; errors as of the store, or `ServiceUnavailable`."""
        store = self._reach().store
        return await self._changed(
            partial(store.start, rollout, actor=actor, reason=reason), actor, reason
        )

    async def set_percent(self, query: SetCanaryPercentRequest) -> Rollout:
        """Set the candidate's share; errors as of the store, or `ServiceUnavailable`."""
        change = partial(
            self._reach().store.set_percent,
            query.rollout_id,
            query.canary_bps,
            seen_revision=query.seen_revision,
            actor=query.actor,
            reason=query.reason,
            override_reason=query.override_reason,
        )
        return await self._changed(change, query.actor, query.reason)

    async def promote(self, query: PromoteRolloutRequest) -> Rollout:
        """Promote the candidate; errors as of the store, or `ServiceUnavailable`."""
        change = partial(
            self._reach().store.promote,
            query.rollout_id,
            seen_revision=query.seen_revision,
            actor=query.actor,
            reason=query.reason,
            override_reason=query.override_reason,
            evidence=query.evidence,
        )
        return await self._changed(change, query.actor, query.reason)

    async def roll_back(self, query: RollBackRequest) -> "RolledBack":
        """Take the candidate back; answered when that holds everywhere."""
        shared = self._reach()
        done: RolledBack = await self._in_thread(
            partial(
                shared.store.roll_back,
                query.rollout_id,
                actor=query.actor,
                reason=query.reason,
                evidence=query.evidence,
            )
        )
        shared.reader.learn([done.rollout])
        _log(done.rollout, query.actor, query.reason)
        return done

    async def get(self, rollout_id: str) -> Rollout:
        """Give a rollout as it stands now, and obey it from here on.

        Raises:
            RolloutNotFound: There is no such rollout.
            ServiceUnavailable: There is no control database, or it cannot be used.
        """
        shared = self._reach()
        rollout: Rollout = await self._in_thread(partial(shared.store.get, rollout_id))
        shared.reader.learn([rollout])
        return rollout

    def is_rolled_back(self, rollout_id: str) -> bool:
        """Say whether a rollout was taken back, as far as this process knows; waits for nobody."""
        known = self._shared.reader.rollouts.get(rollout_id) if self._shared else None
        return known is not None and known.stage is RolloutStage.ROLLED_BACK

    async def history(self, rollout_id: str) -> list[RolloutEvent]:
        """Give every change of a rollout in its order; raises as `get` does."""
        found: list[RolloutEvent] = await self._in_thread(
            partial(self._reach().store.history, rollout_id)
        )
        return found

    async def rollouts(self, book: str) -> list[Rollout]:
        """Give the rollouts of a book, or of all, newest change first; raises as `get` does."""
        found: list[Rollout] = await self._in_thread(partial(self._reach().store.rollouts, book))
        return found

    async def watch(self, query: WatchRolloutRequest) -> AsyncGenerator[WatchRolloutResponse, None]:
        """Tell of changes as the reader of this process finds them.

        Raises:
            ServiceUnavailable: There is no control database, or it has not been read lately.
        """
        reader = self._reach().reader
        told: dict[str, int] = {}
        told_s, lost_s = -BEAT_S, self._clock()
        while True:
            now_s = self._clock()
            if not is_stale(reader.state, now_s):
                lost_s = now_s
                revision = reader.revision
                changed = _changed_since(reader.rollouts, query, told)
                if changed or now_s - told_s >= BEAT_S:
                    told |= {one.rollout_id: one.revision for one in changed}
                    told_s = now_s
                    yield WatchRolloutResponse(rollouts=changed, revision=revision)
            elif now_s - lost_s >= LOST_S:
                raise ServiceUnavailable("the control database is not read", service="control")
            await asyncio.sleep(READ_EVERY_S)

    def _reach(self) -> SharedRollouts:
        if self._shared is None:
            raise ServiceUnavailable(NOT_CONFIGURED, service="control")
        return self._shared

    async def _changed(self, change: Callable[[], Rollout], actor: str, reason: str) -> Rollout:
        rollout: Rollout = await self._in_thread(change)
        self._reach().reader.learn([rollout])
        _log(rollout, actor, reason)
        return rollout

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except ControlUnavailable as error:
            raise ServiceUnavailable(error.message, service="control") from error


def _changed_since(
    rollouts: Mapping[str, Rollout], query: WatchRolloutRequest, told: Mapping[str, int]
) -> tuple[Rollout, ...]:
    """Give what somebody who watches does not know yet, oldest change first."""
    found = [
        one
        for one in rollouts.values()
        if query.book in ("", one.book)
        and one.revision > told.get(one.rollout_id, query.after_revision)
    ]
    return tuple(sorted(found, key=lambda one: one.revision))


def _log(rollout: Rollout, actor: str, reason: str) -> None:
    facts = {"rollout_id": rollout.rollout_id, "book": rollout.book, "stage": rollout.stage}
    facts |= {"canary_bps": str(rollout.canary_bps), "revision": str(rollout.revision)}
    log.warning(events.ROLLOUT_CHANGED, extra={**facts, "actor": actor, "reason": reason})
