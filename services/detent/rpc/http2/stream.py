"""Hold one call: what has come of it, what has gone of it, and who serves it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from detent.rpc.http2.heads import STATUS_OK, Metadata
from detent.rpc.http2.messages import PREFIX_BYTES, MessageReader


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a call ended.

    Attributes:
        answer: The message to send before the end, if any.
        code: gRPC status code; 0 is success.
        message: What a person is told, where it did not succeed.
        metadata: Trailing metadata; bytes under names that end in `-bin`.
    """

    answer: bytes | None = None
    code: int = STATUS_OK
    message: str = ""
    metadata: Metadata = ()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Says who serves a path.

    Attributes:
        serve: Serves a call to its end.
        takes_stream: Whether it is called before all requests are there, to read them as they
            come; else it is called with the one request.
        gives_stream: Whether it may answer more than once.
    """

    serve: Callable[["Stream"], Awaitable[Ended]]
    takes_stream: bool = False
    gives_stream: bool = False

    @property
    def is_open_ended(self) -> bool:
        """Say whether a call that names no deadline has none."""
        return self.takes_stream or self.gives_stream

    @property
    def is_conversation(self) -> bool:
        """Say whether requests and answers go both ways at once, for as long as both like."""
        return self.takes_stream and self.gives_stream


class Carrier(Protocol):
    """Is what a stream asks of its connection."""

    def send(self, stream: "Stream", message: bytes) -> None:
        """Send a message, or keep it until the peer has room."""

    def was_read(self, stream: "Stream", size: int) -> None:
        """Take notice that the handler has read a message of so many bytes."""


class Stream:
    """Is one call as its handler sees it; everything else here belongs to the connection."""

    __slots__ = (
        "_arrival",
        "_carrier",
        "_room",
        "deadline_s",
        "has_begun",
        "has_ended",
        "has_started",
        "headers",
        "inbox",
        "is_closed",
        "is_sent",
        "is_stopped",
        "peer",
        "pending",
        "reader",
        "receive_window",
        "route",
        "send_window",
        "stream_id",
        "tail",
        "task",
        "unread",
    )

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        route: Route,
        headers: Mapping[str, str],
        reader: MessageReader,
        *,
        peer: str,
        deadline_s: float,
        send_window: int,
        receive_window: int,
    ) -> None:
        """Take what the head of the request says."""
        self._carrier = carrier
        self.stream_id = stream_id
        self.route = route
        self.headers = headers
        self.reader = reader
        self.peer = peer
        self.deadline_s = deadline_s
        self.task: asyncio.Task[None] | None = None
        self.has_started = False
        self.is_closed = False
        self.is_stopped = False
        # Of the requests: what waits to be read, and how much more the peer may send.
        self.inbox: deque[bytes] = deque()
        self.unread = 0
        self.has_ended = False
        self.receive_window = receive_window
        # Of the answer: whether its head is gone, what waits for room, and how it will end.
        self.has_begun = False
        self.send_window = send_window
        self.pending: deque[bytes | memoryview] = deque()
        self.tail: bytes | None = None
        self.is_sent = False
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def path(self) -> str:
        """Give the path that was called."""
        return self.headers[":path"]

    @property
    def held(self) -> int:
        """Count the bytes of requests that lie here."""
        return self.unread + self.reader.held

    @property
    def message(self) -> bytes:
        """Give the one request of a call that has one."""
        return self.inbox[0]

    def put(self, message: bytes) -> None:
        """Add a request; an empty one counts too, or they would be without bound."""
        self.inbox.append(message)
        self.unread += len(message) + PREFIX_BYTES

    async def messages(self) -> AsyncIterator[bytes]:
        """Give the requests as they come, until the caller has sent its last, or we stop."""
        while True:
            while self.inbox and not self.is_stopped:
                message = self.inbox.popleft()
                size = len(message) + PREFIX_BYTES
                self.unread -= size
                self._carrier.was_read(self, size)
                yield message
            if self.has_ended or self.is_stopped:
                return
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival

    async def send(self, message: bytes) -> None:
        """Send one of several answers; returns when the next one may be given."""
        self._carrier.send(self, message)
        while self.pending and not self.is_closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def stop(self) -> None:
        """Read no further request: the process ends, and what was read is still answered."""
        self.is_stopped = True
        self.arrived()

    async def stopping(self) -> None:
        """Return when the process ends; of use where no request is read meanwhile."""
        while not self.is_stopped:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival

    def arrived(self) -> None:
        """Wake who waits for a request."""
        _wake(self._arrival)

    def has_room(self) -> None:
        """Wake who waits to send."""
        _wake(self._room)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
