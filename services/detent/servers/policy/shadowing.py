"""Ask models about bars that are decided, recorded and answered, and keep what they say.

It stands behind the decisions and never beside them: it is handed records that are durable, has
a deadline, a queue and commits of its own, and waits while a decision is under way. What does
not fit into the queue is dropped and counted. A shadow that is gone, slow or broken costs rows of
its own table and nothing else.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec
from opentelemetry.context import Context

from detent.adapters.sqlite_ledger import Written
from detent.contracts import events
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import DataConflict, LedgerUnavailable
from detent.contracts.shadow import ShadowSignal
from detent.core.ledger.record import BoundPlan
from detent.core.rollout.shadow import is_shadowed, shadow_plans, shadow_signals
from detent.rpc.call import Call
from detent.servers.policy.model_path import ModelPath
from detent.servers.policy.ports import Shadows

log = logging.getLogger(__name__)

# Decisions come in bursts, one per bar: nothing for so long means that the burst is over and
# that its answers have left. A tenth of a second is a pause that a busy machine makes within one.
QUIET_S = 0.25
POLL_S = 0.05
# Decisions without a pause keep shadows waiting for no longer than this; then so many bars are
# asked about in spite of them, or a process that never rests would never ask.
QUIET_S_MAX = 5.0
BARS_PER_TURN = 32
# A message or a commit of so many rows keeps a decision that comes meanwhile waiting for no more
# than some milliseconds.
ROWS_PER_CALL = 200
ROWS_PER_COMMIT = 200
SAID_EVERY_S = 60.0
US_PER_S = 1_000_000


class ShadowLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds what shadows may take.

    Attributes:
        deadline_s: How long one asking may take, features and inference together.
        rows_max: Rows that wait to be asked about; 0 asks about none.
        calls_max: Askings at once.
    """

    deadline_s: float = 2.0
    rows_max: int = 20_000
    calls_max: int = 2


