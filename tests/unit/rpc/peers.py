"""Speak HTTP/2 to a server in the frames of `hyperframe`, or through the state machine of `h2`."""

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE_S = 10.0
Headers = list[tuple[str, str]]


def head(path: str = "/t.S/Echo", **more: str) -> Headers:
    """Give the head of a gRPC request; `more` names headers with `_` for `-`."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


def prefixed(message: bytes, flag: int = 0) -> bytes:
    """Put gRPC's prefix before a message."""
    return struct.pack(">BL", flag, len(message)) + message


class RawPeer:
    """Writes frames, well-formed or not, and reads what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.seen: list[Frame] = []

    @classmethod
    async def connect(
        cls, port: int, *, greets: bool = True, settings: Mapping[int, int] | None = None
    ) -> Self:
        """Open a connection, with the greeting unless told otherwise."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        if greets:
            peer.send(PREFACE, SettingsFrame(0, settings=dict(settings or {})))
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def send(self, *written: Frame | bytes) -> None:
        """Write frames, or bytes as they are."""
        parts = [part if isinstance(part, bytes) else part.serialize() for part in written]
        self.writer.write(b"".join(parts))

    def headers(
        self,
        stream_id: int,
        headers: Iterable[tuple[str, str]] | None = None,
        flags: Iterable[str] = ("END_HEADERS",),
    ) -> HeadersFrame:
        """Make a HEADERS frame."""
        block = self.encoder.encode(list(head() if headers is None else headers))
        return HeadersFrame(stream_id, block, flags=list(flags))

    def call(
        self,
        stream_id: int,
        message: bytes = b"hello",
        headers: Iterable[tuple[str, str]] | None = None,
    ) -> bytes:
        """Make a whole call of one request."""
        data = DataFrame(stream_id, prefixed(message), flags=["END_STREAM"])
        return bytes(self.headers(stream_id, headers).serialize() + data.serialize())

    async def frame(self) -> Frame | None:
        """Read a frame; None where the connection has ended."""
        try:
            header = await self.reader.readexactly(9)
            made, size = Frame.parse_frame_header(memoryview(header))
            made.parse_body(memoryview(await self.reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        if isinstance(made, HeadersFrame):
            made.headers = dict(self.decoder.decode(made.data))
        self.seen.append(made)
        return made

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """Read up to the first frame of which something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while (made := await self.frame()) is not None:
                if holds(made):
                    return made
        raise AssertionError(f"the connection ended after {self.seen}")

    async def last_of(self, stream_id: int) -> Any:
        """Read up to the trailers of a stream, and give them; its reset fails."""
        ending = await self.until(
            lambda made: (
                made.stream_id == stream_id
                and ("END_STREAM" in made.flags or isinstance(made, RstStreamFrame))
            )
        )
        assert isinstance(ending, HeadersFrame), ending
        return ending.headers

    async def reset_of(self, stream_id: int) -> int:
        """Read up to the reset of a stream, and give its code."""
        found = await self.until(
            lambda made: made.stream_id == stream_id and isinstance(made, RstStreamFrame)
        )
        return int(found.error_code)

    async def refusal(self) -> int:
        """Read until the server has left, and give the code of its last words."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.frame() is not None:
                pass
        gone = [made for made in self.seen if isinstance(made, GoAwayFrame)]
        assert gone, "the server left without a word"
        return int(gone[-1].error_code)


class Answer:
    """Collects what came back on one stream."""

    def __init__(self) -> None:
        self.head: dict[str, str] = {}
        self.tail: dict[str, str] = {}
        self.data = b""
        self.is_ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        """Give the gRPC status."""
        return int((self.tail or self.head)["grpc-status"])


class JudgedPeer:
    """Speaks through `h2`, which raises wherever the server breaks the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        config = H2Configuration(client_side=True, header_encoding="utf-8")
        self.judge = H2Connection(config)
        self.answers: dict[int, Answer] = {}
        self.events: list[Event] = []
        self.takes_data = True

    @classmethod
    async def connect(cls, port: int, settings: Mapping[int, int] | None = None) -> Self:
        """Open a connection and greet."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        peer.judge.initiate_connection()
        if settings:
            peer.judge.update_settings(dict(settings))
        peer.flush()
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def flush(self) -> None:
        """Write what the state machine wants to say."""
        self.writer.write(self.judge.data_to_send())

    def begin(self, path: str, *, has_ended: bool = False, **more: str) -> int:
        """Send a head and give its stream."""
        stream_id = self.judge.get_next_available_stream_id()
        self.judge.send_headers(stream_id, head(path, **more), end_stream=has_ended)
        self.answers[stream_id] = Answer()
        self.flush()
        return int(stream_id)

    def send(self, stream_id: int, content: bytes, *, has_ended: bool = False) -> None:
        """Send bytes of requests that fit into the windows."""
        self.judge.send_data(stream_id, content, end_stream=has_ended)
        self.flush()

    async def send_long(self, stream_id: int, content: bytes, *, has_ended: bool = True) -> None:
        """Send bytes of requests as the windows allow."""
        at = 0
        while at < len(content):
            room = self.judge.local_flow_control_window(stream_id)
            room = min(room, self.judge.max_outbound_frame_size, len(content) - at)
            if not room:
                await self.read()
                continue
            is_last = at + room == len(content)
            self.send(stream_id, content[at : at + room], has_ended=has_ended and is_last)
            at += room
            await self.writer.drain()

    async def read(self) -> bool:
        """Take one portion; false where the server has left."""
        async with asyncio.timeout(PATIENCE_S):
            data = await self.reader.read(65_536)
        for event in self.judge.receive_data(data) if data else ():
            self.events.append(event)
            self._take(event)
        self.flush()
        return bool(data)

    def _take(self, event: Event) -> None:
        stream_id = getattr(event, "stream_id", None)
        answer = self.answers.get(stream_id or 0)
        if answer is None:
            return
        match event:
            case ResponseReceived():
                answer.head = dict(event.headers)
            case TrailersReceived():
                answer.tail = dict(event.headers)
            case DataReceived():
                answer.data += event.data
                if self.takes_data and event.flow_controlled_length:
                    self.judge.acknowledge_received_data(event.flow_controlled_length, stream_id)
            case StreamEnded():
                answer.is_ended = True
            case StreamReset():
                answer.reset = event.error_code

    async def answer(self, stream_id: int) -> Answer:
        """Read until a stream has ended, and give what came."""
        answer = self.answers[stream_id]
        while not answer.is_ended and answer.reset is None:
            assert await self.read(), "the server left"
        return answer

    async def idle(self, wait_s: float = 0.05) -> None:
        """Take what comes until nothing comes for a while."""
        while True:
            try:
                data = await asyncio.wait_for(self.reader.read(65_536), wait_s)
            except TimeoutError:
                return
            if not data:
                return
            for event in self.judge.receive_data(data):
                self.events.append(event)
                self._take(event)
            self.flush()

    async def call(self, path: str = "/t.S/Echo", message: bytes = b"hello", **more: str) -> Answer:
        """Ask once."""
        stream_id = self.begin(path, **more)
        self.send(stream_id, prefixed(message), has_ended=True)
        return await self.answer(stream_id)

    async def farewell(self) -> list[ConnectionTerminated]:
        """Read until the server has left, and give its last words."""
        while await self.read():
            pass
        return [event for event in self.events if isinstance(event, ConnectionTerminated)]
