"""Decide the items of a stream: each a call of its own, those of one plan in their order.

A plan has a lane: its items wait for each other, and for nobody else. An item holds a slot
from when it is read until its answer was sent, so what a caller can make us hold is bounded:
one too many is refused at once, and who does not read its refusals is not read either.
"""

import asyncio
import functools
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from msgspec import structs
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from detent.contracts import events
from detent.contracts.calls.decision_stream import (
    StreamDecisionsRequest,
    StreamDecisionsResponse,
)
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    RowRefusal,
)
from detent.contracts.errors import DeadlineExceeded, DetentError, Overloaded, shown
from detent.rpc.call import Call
from detent.rpc.call_lines import say
from detent.rpc.conversation import CANCELLED, OK, Malformed
from detent.rpc.status import as_detent_error
from detent.rpc.tracing import annotate, extract, span, trace_id_of

METHOD = "PolicyService/StreamDecisions"
# Of one stream: items under way, and refusals for want of a slot that are not sent yet.
ITEMS_MAX = 64
REFUSALS_MAX = 8
# Of all streams together: as many items as there may be calls, and the rows in them.
ITEMS_ALL_MAX = 1_000
ROWS_ALL_MAX = 100_000
MS_PER_S = 1_000

log = logging.getLogger(__name__)
Item = StreamDecisionsRequest | Malformed
Decide = Callable[[DecideTargetWeightsRequest, Call], Awaitable[DecideTargetWeightsResponse]]
Release = Callable[[], None]
NoteRefusal = Callable[[str, Any, DetentError], Awaitable[None]]


class DecisionStreams:
    """Serves every stream of a process, and counts what they hold together."""

    def __init__(self, *, decide: Decide, note_refusal: NoteRefusal, tracer: Tracer) -> None:
        """Take what decides an item as a unary call, and what notes a refusal."""
        self._decide = decide
        self._note_refusal = note_refusal
        self._tracer = tracer
        self.items = 0
        self.rows = 0

    async def answer(
        self, items: AsyncIterator[Item], call: Call
    ) -> AsyncGenerator[StreamDecisionsResponse, None]:
        """Give the answers of one stream as they are ready.

        What was begun is finished and recorded even when the caller leaves.
        """
        stream = _Stream(self, call)
        reading = asyncio.create_task(stream.read(items))
        try:
            while (answer := await stream.next_answer()) is not None:
                yield answer
            await reading
        finally:
            reading.cancel()
            stream.leave()
            await asyncio.gather(reading, *stream.lanes, return_exceptions=True)

    async def decided(self, item: Item, call: Call) -> StreamDecisionsResponse:
        """Answer one item, under a span, and write its line."""
        started_s, code = call.clock(), CANCELLED
        ids: dict[str, str | int] = {
            name: _of(item, name, default)
            for name, default in (("binding_hash", ""), ("plan_id", ""), ("ts_ms", 0))
        }
        kind = SpanKind.SERVER
        with span(self._tracer, METHOD, call.trace, kind=kind, attributes=ids) as trace:
            try:
                answer = await self._decided_in_time(item, structs.replace(call, trace=trace))
                code = OK
            except Exception as failed:  # noqa: BLE001  One item's defect ends no other.
                error = as_detent_error(failed)
                code = error.reason.value
                annotate(trace, {"error.reason": code})
                await self._noted(item, error)
                answer = refused(item, error)
            finally:
                elapsed_ms = round((call.clock() - started_s) * MS_PER_S, 3)
                facts = {"method": METHOD, "code": code, "elapsed_ms": elapsed_ms}
                say(log, events.RPC, {**facts, "trace_id": trace_id_of(trace), **ids})
        return answer

    async def _decided_in_time(self, item: Item, call: Call) -> StreamDecisionsResponse:
        if isinstance(item, Malformed):
            raise item.error
        try:
            async with asyncio.timeout(call.remaining_s()):
                given = await self._decide(item, call)
        except TimeoutError as error:
            raise DeadlineExceeded("the item was not decided in time", remaining_ms=0) from error
        return StreamDecisionsResponse(
            binding_hash=given.binding_hash, results=given.results, item_id=item.item_id
        )

    async def _noted(self, item: Item, error: DetentError) -> None:
        asked = item.message if isinstance(item, Malformed) else item
        try:
            await self._note_refusal(METHOD, asked, error)
        except DetentError:
            # The refusal stands whether or not it could be noted.
            log.exception(events.CALL_FAILED)


