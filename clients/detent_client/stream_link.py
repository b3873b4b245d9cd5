"""Keep one stream to one replica: when it breaks, begin another with what has no answer."""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from msgspec import structs

from detent.contracts.calls.decision_stream import (
    TIMEOUT_MS_MAX,
    StreamDecisionsRequest,
    StreamDecisionsResponse,
)
from detent.contracts.errors import DetentError, InternalError, ServiceUnavailable
from detent.rpc.channel import RemoteService
from detent_client.options import ClientOptions

MS_PER_S = 1_000
# grpcio ends a stream as INTERNAL when it breaks under what is being sent: nobody's fault.
BROKEN = (ServiceUnavailable, InternalError)
# What is asked waits meanwhile: a service that is back is found again within a bar.
PAUSE_S_MAX = 0.4


class AskedItem:
    """Is one item on its way, and where its answer goes.

    Attributes:
        request: What is asked.
        ends_s: When its caller stops waiting, on the monotonic clock.
        answer: The answer, or the error that there is in its place.
        was_sent_on: Whether a replica has named another as the owner of its plan.
    """

    __slots__ = ("answer", "ends_s", "request", "was_sent_on")

    def __init__(self, request: StreamDecisionsRequest, ends_s: float) -> None:
        """Wait for an answer."""
        self.request = request
        self.ends_s = ends_s
        self.answer: asyncio.Future[StreamDecisionsResponse]
        self.answer = asyncio.get_running_loop().create_future()
        self.was_sent_on = False

    def fail(self, error: DetentError) -> None:
        """Say that there is no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class StreamLink:
    """Owns the stream to one replica, from the first item until it is closed."""

    def __init__(
        self,
        service: RemoteService,
        options: ClientOptions,
        take: Callable[["StreamLink", AskedItem, StreamDecisionsResponse], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet; `take` is given each answer with its item."""
        self._service = service
        self._options = options
        self._take = take
        self._clock = clock
        # By number, and so in the order in which they were asked.
        self.unanswered: dict[int, AskedItem] = {}
        self._outbox: deque[AskedItem] = deque()
        self._more = asyncio.Event()
        self._failures = 0
        self._running: asyncio.Task[None] | None = None

    def ask(self, item: AskedItem) -> None:
        """Send an item; items of one plan are asked in the order of their bars."""
        self.unanswered[item.request.item_id] = item
        self._outbox.append(item)
        self._more.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    def forget(self, item: AskedItem) -> None:
        """Wait no longer for an item; it is not sent again."""
        self.unanswered.pop(item.request.item_id, None)

    async def close(self) -> None:
        """Leave the stream."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        """Begin a stream after another for as long as somebody waits."""
        while True:
            try:
                await self._converse()
            except DetentError as error:
                self._failures += 1
                is_last = self._failures >= self._options.attempts_max
                if is_last or not isinstance(error, BROKEN):
                    self._fail_all(error)
            if not self.unanswered:
                self._failures = 0
                return
            longest_s = min(self._options.backoff_s * 2**self._failures, PAUSE_S_MAX)
            await asyncio.sleep(random.uniform(0, longest_s))  # noqa: S311  Jitter is no secret.

    async def _converse(self) -> None:
        """Ask what is unanswered, and take answers until the stream ends.

        Raises:
            DetentError: What ended it.
        """
        self._outbox = deque(self.unanswered.values())
        answers = self._service.converse(
            self._requests(), StreamDecisionsRequest, StreamDecisionsResponse
        )
        async with contextlib.aclosing(answers):
            async for answer in answers:
                self._failures = 0
                item = self.unanswered.pop(answer.item_id, None)
                # One that nobody waits for any more came too late.
                if item is not None:
                    self._take(self, item, answer)
        raise ServiceUnavailable("the stream has ended", service="PolicyService")

    async def _requests(self) -> AsyncIterator[StreamDecisionsRequest]:
        outbox = self._outbox
        # A generator of a stream that broke gets nothing more to send.
        while outbox is self._outbox:
            while outbox:
                item = outbox.popleft()
                left_ms = min(int((item.ends_s - self._clock()) * MS_PER_S), TIMEOUT_MS_MAX)
                if item.request.item_id in self.unanswered and left_ms > 0:
                    yield structs.replace(item.request, timeout_ms=left_ms)
            self._more.clear()
            await self._more.wait()

    def _fail_all(self, error: DetentError) -> None:
        self._failures = 0
        for item in self.unanswered.values():
            item.fail(error)
        self.unanswered.clear()
