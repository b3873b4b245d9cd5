"""Hand frames to the socket, those of one turn of the event loop together.

A write of its own for each answer would cost more than most answers: the system runs the whole
way of a packet for it, and wakes the peer.
"""

import asyncio

# A turn that gives more than this is not kept back: the peer may begin to read.
AT_ONCE_BYTES = 64 * 1024


class Writer:
    """Keeps the frames of one connection until the turn of the event loop ends."""

    __slots__ = ("_bytes", "_is_due", "_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to a transport, on the loop that it belongs to."""
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._bytes = 0
        self._is_due = False

    def write(self, content: bytes) -> None:
        """Have whole frames written, in order, before the loop waits for anything."""
        self._parts.append(content)
        self._bytes += len(content)
        if self._bytes >= AT_ONCE_BYTES:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._end_turn)

    def flush(self) -> None:
        """Write what was kept: who closes the connection does this first."""
        parts = self._parts
        if not parts:
            return
        self._parts, self._bytes = [], 0
        if not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _end_turn(self) -> None:
        self._is_due = False
        self.flush()
