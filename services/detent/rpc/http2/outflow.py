"""Send answers to one peer, as far as its windows and its socket take them."""

from collections.abc import Mapping

from detent.rpc.http2 import frames, heads
from detent.rpc.http2.frames import ProtocolViolation
from detent.rpc.http2.messages import prefixed
from detent.rpc.http2.stream import Ended, Stream
from detent.rpc.http2.writer import Writer


class Outflow:
    """Writes frames, and keeps what there is no room for with the call that it is of."""

    def __init__(self, writer: Writer, streams: Mapping[int, Stream]) -> None:
        """Write the answers of these calls."""
        self._writer = writer
        self._streams = streams
        # The calls that have something to send and no room for it, by the number of their stream.
        self._kept: dict[int, Stream] = {}
        self._window = frames.WINDOW_DEFAULT
        self._stream_window = frames.WINDOW_DEFAULT
        self._frame_bytes = frames.FRAME_BYTES_DEFAULT
        self._is_full = False
        self._has_written_block = False

    @property
    def stream_window(self) -> int:
        """Give what a new call may send before the peer gives it more, bytes."""
        return self._stream_window

    def pause(self) -> None:
        """Keep answers back until the socket takes more."""
        self._is_full = True

    def resume(self) -> list[Stream]:
        """Go on with what was kept back; see `pump_all`."""
        self._is_full = False
        return self.pump_all()

    def apply(self, name: int, value: int) -> None:
        """Take a setting of the peer's.

        Raises:
            ProtocolViolation: The value is not one that the setting may have.
        """
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.WINDOW_MAX:
                raise ProtocolViolation(frames.FLOW_CONTROL_ERROR, f"a window of {value}")
            for stream in self._streams.values():
                stream.send_window += value - self._stream_window
                if stream.send_window > frames.WINDOW_MAX:
                    raise ProtocolViolation(frames.FLOW_CONTROL_ERROR, "a window overflows")
            self._stream_window = value
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.FRAME_BYTES_DEFAULT <= value <= frames.FRAME_BYTES_MAX:
                raise ProtocolViolation(frames.PROTOCOL_ERROR, f"frames of {value} bytes")
            self._frame_bytes = value
        elif name == frames.ENABLE_PUSH and value > 1:
            raise ProtocolViolation(frames.PROTOCOL_ERROR, f"push of {value}")

    def widen(self, increment: int) -> list[Stream]:
        """Take more room for all calls together; see `pump_all`.

        Raises:
            ProtocolViolation: The window would leave its range.
        """
        self._window += increment
        if self._window > frames.WINDOW_MAX:
            raise ProtocolViolation(frames.FLOW_CONTROL_ERROR, "the window overflows")
        return self.pump_all()

    def refuse(self, stream_id: int, block: bytes, *, has_ended: bool) -> None:
        """Answer a call that nobody serves, with nothing but a head."""
        written = self._head(stream_id, block, frames.END_STREAM)
        if not has_ended:
            written += frames.reset(stream_id, frames.NO_ERROR)
        self._writer.write(written)

    def send(self, stream: Stream, message: bytes) -> None:
        """Send one of several answers, or keep it."""
        if not stream.has_begun:
            stream.has_begun = True
            self._writer.write(self._head(stream.stream_id, heads.ANSWER_HEAD, 0))
        stream.pending.append(prefixed(message))
        self.pump(stream)

    def finish(self, stream: Stream, ended: Ended) -> None:
        """Send what is left of an answer, or keep it; the call is over for its handler."""
        if not stream.has_begun and ended.answer is None:
            block = heads.whole(ended.code, ended.message, ended.metadata)
            stream.has_begun, stream.tail = True, block
        else:
            is_plain = ended.code == heads.STATUS_OK and not ended.metadata
            stream.tail = (
                heads.ANSWER_TAIL_OK
                if is_plain
                else heads.tail(ended.code, ended.message, ended.metadata)
            )
        if ended.answer is not None and not stream.pending and not stream.has_begun:
            stream.has_begun = True
            content = prefixed(ended.answer)
            if self._room(stream) >= len(content) <= self._frame_bytes:
                self._write_whole(stream, content)
                return
            self._writer.write(self._head(stream.stream_id, heads.ANSWER_HEAD, 0))
            stream.pending.append(content)
        elif ended.answer is not None:
            stream.pending.append(prefixed(ended.answer))
        self.pump(stream)

    def cut_short(self, stream: Stream, ended: Ended) -> None:
        """End an answer now, wherever it is, and whether or not there is room."""
        if stream.is_sent:
            return
        write = heads.tail if stream.has_begun else heads.whole
        stream.tail = write(ended.code, ended.message, ended.metadata)
        stream.pending.clear()
        stream.has_begun = stream.is_sent = True
        self._writer.write(self._last(stream))

    def _write_whole(self, stream: Stream, content: bytes) -> None:
        """Write an answer of one message with a single call."""
        size, stream_id = len(content), stream.stream_id
        self._window -= size
        stream.send_window -= size
        self._writer.write(
            self._head(stream_id, heads.ANSWER_HEAD, 0)
            + frames.frame(frames.DATA, 0, stream_id, content)
            + self._last(stream)
        )
        stream.is_sent = True

    def _room(self, stream: Stream) -> int:
        return 0 if self._is_full else min(self._window, stream.send_window)

    def _head(self, stream_id: int, block: bytes, flags: int) -> bytes:
        if not self._has_written_block:
            self._has_written_block = True
            block = heads.TABLE_SIZE_ZERO + block
        size = self._frame_bytes
        if len(block) <= size:
            return frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, block)
        parts = [block[at : at + size] for at in range(0, len(block), size)]
        written = [frames.frame(frames.HEADERS, flags, stream_id, parts[0])]
        written += [frames.frame(frames.CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
        written.append(frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, parts[-1]))
        return b"".join(written)

    def _last(self, stream: Stream) -> bytes:
        assert stream.tail is not None, "what has ended has a tail"
        written = self._head(stream.stream_id, stream.tail, frames.END_STREAM)
        if not stream.has_ended:
            written += frames.reset(stream.stream_id, frames.NO_ERROR)
        return written

    def forget(self, stream: Stream) -> None:
        """Let go of what was kept of a call that is over."""
        self._kept.pop(stream.stream_id, None)

    def pump_all(self) -> list[Stream]:
        """Send what was kept back, as far as there is room; give the calls that are now sent."""
        # Nearly always empty, while the peer gives room once or twice for every answer.
        kept = list(self._kept.values())
        for stream in kept:
            self.pump(stream)
        return [stream for stream in kept if stream.is_sent]

    def pump(self, stream: Stream) -> None:
        """Send what was kept of one call, as far as there is room."""
        if stream.is_sent:
            return
        pending = stream.pending
        self._kept[stream.stream_id] = stream
        while pending:
            room = min(self._room(stream), self._frame_bytes)
            if room <= 0:
                return
            part = pending[0][:room]
            if len(part) == len(pending[0]):
                pending.popleft()
            else:
                # A view: copying what is left would make a long answer cost its square.
                pending[0] = memoryview(pending[0])[room:]
            self._window -= len(part)
            stream.send_window -= len(part)
            self._writer.write(frames.frame(frames.DATA, 0, stream.stream_id, part))
        stream.has_room()
        if stream.tail is not None:
            if self._is_full:
                return
            self._writer.write(self._last(stream))
            stream.is_sent = True
        del self._kept[stream.stream_id]
