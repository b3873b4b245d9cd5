"""Join what waits for the session into few runs, drop what nobody waits for, shed early.

Everything but the run itself happens on the event loop's thread. A run that is known to be
short happens there too, because a change of threads costs more than it; a longer one goes to a
worker. How long is short depends on whether there is another processor for that worker. A short
call that comes alone is run at once; those that arrive in one turn of the loop share a run. What
comes while the workers are busy is joined when one is free.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InternalError
from detent.contracts.reasons import Reason
from detent.core.signals.columns import Integers

Floats = NDArray[np.float32]
Outputs = tuple[Floats, ...]
# Per field of the head's signal, an integer per row.
Columns = Mapping[str, Integers]
# How much of the slowdown that was known stays when a run shows another one.
ESTIMATE_KEPT = 0.8


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one call got out of a run.

    Attributes:
        outputs: One array per output of the graph, a row per row that was asked for; or why
            there is none: `INFERENCE_OVERLOADED`, `INFERENCE_DEADLINE`, `INFERENCE_ERROR`.
        columns: The signals of its rows; None where they are mapped row by row.
        latency_us: Time inside the run, microseconds, at least 1; 0 where there was none.
        error: What failed, if it did.
    """

    outputs: Outputs | Reason
    columns: Columns | None = None
    latency_us: int = 0
    error: InternalError | None = None


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds what a queue holds and joins.

    Attributes:
        window_s: How long the first of several calls waits for others, seconds; at 0 nobody
            waits for calls that are not there yet.
        rows_per_run: Rows beyond which no further call joins a run.
        rows_waiting_max: Rows that may wait; more are refused.
        inline_s_max: Runs that are thought to be shorter happen on the event loop's thread.
        workers: Runs that may be under way at once beside it.
    """

    window_s: float = 0.0
    rows_per_run: int = 1_024
    rows_waiting_max: int = 16_384
    inline_s_max: float = 0.000_5
    workers: int = 1


class _Waiting:
    """Holds one call that waits for its turn."""

    __slots__ = ("answer", "expires_s", "expiry", "inputs")

    def __init__(self, inputs: Floats, expires_s: float, answer: asyncio.Future[Ran]) -> None:
        self.inputs = inputs
        self.expires_s = expires_s
        self.answer = answer
        self.expiry: asyncio.TimerHandle | None = None


class RunQueue:
    """Gives each call its rows of a run that it may share with others."""

    def __init__(
        self,
        run: Callable[[Floats], Outputs],
        *,
        columns: Callable[[Outputs], Columns | None],
        limits: QueueLimits,
        cost_s: Callable[[int], float],
        clock: Callable[[], float],
    ) -> None:
        """Start without work.

        Args:
            run: Runs the graph over shape (n, width); raises `InternalError`.
            columns: Maps what a run gave to signals, once for all calls that share it; None
                where a row may have none.
            limits: What the queue may hold and join.
            cost_s: What a run of so many rows takes on a quiet machine, seconds.
            clock: Monotonic clock in seconds.
        """
        self._run = run
        self._columns = columns
        self._limits = limits
        self._cost_s = cost_s
        self._slowdown = 1.0
        self._clock = clock
        self._executor = ThreadPoolExecutor(limits.workers, thread_name_prefix="onnx")
        # In the order of arrival; a dict, because whoever gives up leaves from the middle.
        self._waiting: dict[_Waiting, None] = {}
        self._rows_waiting = 0
        # When each run on a worker began, oldest first.
        self._begun_s: dict[int, float] = {}
        self._run_count = 0
        self._is_due = False
        # Whether a call was run at once in this turn of the event loop.
        self._has_run = False
        # Whether calls came together lately: then the first of a turn waits for the others in it.
        self._is_shared = False
        self._is_closed = False

    @property
    def rows_waiting(self) -> int:
        """Count the rows that wait for a run."""
        return self._rows_waiting

    def close(self) -> None:
        """Take nothing more; what waits is still run, and then the workers go."""
        self._is_closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._is_closed and not self._begun_s and not self._waiting:
            self._executor.shutdown(wait=False)

    async def run(self, inputs: Floats, *, expires_s: float) -> Ran:
        """Run the graph over some rows, alone or together with other calls.

        A caller that stops waiting takes its rows out of the queue. A call that could not be
        answered in time is refused at once, so that those before it are.

        Args:
            inputs: Shape (n, width), float32, n at least 1.
            expires_s: Instant on the clock after which nobody waits for the answer.
        """
        assert not self._is_closed, "a closed queue is asked nothing"
        count = len(inputs)
        if self._rows_waiting + count > self._limits.rows_waiting_max:
            return Ran(outputs=Reason.INFERENCE_OVERLOADED)
        now_s = self._clock()
        if now_s >= expires_s:
            return Ran(outputs=Reason.INFERENCE_DEADLINE)
        loop = asyncio.get_running_loop()
        if self._is_at_once(count):
            self._has_run = True
            loop.call_soon(self._end_turn)
            return self._timed([inputs])[0]
        if self._is_full(now_s, expires_s - now_s, rows=count):
            return Ran(outputs=Reason.INFERENCE_OVERLOADED)
        waiting = _Waiting(inputs, expires_s, loop.create_future())
        self._waiting[waiting] = None
        self._rows_waiting += count
        self._plan(loop)
        if self._limits.window_s > 0 or not self._is_next(count):
            self._watch(waiting, loop)
        try:
            return await waiting.answer
        finally:
            if waiting.expiry is not None:
                waiting.expiry.cancel()
            if waiting in self._waiting:
                self._take(waiting)

    def _end_turn(self) -> None:
        self._has_run = False
        self._is_shared = bool(self._waiting)

    def _is_next(self, rows: int) -> bool:
        """Say whether a call is run in this turn or the next, with nobody's run before it."""
        return not self._begun_s and self._expected_s(rows) <= self._limits.inline_s_max

    def _watch(self, one: _Waiting, loop: asyncio.AbstractEventLoop) -> None:
        """Give up on a call when its time is over, wherever it is then."""
        if one.expiry is None:
            budget_s = max(0.0, one.expires_s - self._clock())
            one.expiry = loop.call_later(budget_s, _give_up, one.answer)

    def _is_at_once(self, rows: int) -> bool:
        """Say whether a run is over before a queue for it could be kept."""
        if self._limits.window_s > 0.0 or self._waiting or self._has_run or self._is_shared:
            return False
        return self._expected_s(rows) <= self._limits.inline_s_max

    def _is_full(self, now_s: float, budget_s: float, *, rows: int) -> bool:
        """Say whether those before a call leave it no time."""
        if len(self._begun_s) < self._limits.workers:
            # Only those of this turn are before it, and every worker is there for them.
            ahead_s = self._expected_s(self._rows_waiting + rows) if self._waiting else 0.0
            return ahead_s > budget_s * self._limits.workers
        oldest_s = next(iter(self._begun_s.values()))
        # A run that has taken longer than anybody may wait says nothing of when it will end.
        overdue = now_s - oldest_s >= budget_s
        return overdue or self._expected_s(self._rows_waiting + rows) > budget_s

    def _take(self, one: _Waiting) -> None:
        del self._waiting[one]
        self._rows_waiting -= len(one.inputs)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_due or len(self._begun_s) >= self._limits.workers:
            return
        self._is_due = True
        if self._limits.window_s > 0:
            loop.call_later(self._limits.window_s, self._start)
        else:
            loop.call_soon(self._start)

    def _start(self) -> None:
        """Start one run with what waits, as long as it is still waited for."""
        self._is_due = False
        batch = self._next_batch()
        self._is_shared = len(batch) > 1
        if not batch:
            self._let_go()
            return
        loop = asyncio.get_running_loop()
        count = sum(len(one.inputs) for one in batch)
        if self._expected_s(count) <= self._limits.inline_s_max:
            self._finish(batch, self._timed([one.inputs for one in batch]))
        else:
            self._run_count += 1
            number = self._run_count
            self._begun_s[number] = self._clock()
            inputs = [one.inputs for one in batch]
            for one in (*batch, *self._waiting):
                self._watch(one, loop)
            done = loop.run_in_executor(self._executor, self._timed, inputs)
            done.add_done_callback(lambda future: self._finished(number, batch, future))
        if self._waiting:
            self._plan(loop)
        self._let_go()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows, now_s = 0, self._clock()
        while self._waiting and rows < self._limits.rows_per_run:
            one = next(iter(self._waiting))
            if batch and not self._may_join(rows, len(one.inputs)):
                break
            self._take(one)
            if one.answer.done():
                # Cancelled, or given up.
                continue
            if now_s >= one.expires_s:
                one.answer.set_result(Ran(outputs=Reason.INFERENCE_DEADLINE))
                continue
            batch.append(one)
            rows += len(one.inputs)
        return batch

    def _may_join(self, rows: int, more: int) -> bool:
        """Say whether a call may share a run: it must not make a long one of a short one."""
        short_s = self._limits.inline_s_max
        is_drawn_out = self._expected_s(rows) <= short_s < self._expected_s(rows + more)
        return not is_drawn_out and rows + more <= self._limits.rows_per_run

    def _timed(self, batch: Sequence[Floats]) -> list[Ran]:
        """Run the calls of a batch together; alone, one by one, where that fails."""
        started_s = self._clock()
        joined = batch[0] if len(batch) == 1 else np.concatenate(batch)
        try:
            outputs = self._run(joined)
        except InternalError as error:
            if len(batch) == 1:
                return [Ran(outputs=Reason.INFERENCE_ERROR, error=error)]
            # Whose rows it were shows when each runs alone; the others shall not suffer.
            return [ran for one in batch for ran in self._timed([one])]
        elapsed_s = self._clock() - started_s
        self._learn(elapsed_s / self._cost_s(len(joined)))
        latency_us = max(1, math.ceil(elapsed_s * 1e6))
        columns = self._columns(outputs)
        if len(batch) == 1:
            return [Ran(outputs=outputs, columns=columns, latency_us=latency_us)]
        rans, start = [], 0
        for one in batch:
            rows = slice(start, start + len(one))
            rans.append(
                Ran(
                    outputs=tuple([output[rows] for output in outputs]),
                    columns=columns and {name: column[rows] for name, column in columns.items()},
                    latency_us=latency_us,
                )
            )
            start = rows.stop
        return rans

    def _expected_s(self, rows: int) -> float:
        return self._slowdown * self._cost_s(rows)

    def _learn(self, slowdown: float) -> None:
        kept = ESTIMATE_KEPT * self._slowdown + (1.0 - ESTIMATE_KEPT) * slowdown
        # Never below one: a machine is not quicker than it was when nothing else ran.
        self._slowdown = max(1.0, kept)

    def _finished(
        self, number: int, batch: Sequence[_Waiting], done: asyncio.Future[list[Ran]]
    ) -> None:
        del self._begun_s[number]
        if done.cancelled():
            rans = [Ran(outputs=Reason.INFERENCE_ERROR)] * len(batch)
        elif done.exception() is not None:
            failed = InternalError("the run failed", error=done.exception())
            rans = [Ran(outputs=Reason.INFERENCE_ERROR, error=failed)] * len(batch)
        else:
            rans = done.result()
        self._finish(batch, rans)
        if self._waiting:
            self._plan(asyncio.get_running_loop())
        self._let_go()

    def _finish(self, batch: Sequence[_Waiting], rans: Sequence[Ran]) -> None:
        for one, ran in zip(batch, rans, strict=True):
            # Who gave up in the meantime has been answered.
            if not one.answer.done():
                one.answer.set_result(ran)


def _give_up(answer: asyncio.Future[Ran]) -> None:
    if not answer.done():
        answer.set_result(Ran(outputs=Reason.INFERENCE_DEADLINE))
