"""Gather every kill switch that a policy process obeys, and change the shared ones."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from detent.adapters.kill_file import KillFile
from detent.contracts import events
from detent.contracts.errors import ControlUnavailable, DetentError, ServiceUnavailable
from detent.contracts.kill_switch import KillPosition, KillReader, KillScope, KillSwitch
from detent.core.rollout.kill_state import AUTOMATIC, Key, KillReading
from detent.core.rollout.latch import Latch, LatchLimits, LatchRule
from detent.core.signals.choice import ModelOutcome

if TYPE_CHECKING:
    # A process without a control database does not load what speaks to one.
    from detent.adapters.kill_reader import KillSwitchReader
    from detent.adapters.kill_store import Acknowledged, KillStore

log = logging.getLogger(__name__)
NOT_CONFIGURED = "no control database is configured: set DETENT_POLICY_CONTROL_URL"
# Each waits for its acknowledgement, a second at most.
CHANGES_AT_ONCE = 4
LATCH_AGAIN_S = 0.5


class SharedKills:
    """Holds the shared side: who changes switches, and who reads them."""

    def __init__(self, store: "KillStore", reader: "KillSwitchReader") -> None:
        """Take both; nothing runs yet."""
        self.store = store
        self.reader = reader


class KillSwitches:
    """Owns the reader, the watched file and the latches of one process."""

    def __init__(
        self,
        *,
        file: KillFile | None = None,
        shared: SharedKills | None = None,
        limits: LatchLimits | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Take what there is; nothing runs yet.

        Args:
            file: The watched file; None watches none.
            shared: The control database's side; None obeys none and latches nothing.
            limits: When a model is latched off.
            clock: The monotonic clock, seconds.
        """
        self._file = file
        self._shared = shared
        self._limits = limits or LatchLimits()
        self._clock = clock
        self._latches: dict[str, Latch] = {}
        self._latched: frozenset[Key] = frozenset()
        self._latching: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(CHANGES_AT_ONCE, thread_name_prefix="kill-switch")

    def start(self) -> None:
        """Begin to follow the shared state."""
        if self._shared is not None:
            self._shared.reader.start()

    async def close(self) -> None:
        """Stop following; a latch that is not yet shared is lost with its process."""
        for task in self._latching:
            task.cancel()
        await asyncio.gather(*self._latching, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._shared is not None:
            await asyncio.to_thread(self._shared.reader.stop)

    def reading(self) -> KillReading:
        """Give what is known at this instant; waits for nobody."""
        shared = self._shared
        if shared is not None:
            # A thread that ended by a defect of ours: stale until it reads again.
            shared.reader.start()
        return KillReading(
            file=self._file.off() if self._file is not None else frozenset(),
            latched=self._latched,
            shared=shared.reader.state if shared is not None else None,
            now_s=self._clock(),
        )

    # The shared state

    @property
    def switches(self) -> tuple[KillSwitch, ...]:
        """Give the shared switches as they were read last."""
        return self._shared.reader.switches if self._shared is not None else ()

    async def change(
        self,
        scope: KillScope,
        key: str = "",
        *,
        position: KillPosition,
        seen_epoch: int | None = None,
        actor: str,
        reason: str,
    ) -> "Acknowledged":
        """Change a shared switch and wait until that holds everywhere.

        Raises:
            KillEpochStale: A release names another epoch than the newest.
            InvalidField: The switch cannot be.
            ServiceUnavailable: There is no control database, or it cannot be used.
        """
        if self._shared is None:
            raise ServiceUnavailable(NOT_CONFIGURED, service="control")
        change = partial(
            self._shared.store.change,
            scope,
            key,
            position=position,
            seen_epoch=seen_epoch,
            actor=actor,
            reason=reason,
        )
        done: Acknowledged = await self._in_thread(change)
        facts = {"scope": scope, "key": key, "position": position, "actor": actor}
        facts |= {"reason": reason, "epoch": str(done.kill_switch.epoch)}
        log.warning(events.KILL_SWITCH_SET, extra=facts)
        return done

    async def readers(self) -> list[KillReader]:
        """Give the replicas and what each obeys; nobody where that cannot be read."""
        if self._shared is None:
            return []
        try:
            found: list[KillReader] = await self._in_thread(self._shared.store.readers)
        except ServiceUnavailable:
            return []
        return found

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except ControlUnavailable as error:
            raise ServiceUnavailable(error.message, service="control") from error

    # The latch

    def note_outcomes(
        self, model_id: str, outcomes: Mapping[str, ModelOutcome], ts_ms: int
    ) -> None:
        """Count what went wrong on one bar and latch the model off where it was too much."""
        if self._shared is None:
            return
        latch = self._latches.setdefault(model_id, Latch(self._limits))
        rule = latch.note(outcomes, ts_ms=ts_ms)
        if rule is None:
            return
        log.error(events.MODEL_LATCHED, extra={"model_id": model_id, "rule": rule, "ts_ms": ts_ms})
        # Off here at once, and until it is off everywhere.
        self._latched |= {(KillScope.MODEL, model_id)}
        task = asyncio.get_running_loop().create_task(self._latch(model_id, rule, ts_ms))
        self._latching.add(task)
        task.add_done_callback(self._latching.discard)

    async def _latch(self, model_id: str, rule: LatchRule, ts_ms: int) -> None:
        limit = {
            LatchRule.FAILURES: self._limits.failures,
            LatchRule.FALLBACKS: self._limits.fallbacks,
            LatchRule.FLIPS: self._limits.flips,
        }[rule]
        window_s = self._limits.window_ms // 1_000
        while True:
            try:
                await self.change(
                    KillScope.MODEL,
                    model_id,
                    position=KillPosition.OFF,
                    actor=f"{AUTOMATIC}{rule}",
                    reason=f"{limit} {rule} within {window_s} s of data time, at bar {ts_ms}",
                )
                break
            except DetentError as error:
                log.warning(events.KILL_STATE_LOST, extra={"cause": error.reason})
            await asyncio.sleep(LATCH_AGAIN_S)
        self._latched -= {(KillScope.MODEL, model_id)}