class _Stream:
    """Holds what one stream has under way."""

    def __init__(self, streams: DecisionStreams, call: Call) -> None:
        self._streams = streams
        self._call = call
        self._waiting: dict[str, deque[tuple[Item, Call]]] = {}
        # With each answer goes what gives its slot back, once it was sent.
        self._answers: asyncio.Queue[tuple[StreamDecisionsResponse, Release] | None]
        self._answers = asyncio.Queue()
        self._release: Release = _nothing
        self._refusals = asyncio.Semaphore(REFUSALS_MAX)
        self._items = 0
        self._rows = 0
        self.lanes: set[asyncio.Task[None]] = set()

    async def read(self, items: AsyncIterator[Item]) -> None:
        """Put every item into its plan's lane, or refuse it; then wait for the lanes."""
        try:
            async for item in items:
                limit = self._take(item)
                if limit is not None:
                    await self._refusals.acquire()
                    error = Overloaded(f"{limit} are under way, as many as are taken", limit=limit)
                    self._answers.put_nowait((refused(item, error), self._refusals.release))
                    continue
                plan_id = str(_of(item, "plan_id", ""))
                lane = self._waiting.get(plan_id)
                if lane is None:
                    lane = self._waiting[plan_id] = deque()
                    task = asyncio.create_task(self._serve(plan_id, lane))
                    self.lanes.add(task)
                    task.add_done_callback(self.lanes.discard)
                lane.append((item, _call_of(item, self._call)))
            if self.lanes:
                await asyncio.wait(self.lanes)
        finally:
            self._answers.put_nowait(None)

    async def next_answer(self) -> StreamDecisionsResponse | None:
        """Give the next answer; the one before it was sent."""
        self._release()
        self._release = _nothing
        given = await self._answers.get()
        if given is None:
            return None
        answer, self._release = given
        return answer

    def leave(self) -> None:
        """Stop the lanes and give back what is held."""
        for lane in self.lanes:
            lane.cancel()
        self._give(self._items, self._rows)

    async def _serve(self, plan_id: str, lane: deque[tuple[Item, Call]]) -> None:
        while lane:
            item, call = lane.popleft()
            answer = await self._streams.decided(item, call)
            self._answers.put_nowait((answer, functools.partial(self._give, 1, _rows_of(item))))
        del self._waiting[plan_id]

    def _take(self, item: Item) -> str | None:
        """Take a slot for an item; give the limit that it would break, if any."""
        streams, rows = self._streams, _rows_of(item)
        if self._items >= ITEMS_MAX:
            return f"{ITEMS_MAX} items of the stream"
        if streams.items >= ITEMS_ALL_MAX:
            return f"{ITEMS_ALL_MAX} items of all streams"
        if streams.rows + rows > ROWS_ALL_MAX:
            return f"{ROWS_ALL_MAX} rows of all streams"
        self._give(-1, -rows)
        return None

    def _give(self, items: int, rows: int) -> None:
        """Give back so many items and rows; negative ones are taken."""
        self._items -= items
        self._rows -= rows
        self._streams.items -= items
        self._streams.rows -= rows


def _nothing() -> None:
    """Give nothing back."""


def refused(item: Item, error: DetentError) -> StreamDecisionsResponse:
    """Give the answer to an item that is refused as a whole."""
    return StreamDecisionsResponse(
        binding_hash=str(_of(item, "binding_hash", "")),
        results=(),
        item_id=int(_of(item, "item_id", 0)),
        refusal=RowRefusal(reason=error.reason, message=error.message, metadata=error.metadata),
    )


def _call_of(item: Item, call: Call) -> Call:
    """Give the call that an item is: from now on, with a deadline and a trace of its own."""
    if isinstance(item, Malformed):
        return call
    deadline_s = min(call.deadline_s, call.clock() + item.timeout_ms / MS_PER_S)
    return structs.replace(call, deadline_s=deadline_s, trace=_trace_of(item, call))


def _trace_of(item: StreamDecisionsRequest, call: Call) -> Context:
    if not item.traceparent:
        return call.trace
    headers = [("traceparent", item.traceparent)]
    if item.tracestate:
        headers.append(("tracestate", item.tracestate))
    return extract(headers)


def _rows_of(item: Item) -> int:
    return 0 if isinstance(item, Malformed) else len(item.rows)


def _of(item: Item, name: str, default: str | int) -> str | int:
    """Give a field of an item, as far as it reads."""
    if not isinstance(item, Malformed):
        return getattr(item, name, default)
    value = getattr(item.message, name, default)
    return shown(value) if isinstance(value, str) else value
