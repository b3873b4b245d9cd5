"""Speak HTTP/2 with one peer: frames in, calls served, frames out (RFC 9113; gRPC over HTTP/2).

Everything happens on the event loop's thread. What a peer may make us hold is bounded: calls,
header bytes, unread messages, control frames per second; who does not read is not read either.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping
from typing import cast

from hpack.exceptions import HPACKError

from detent.contracts import events
from detent.rpc.http2 import frames, heads
from detent.rpc.http2.frames import ProtocolViolation
from detent.rpc.http2.header_reader import HeaderReader
from detent.rpc.http2.messages import MessageReader, TooLong, Unreadable
from detent.rpc.http2.opening import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    no_grpc,
    opening_of,
)
from detent.rpc.http2.outflow import Outflow
from detent.rpc.http2.shared import Shared
from detent.rpc.http2.stream import Ended, Stream
from detent.rpc.http2.writer import Writer

STREAM_WINDOW = 1024 * 1024
CONNECTION_WINDOW = 16 * 1024 * 1024
FRAME_BYTES_MAX = 256 * 1024
HEADER_BLOCK_BYTES_MAX = 32 * 1024
CONTINUATIONS_MAX = 16
# How long a peer that is told to go may take to read its last words.
LINGER_S = 5.0
PING_BYTES = 8
# Frames that carry nothing of a call, resets among them, in one span of time.
NUISANCES_MAX = 20_000
NUISANCE_SPAN_S = 10.0

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Serves the calls of one peer."""

    _transport: asyncio.Transport
    _writer: Writer
    _out: Outflow

    def __init__(self, shared: Shared) -> None:
        """Wait for a peer."""
        self._shared = shared
        self._headers = HeaderReader(HEADER_BLOCK_BYTES_MAX)
        self._peer = ""
        self._rest = b""
        self._block: tuple[int, int, list[bytes]] | None = None
        self._last_id = 0
        self._window = CONNECTION_WINDOW
        self._nuisances = 0
        self._nuisances_since_s = shared.clock()
        self.begun_s = shared.clock()
        self.is_greeted = False
        self._is_ending = False
        self._linger: asyncio.TimerHandle | None = None
        self.streams: dict[int, Stream] = {}

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what we take, before anything was asked."""
        # No check by type: uvloop's transports have the methods and not the class.
        self._transport = cast("asyncio.Transport", transport)
        self._writer = Writer(self._transport, asyncio.get_running_loop())
        self._out = Outflow(self._writer, self.streams)
        self._peer = _name_of(transport.get_extra_info("peername"))
        limits = self._shared.limits
        if len(self._shared.connections) >= limits.connections_max:
            log.warning(events.CONNECTION_REFUSED, extra={"peer": self._peer, "found": "too many"})
            self._transport.abort()
            return
        self._shared.connections.add(self)
        self._shared.on_work()
        ours = {
            frames.MAX_CONCURRENT_STREAMS: limits.calls_max,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_FRAME_SIZE: FRAME_BYTES_MAX,
            frames.MAX_HEADER_LIST_SIZE: HEADER_BLOCK_BYTES_MAX,
        }
        further = CONNECTION_WINDOW - frames.WINDOW_DEFAULT
        self._writer.write(frames.settings(ours) + frames.window_update(0, further))

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call of a peer that is gone."""
        del exc
        self._shared.connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        for stream in list(self.streams.values()):
            self._abandon(stream)

    def pause_writing(self) -> None:
        """Read nothing more from a peer that does not read."""
        self._out.pause()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with a peer that reads again."""
        self._transport.resume_reading()
        self._close_all(self._out.resume())

    def data_received(self, data: bytes) -> None:
        """Take what came; a peer that breaks the protocol is told how, and left."""
        if self._transport.is_closing():
            return
        try:
            self._take(self._rest + data if self._rest else data)
        except ProtocolViolation as violation:
            facts = {"peer": self._peer, "code": violation.code, "found": str(violation)}
            log.warning(events.CONNECTION_REFUSED, extra=facts)
            self.leave(violation.code, str(violation))

    # What the listener tells.

    def announce_end(self) -> None:
        """Ask the peer to begin no further call here; what it has begun is served."""
        self._is_ending = True
        self._writer.write(frames.go_away(frames.STREAM_ID_MAX, frames.NO_ERROR))
        # A stream of answers would go on for as long as its caller likes.
        for stream in self.streams.values():
            if stream.route.gives_stream:
                stream.stop()

    def leave(self, code: int = frames.NO_ERROR, message: str = "") -> None:
        """Say the last word and close, whatever is still under way."""
        if self._transport.is_closing():
            return
        for stream in list(self.streams.values()):
            self._cut_short(stream, Ended(code=UNAVAILABLE, message="the connection ends"))
        self._writer.write(frames.go_away(self._last_id, code, message))
        self._writer.flush()
        self._transport.close()
        # Who does not read would otherwise hold the connection for ever.
        self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Close at once, and send nothing that is not gone."""
        self._transport.abort()

    def expire(self, now_s: float) -> None:
        """End the calls whose callers wait no longer."""
        for stream in list(self.streams.values()):
            if now_s >= stream.deadline_s:
                self._cut_short(stream, Ended(code=DEADLINE_EXCEEDED, message="Deadline Exceeded"))

    # What a call tells.

    def send(self, stream: Stream, message: bytes) -> None:
        """Send one of several answers, or keep it until the peer has room."""
        if not stream.is_closed:
            self._out.send(stream, message)

    def was_read(self, stream: Stream, size: int) -> None:
        """Take notice that the handler has read a message of so many bytes."""
        self._shared.buffered_bytes -= size
        if not stream.is_closed and not stream.has_ended:
            self._credit(stream)

    # Frames.

    def _take(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self.is_greeted:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise ProtocolViolation(frames.PROTOCOL_ERROR, "this port speaks gRPC only")
            if end < len(frames.PREFACE):
                self._rest = data
                return
            at, self.is_greeted = len(frames.PREFACE), True
        while end - at >= frames.HEADER_BYTES:
            size, kind, flags, stream_id = frames.header_of(data, at)
            if size > FRAME_BYTES_MAX:
                raise ProtocolViolation(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            stop = at + frames.HEADER_BYTES + size
            if stop > end:
                break
            payload = data[at + frames.HEADER_BYTES : stop]
            at = stop
            if self._block is not None and kind != frames.CONTINUATION:
                raise ProtocolViolation(frames.PROTOCOL_ERROR, "a header block broken off")
            self._dispatch(kind, flags, stream_id, payload)
        self._rest = data[at:]

    def _dispatch(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._on_data(flags, stream_id, payload)
        elif kind == frames.HEADERS:
            if len(payload) > HEADER_BLOCK_BYTES_MAX:
                raise ProtocolViolation(frames.ENHANCE_YOUR_CALM, f"a head of {len(payload)} bytes")
            self._block = (stream_id, flags, [frames.unpadded(payload, flags, priority=True)])
            self._on_block_part(flags)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream_id, payload)
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, stream_id, payload)
        else:
            self._count_nuisance()
            self._on_control(kind, flags, stream_id, payload)

    def _on_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take a frame of the other kinds; PRIORITY, GOAWAY and unknown ones say nothing here."""
        if kind == frames.RST_STREAM:
            frames.word_of(payload, "RST_STREAM")
            self._check_begun(stream_id, "RST_STREAM")
            if stream_id in self.streams:
                self._abandon(self.streams[stream_id])
        elif kind == frames.SETTINGS:
            self._on_settings(flags, stream_id, payload)
        elif kind == frames.PING:
            if len(payload) != PING_BYTES:
                raise ProtocolViolation(frames.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
            if stream_id:
                raise ProtocolViolation(frames.PROTOCOL_ERROR, f"PING on stream {stream_id}")
            if not flags & frames.ACK:
                self._writer.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
        elif kind == frames.GOAWAY and stream_id:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")

    def _count_nuisance(self) -> None:
        self._nuisances += 1
        if self._nuisances <= NUISANCES_MAX:
            return
        now_s = self._shared.clock()
        if now_s - self._nuisances_since_s < NUISANCE_SPAN_S:
            found = f"{self._nuisances} control frames within {NUISANCE_SPAN_S:.0f} s"
            raise ProtocolViolation(frames.ENHANCE_YOUR_CALM, found)
        self._nuisances, self._nuisances_since_s = 0, now_s

    def _check_begun(self, stream_id: int, name: str) -> None:
        if not stream_id % 2 or stream_id > self._last_id:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, f"{name} on stream {stream_id}")

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if flags & frames.ACK:
            if payload:
                raise ProtocolViolation(frames.FRAME_SIZE_ERROR, "an answer with SETTINGS")
            return
        # The last of a name counts. One by one, a frame could ask for a day's work.
        for name, value in dict(frames.settings_of(payload)).items():
            self._out.apply(name, value)
        self._writer.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._close_all(self._out.pump_all())

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        increment = frames.word_of(payload, "WINDOW_UPDATE") & frames.WINDOW_MAX
        if not increment:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, "a window update of nothing")
        if not stream_id:
            self._close_all(self._out.widen(increment))
            return
        self._check_begun(stream_id, "WINDOW_UPDATE")
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.send_window += increment
        if stream.send_window > frames.WINDOW_MAX:
            self._writer.write(frames.reset(stream_id, frames.FLOW_CONTROL_ERROR))
            self._abandon(stream)
            return
        self._out.pump(stream)
        if stream.is_sent:
            self._close(stream)

    # Requests.

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        parts = self._block[2]
        parts.append(payload)
        if len(parts) > CONTINUATIONS_MAX or sum(map(len, parts)) > HEADER_BLOCK_BYTES_MAX:
            raise ProtocolViolation(frames.ENHANCE_YOUR_CALM, "a header block without an end")
        self._on_block_part(flags)

    def _on_block_part(self, flags: int) -> None:
        if not flags & frames.END_HEADERS or self._block is None:
            return
        stream_id, first_flags, parts = self._block
        self._block = None
        try:
            # Read even where nobody wants it: the blocks that follow build on it.
            headers = self._headers.read(b"".join(parts))
        except HPACKError as error:
            raise ProtocolViolation(frames.COMPRESSION_ERROR, str(error)) from error
        has_ended = bool(first_flags & frames.END_STREAM)
        stream = self.streams.get(stream_id)
        if stream is not None:
            if not has_ended or stream.has_ended:
                raise ProtocolViolation(frames.PROTOCOL_ERROR, "a second head of a request")
            self._on_end(stream)
        elif not stream_id % 2:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, f"stream {stream_id} of a client")
        elif stream_id > self._last_id:
            self._last_id = stream_id
            self._open(stream_id, headers, has_ended=has_ended)
        elif not has_ended:
            raise ProtocolViolation(frames.STREAM_CLOSED, f"stream {stream_id} begun again")
        else:
            # The end of a request that was answered before it was whole.
            self._count_nuisance()

    def _open(self, stream_id: int, headers: Mapping[str, str], *, has_ended: bool) -> None:
        shared = self._shared
        foreign = no_grpc(headers)
        if foreign is not None:
            self._out.refuse(stream_id, heads.refused(*foreign), has_ended=has_ended)
            return
        opening = opening_of(headers, shared.routes)
        if not isinstance(opening, Ended) and shared.calls >= shared.limits.calls_max:
            message = f"{shared.calls} calls are under way, as many as are taken"
            opening = Ended(code=RESOURCE_EXHAUSTED, message=message)
        if isinstance(opening, Ended):
            block = heads.whole(opening.code, opening.message, opening.metadata)
            self._out.refuse(stream_id, block, has_ended=has_ended)
            return
        timeout_s = opening.timeout_s
        if timeout_s is None:
            timeout_s = math.inf if opening.route.is_open_ended else shared.limits.unary_wait_s
        stream = Stream(
            self,
            stream_id,
            opening.route,
            headers,
            MessageReader(opening.encoding, shared.limits.message_bytes_max),
            peer=self._peer,
            deadline_s=shared.clock() + timeout_s,
            send_window=self._out.stream_window,
            receive_window=STREAM_WINDOW,
        )
        self.streams[stream_id] = stream
        shared.begin_call()
        if opening.route.takes_stream:
            stream.is_stopped = self._is_ending and opening.route.is_conversation
            self._start(stream)
        if has_ended:
            self._on_end(stream)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ProtocolViolation(frames.FLOW_CONTROL_ERROR, "more data than was asked for")
        if self._window < CONNECTION_WINDOW // 2:
            self._writer.write(frames.window_update(0, CONNECTION_WINDOW - self._window))
            self._window = CONNECTION_WINDOW
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_begun(stream_id, "DATA")
            self._count_nuisance()
            return
        if stream.has_ended:
            self._writer.write(frames.reset(stream_id, frames.STREAM_CLOSED))
            self._abandon(stream)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise ProtocolViolation(frames.FLOW_CONTROL_ERROR, "more data than was asked for")
        if not size:
            self._count_nuisance()
        has_ended = bool(flags & frames.END_STREAM)
        if self._read(
            stream, frames.unpadded(payload, flags) if flags & frames.PADDED else payload
        ):
            if has_ended:
                self._on_end(stream)
            else:
                self._credit(stream)

    def _read(self, stream: Stream, content: bytes) -> bool:
        """Take the messages out of what came; false where the call is over with it."""
        shared, before = self._shared, stream.held
        ended: Ended | None = None
        try:
            for message in stream.reader.take(content):
                stream.put(message)
                if shared.buffered_bytes + stream.held - before > shared.limits.buffered_bytes_max:
                    break
        except TooLong as error:
            ended = Ended(code=RESOURCE_EXHAUSTED, message=str(error))
        except Unreadable as error:
            ended = Ended(code=INTERNAL, message=str(error))
        # Whatever happened: what is closed gives back what it holds.
        shared.buffered_bytes += stream.held - before
        if ended is None and shared.buffered_bytes > shared.limits.buffered_bytes_max:
            found = "too many bytes of requests wait to be read"
            ended = Ended(code=RESOURCE_EXHAUSTED, message=found)
        if ended is None and len(stream.inbox) > 1 and not stream.route.takes_stream:
            ended = Ended(code=UNIMPLEMENTED, message="several requests: the method takes one")
        if ended is not None:
            self._cut_short(stream, ended)
            return False
        stream.arrived()
        return True

    def _credit(self, stream: Stream) -> None:
        """Let the peer send more, but for as much as lies here unread."""
        room = STREAM_WINDOW - stream.receive_window - stream.unread
        if room >= STREAM_WINDOW // 2:
            stream.receive_window += room
            self._writer.write(frames.window_update(stream.stream_id, room))

    def _on_end(self, stream: Stream) -> None:
        """Take notice that all requests of a call are there."""
        stream.has_ended = True
        if stream.reader.held:
            self._cut_short(stream, Ended(code=INTERNAL, message="the last message is cut off"))
        elif stream.route.takes_stream:
            stream.arrived()
        elif stream.inbox:
            self._start(stream)
        else:
            message = "no request: the method takes one"
            self._cut_short(stream, Ended(code=UNIMPLEMENTED, message=message))

    # Calls.

    def _start(self, stream: Stream) -> None:
        stream.task = asyncio.get_running_loop().create_task(self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        stream.has_started = True
        try:
            ended = await stream.route.serve(stream)
        except asyncio.CancelledError:
            ended = Ended(code=UNAVAILABLE, message="the call was cancelled")
        except Exception:
            # Broad on purpose: the peer is told whatever failed, and others are served on.
            log.exception(events.CALL_FAILED, extra={"path": stream.path})
            ended = Ended(code=INTERNAL, message="internal error")
        stream.task = None
        if stream.is_closed:
            self._shared.end_call()
            return
        self._out.finish(stream, ended)
        if stream.is_sent:
            self._close(stream)
        if not self.streams:
            # Nobody else of this peer's has anything to add.
            self._writer.flush()

    def _cut_short(self, stream: Stream, ended: Ended) -> None:
        """End a call before its handler does."""
        self._out.cut_short(stream, ended)
        self._abandon(stream)

    def _close_all(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            self._close(stream)

    def _abandon(self, stream: Stream) -> None:
        """Let go of a call that nobody waits for; its handler is told."""
        task = stream.task
        if not stream.has_started:
            # A task that is cancelled before its first step takes none.
            stream.task = None
        self._close(stream)
        if task is not None:
            task.cancel()

    def _close(self, stream: Stream) -> None:
        """Let go of a call."""
        stream.is_closed = True
        self._out.forget(stream)
        del self.streams[stream.stream_id]
        self._shared.buffered_bytes -= stream.held
        stream.inbox.clear()
        stream.has_room()
        if stream.task is None:
            self._shared.end_call()


def _name_of(address: object) -> str:
    """Name a peer as gRPC does: `ipv4:127.0.0.1:50000`."""
    match address:
        case [str() as host, int() as port]:
            return f"ipv4:{host}:{port}"
        case [str() as host, int() as port, *_]:
            return f"ipv6:[{host}]:{port}"
        case _:
            return "unknown"