class ShadowCounts(msgspec.Struct, kw_only=True):
    """Counts rows from the start of the process.

    Attributes:
        asked: Rows that somebody was asked about.
        answered: Those of them with a probability.
        written: Rows that are durable.
        dropped: Rows that found the queue full, or the process ending.
        lost: Rows that could not be written, or stand there with other content.
    """

    asked: int = 0
    answered: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Holds rows of one bar of one plan, without the bytes that the ledger has.

    What is kept through a burst is memory that its decisions cannot use again.
    """

    bound: BoundPlan
    records: Sequence[DecisionRecord]
    hashes: Sequence[str]


class Shadowing:
    """Owns the queue of bars, the askings under way and what waits to be written."""

    def __init__(
        self,
        *,
        model_path: ModelPath,
        store: Shadows,
        own: bool,
        limits: ShadowLimits,
        clock: Callable[[], float],
        is_busy: Callable[[], bool],
    ) -> None:
        """Ask nobody yet.

        Args:
            model_path: How shadows are asked; its switches are theirs, and it notes nothing.
            store: Where answers become durable.
            own: Whether plans' own models are asked, on the rung SHADOW.
            limits: What shadows may take.
            clock: Monotonic, seconds.
            is_busy: Says whether a decision is under way.
        """
        self._model_path = model_path
        self._store = store
        self._own = own
        self._limits = limits
        self._clock = clock
        self._is_busy = is_busy
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._unwritten: deque[tuple[ShadowSignal, ...]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._said_dropped_s = float("-inf")
        self._offered_s = float("-inf")
        self.counts = ShadowCounts()

    def offer(self, bound: BoundPlan, decided: Sequence[Written]) -> None:
        """Take bars that are durable; gives back at once and never fails.

        Args:
            bound: Their plan.
            decided: Records of one call.
        """
        rows = [item for item in decided if is_shadowed(item.record)]
        if not rows:
            return
        self._offered_s = self._clock()
        if self._is_closing or self._waiting_rows + len(rows) > self._limits.rows_max:
            self._drop(len(rows))
            return
        bar = _Waiting(
            bound=bound,
            records=[item.record for item in rows],
            hashes=[item.record_hash for item in rows],
        )
        self._waiting.append(bar)
        self._waiting_rows += len(rows)
        if len(self._workers) < self._limits.calls_max:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    async def close(self, grace_s: float) -> None:
        """Ask about what waits as far as there is time, drop the rest, write the answers."""
        self._is_closing = True
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace_s)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._waiting_rows:
            self._drop(self._waiting_rows)
            self._waiting.clear()
            self._waiting_rows = 0
        await self._write()
        log.info(events.SHADOW_ENDED, extra=msgspec.structs.asdict(self.counts))

    def _drop(self, row_count: int) -> None:
        self.counts.dropped += row_count
        if self._clock() - self._said_dropped_s >= SAID_EVERY_S:
            self._said_dropped_s = self._clock()
            log.warning(events.SHADOW_DROPPED, extra={"dropped": self.counts.dropped})

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and worker.exception() is not None:
            # A defect of ours: the rows are missing, the decisions are not.
            log.error(events.SHADOW_FAILED, exc_info=worker.exception())

    async def _work(self) -> None:
        while self._waiting or self._unwritten:
            bars = await self._turn()
            if not self._waiting or sum(map(len, self._unwritten)) >= ROWS_PER_COMMIT:
                await self._write()
            for _ in range(bars):
                # Another worker may have left nothing while we waited or asked.
                if not self._waiting:
                    break
                await self._ask_about(self._waiting.popleft())

    async def _turn(self) -> int:
        """Wait until the answers have left and nothing is being decided, or for long enough.

        Returns:
            How many bars may be asked about before looking again.
        """
        ends_s = self._clock() + QUIET_S_MAX
        while not self._is_closing and self._clock() < ends_s:
            if not self._is_busy() and self._clock() - self._offered_s >= QUIET_S:
                return 1
            await asyncio.sleep(POLL_S)
        return BARS_PER_TURN

    async def _ask_about(self, bar: _Waiting) -> None:
        self._waiting_rows -= len(bar.records)
        for asked in shadow_plans(bar.bound, own=self._own):
            for start in range(0, len(bar.records), ROWS_PER_CALL):
                some = slice(start, start + ROWS_PER_CALL)
                await self._ask(bar.bound, asked, bar.records[some], bar.hashes[some])

    async def _ask(
        self,
        bound: BoundPlan,
        asked: BoundPlan,
        records: Sequence[DecisionRecord],
        hashes: Sequence[str],
    ) -> None:
        """Ask one binding about rows of one bar, in a call that is nobody's but ours."""
        started_s = self._clock()
        call = Call(
            deadline_s=started_s + self._limits.deadline_s,
            clock=self._clock,
            identity="shadow",
            trace=Context(),
        )
        ts_ms = records[0].ts_ms
        outcomes = await self._model_path.ask(
            asked, [record.row for record in records], ts_ms=ts_ms, call=call
        )
        latency_us = round((self._clock() - started_s) * US_PER_S)
        signals = shadow_signals(
            list(zip(records, hashes, strict=True)),
            outcomes,
            asked=asked,
            rollout=bound.rollout,
            latency_us=latency_us,
        )
        self._unwritten.append(signals)
        reasons = Counter(one.reason.value for one in signals if one.reason is not None)
        self.counts.asked += len(signals)
        self.counts.answered += len(signals) - reasons.total()
        facts = {
            "plan_id": asked.plan.plan_id,
            "binding_hash": asked.binding_hash,
            "ts_ms": ts_ms,
            "count": len(signals),
            "reasons": dict(reasons),
            "latency_us": latency_us,
        }
        log.info(events.ML_SHADOW_PREDICTION, extra=facts)

    async def _write(self) -> None:
        """Write what was answered; bars share a commit, a fault stays with its own rows."""
        while self._unwritten:
            shared = [self._unwritten.popleft()]
            room = ROWS_PER_COMMIT - len(shared[0])
            while self._unwritten and len(self._unwritten[0]) <= room:
                shared.append(self._unwritten.popleft())
                room -= len(shared[-1])
            await self._commit(shared)

    async def _commit(self, answers: Sequence[Sequence[ShadowSignal]]) -> None:
        try:
            await self._store_all([one for part in answers for one in part])
        except DataConflict:
            for part in answers:
                try:
                    await self._store_all(part)
                except DataConflict as error:
                    self._lose(len(part), error)

    async def _store_all(self, signals: Sequence[ShadowSignal]) -> None:
        if not signals:
            return
        try:
            await self._store.add_shadows(signals)
        except LedgerUnavailable as error:
            self._lose(len(signals), error)
        else:
            self.counts.written += len(signals)

    def _lose(self, row_count: int, error: DataConflict | LedgerUnavailable) -> None:
        self.counts.lost += row_count
        facts = {"count": row_count, "reason": error.reason.value, "message_text": error.message}
        log.warning(events.SHADOW_LOST, extra=facts)
