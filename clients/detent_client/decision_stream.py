"""Decide bars over one stream: ask many, take the answers as they come, never be left alone.

async with client.stream_decisions() as stream:
    await stream.ask(opened, ts_ms=ts_ms, rows=(row,))
    answer = await anext(stream)
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
from msgspec import structs
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from detent.contracts.calls.decision_stream import (
    StreamDecisionsRequest,
    StreamDecisionsResponse,
)
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    DecisionResult,
)
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.errors import (
    DeadlineExceeded,
    DetentError,
    InvalidField,
    LedgerUnavailable,
    NotOwner,
    Overloaded,
    ServiceUnavailable,
)
from detent.rpc.channel import RemoteService
from detent.rpc.tracing import inject, span
from detent_client.breaker import CircuitBreaker
from detent_client.opened_plan import OpenedPlan
from detent_client.options import ClientOptions
from detent_client.owners import Owners
from detent_client.refusals import error_of
from detent_client.stream_link import AskedItem, StreamLink

# Below what the service takes of one stream: it never has to refuse us for that.
UNANSWERED_MAX = 32
UNTAKEN_MAX = 10_000
# The breaker counts what the service did not answer, as it does for a unary call.
FAILURES = (ServiceUnavailable, LedgerUnavailable, DeadlineExceeded)
Asked = Awaitable[DecideTargetWeightsResponse]
Settle = Callable[
    [OpenedPlan, DecideTargetWeightsRequest, Asked], Awaitable[tuple[DecisionResult, ...]]
]


class StreamedDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """Answers one item of a stream.

    Attributes:
        item_id: What `ask` gave.
        plan_id: The plan.
        ts_ms: Close of the bar, Unix milliseconds.
        kind: Which of the bar's two decisions it is.
        results: One per row, as `decide_many` gives them; empty where there is an error.
        error: What `decide_many` would have raised.
    """

    item_id: int
    plan_id: str
    ts_ms: int
    kind: DecisionKind
    results: tuple[DecisionResult, ...] = ()
    error: DetentError | None = None


class DecisionStream:
    """Decides bars of any open plans; every item is answered within its own deadline.

        async with client.stream_decisions() as stream:
            await stream.ask(opened, ts_ms=ts_ms, rows=(row,))
            answer = await anext(stream)

    The answers of one plan come in the order in which they were asked, but for those that
    the client had to give by itself: these come when their time is up, whatever is waiting.
    """

    def __init__(
        self,
        *,
        policy: RemoteService,
        owners: Owners,
        breaker: CircuitBreaker,
        options: ClientOptions,
        settle: Settle,
        tracer: Tracer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts of a client; `settle` makes results of an answer, or of its lack."""
        self._policy = policy
        self._owners = owners
        self._breaker = breaker
        self._options = options
        self._settle = settle
        self._tracer = tracer
        self._clock = clock
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(UNANSWERED_MAX)
        self._links: dict[RemoteService, StreamLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: asyncio.Queue[StreamedDecisions | None] = asyncio.Queue()
        self._has_ended = False

    async def __aenter__(self) -> Self:
        """Give the stream itself; it connects with the first item."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave: what has no answer yet gets none."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            await link.close()

    def __aiter__(self) -> Self:
        """Give the answers as they come."""
        return self

    async def __anext__(self) -> StreamedDecisions:
        """Give the next answer; ends once `end` was called and everything is answered."""
        while self._tasks or not self._has_ended or not self._answers.empty():
            answer = await self._answers.get()
            if answer is not None:
                return answer
        raise StopAsyncIteration

    def end(self) -> None:
        """Say that nothing more will be asked; the answers still come."""
        self._has_ended = True
        # Whoever waits for an answer may have all of them.
        self._answers.put_nowait(None)

    async def ask(
        self,
        opened: OpenedPlan,
        *,
        ts_ms: int,
        rows: Sequence[DecisionRow],
        kind: DecisionKind = DecisionKind.BAR,
        deadline_s: float | None = None,
    ) -> int:
        """Ask for one bar and give the item's number; its answer comes out of the iterator.

        Waits while 32 items have no answer, as part of the item's own time.

        Raises:
            InvalidField: The question cannot be asked, or the stream was ended.
            Overloaded: 10,000 answers were not taken.
        """
        if self._has_ended:
            raise InvalidField("stream", "ended", "one that was not")
        if self._answers.qsize() >= UNTAKEN_MAX:
            raise Overloaded(f"{UNTAKEN_MAX} answers were not taken from the stream")
        ends_s = self._clock() + self._options.time_for_s(deadline_s)
        item_id = next(self._numbers)
        request = StreamDecisionsRequest(
            binding_hash=opened.binding_hash,
            plan_id=opened.plan.plan_id,
            ts_ms=ts_ms,
            kind=kind,
            rows=tuple(rows),
            item_id=item_id,
            timeout_ms=1,
        )
        has_slot = await self._has_slot(ends_s)
        item = AskedItem(request, ends_s)
        task = asyncio.create_task(self._answer(opened, item, has_slot=has_slot))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return item_id

    async def _has_slot(self, ends_s: float) -> bool:
        try:
            async with asyncio.timeout(ends_s - self._clock()):
                await self._slots.acquire()
        except TimeoutError:
            return False
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._has_ended:
            self._answers.put_nowait(None)

    async def _answer(self, opened: OpenedPlan, item: AskedItem, *, has_slot: bool) -> None:
        asked = item.request
        answer = StreamedDecisions(
            item_id=asked.item_id, plan_id=asked.plan_id, ts_ms=asked.ts_ms, kind=asked.kind
        )
        request = DecideTargetWeightsRequest(
            binding_hash=asked.binding_hash,
            plan_id=asked.plan_id,
            ts_ms=asked.ts_ms,
            kind=asked.kind,
            rows=asked.rows,
        )
        with span(self._tracer, "client/StreamDecisions", Context(), kind=SpanKind.CLIENT) as trace:
            waited = self._waited(item, trace, has_slot=has_slot)
            try:
                results = await self._settle(opened, request, waited)
                answer = structs.replace(answer, results=results)
            except DetentError as error:
                answer = structs.replace(answer, error=error)
        self._answers.put_nowait(answer)

    async def _waited(
        self, item: AskedItem, trace: Context, *, has_slot: bool
    ) -> DecideTargetWeightsResponse:
        """Give the service's answer to an item.

        Raises:
            DetentError: What the service refused the item with, or why it did not answer.
        """
        if not has_slot:
            raise DeadlineExceeded("too many items have no answer", remaining_ms=0)
        try:
            if not self._breaker.allows():
                raise ServiceUnavailable("the circuit breaker is open", service="PolicyService")
            item.request = structs.replace(item.request, **dict(inject(trace)))
            service = self._owners.service(item.request.plan_id) or self._policy
            self._link(service).ask(item)
            return await self._counted(item)
        finally:
            self._slots.release()

    async def _counted(self, item: AskedItem) -> DecideTargetWeightsResponse:
        """Wait for an answer within the deadline, and tell the breaker how it went."""
        try:
            async with asyncio.timeout(item.ends_s - self._clock()):
                answer = await item.answer
            if answer.refusal is not None:
                raise error_of(answer.refusal)
        except TimeoutError as error:
            self._breaker.failed()
            raise DeadlineExceeded("the stream gave no answer in time", remaining_ms=0) from error
        except FAILURES:
            self._breaker.failed()
            raise
        except DetentError:
            self._breaker.succeeded()
            raise
        finally:
            for link in self._links.values():
                link.forget(item)
        self._breaker.succeeded()
        return DecideTargetWeightsResponse(binding_hash=answer.binding_hash, results=answer.results)

    def _link(self, service: RemoteService) -> StreamLink:
        link = self._links.get(service)
        if link is None:
            link = StreamLink(service, self._options, self._take, clock=self._clock)
            self._links[service] = link
        return link

    def _take(self, link: StreamLink, item: AskedItem, answer: StreamDecisionsResponse) -> None:
        """Take an answer; one that names the plan's owner is followed once."""
        if answer.refusal is not None and not item.was_sent_on:
            error = error_of(answer.refusal)
            if isinstance(error, NotOwner):
                self._send_on(link, item, error)
                return
        if not item.answer.done():
            item.answer.set_result(answer)

    def _send_on(self, link: StreamLink, item: AskedItem, refusal: NotOwner) -> None:
        """Ask the owner of a plan for all of it that is under way, in its order."""
        plan_id = item.request.plan_id
        try:
            owner = self._link(self._owners.follow(plan_id, refusal))
        except NotOwner as error:
            item.fail(error)
            return
        moved = [item, *(one for one in link.unanswered.values() if one.request.plan_id == plan_id)]
        for one in moved:
            link.forget(one)
            one.was_sent_on = True
            owner.ask(one)
