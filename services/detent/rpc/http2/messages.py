"""Take gRPC messages out of the bytes of a call, and put them in (length-prefixed messages)."""

import struct
import zlib
from collections.abc import Iterable, Iterator

PREFIX_BYTES = 5
_PREFIX = struct.Struct(">BL")
# How zlib reads each compression.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
ENCODINGS = frozenset({"identity", *_WINDOW_BITS})


class TooLong(Exception):
    """Says that a message is longer than is taken."""

    def __init__(self, found: int | str, limit: int) -> None:
        """Take its size in bytes, and the limit."""
        super().__init__(f"message of {found} bytes: at most {limit} are taken")


class Unreadable(Exception):
    """Says that the bytes are no message."""


def prefixed(message: bytes) -> bytes:
    """Put the prefix before a message that is not compressed."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Collects the bytes of one direction of a call and gives the messages that are whole."""

    __slots__ = ("_buffer", "_encoding", "_limit", "_wanted")

    def __init__(self, encoding: str, limit: int) -> None:
        """Start empty.

        Args:
            encoding: How compressed messages are: one of `ENCODINGS`.
            limit: Bytes that a message may have, compressed or not.
        """
        self._buffer = bytearray()
        self._encoding = encoding
        self._limit = limit
        self._wanted = 0

    @property
    def held(self) -> int:
        """Count the bytes of the message that is not whole yet."""
        return len(self._buffer)

    def take(self, content: bytes) -> Iterable[bytes]:
        """Add bytes and give the messages that they complete, each as it is asked for.

        One by one, so that who counts bytes can stop: a few may become many when read out.

        Raises:
            TooLong: A message is, or says that it will be, longer than the limit.
            Unreadable: A message does not decompress.
        """
        buffer = self._buffer
        if not buffer and len(content) >= PREFIX_BYTES:
            flag, size = _PREFIX.unpack_from(content)
            # Nearly every call: one message, whole, alone in its frame.
            if len(content) == PREFIX_BYTES + size and size <= self._limit:
                return (self._plain(flag, content[PREFIX_BYTES:]),)
        buffer += content
        if len(buffer) < self._wanted:
            return ()
        return self._whole_messages()

    def _whole_messages(self) -> Iterator[bytes]:
        buffer = self._buffer
        self._wanted = PREFIX_BYTES
        while len(buffer) >= PREFIX_BYTES:
            flag, size = _PREFIX.unpack_from(buffer)
            if size > self._limit:
                raise TooLong(size, self._limit)
            stop = PREFIX_BYTES + size
            if len(buffer) < stop:
                self._wanted = stop
                return
            content = bytes(buffer[PREFIX_BYTES:stop])
            del buffer[:stop]
            yield self._plain(flag, content)

    def _plain(self, flag: int, content: bytes) -> bytes:
        if flag == 0:
            return content
        if flag != 1 or self._encoding not in _WINDOW_BITS:
            raise Unreadable(f"message flag {flag} with grpc-encoding {self._encoding}")
        reader = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        try:
            plain = reader.decompress(content, self._limit + 1)
        except zlib.error as error:
            raise Unreadable(f"message does not decompress: {error}") from error
        if len(plain) > self._limit:
            raise TooLong(f"over {self._limit}", self._limit)
        if not reader.eof:
            raise Unreadable("message does not decompress: it is cut off")
        if reader.unused_data:
            raise Unreadable("message does not decompress: there is more after its end")
        return plain
