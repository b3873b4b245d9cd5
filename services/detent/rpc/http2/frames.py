"""Name and write the frames of HTTP/2 (RFC 9113, sections 4 to 6)."""

import struct
from collections.abc import Mapping

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
WINDOW_DEFAULT = 65_535
WINDOW_MAX = 2**31 - 1
FRAME_BYTES_DEFAULT = 16_384
FRAME_BYTES_MAX = 2**24 - 1
STREAM_ID_MAX = 2**31 - 1

# Length as 16 and 8 bits, kind, flags, stream.
_HEADER = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_WORD = struct.Struct(">L")
_TWO_WORDS = struct.Struct(">LL")


class ProtocolViolation(Exception):
    """Says what a peer did that ends its connection.

    Attributes:
        code: Error code of RFC 9113, section 7.
    """

    def __init__(self, code: int, message: str) -> None:
        """Take the code and what was found."""
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> bytes:
    """Write one frame."""
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def header_of(content: bytes, at: int) -> tuple[int, int, int, int]:
    """Read the nine bytes before a payload: its length, kind, flags and stream."""
    high, low, kind, flags, stream_id = _HEADER.unpack_from(content, at)
    return (high << 8) | low, kind, flags, stream_id & STREAM_ID_MAX


def settings(values: Mapping[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """Read the pairs of a SETTINGS frame, unknown ones included.

    Raises:
        ProtocolViolation: The payload is no list of pairs.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolViolation(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def word_of(payload: bytes, name: str) -> int:
    """Read a payload that is one number of 32 bits, the first of which is reserved or zero.

    Raises:
        ProtocolViolation: It is not four bytes long.
    """
    if len(payload) != _WORD.size:
        raise ProtocolViolation(FRAME_SIZE_ERROR, f"{name} of {len(payload)} bytes")
    value: int = _WORD.unpack(payload)[0]
    return value


def window_update(stream_id: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def reset(stream_id: int, code: int) -> bytes:
    """Write a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def go_away(last_stream_id: int, code: int, message: str = "") -> bytes:
    """Write a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _TWO_WORDS.pack(last_stream_id, code) + message.encode())


def unpadded(payload: bytes, flags: int, *, priority: bool = False) -> bytes:
    """Take padding and priority off the payload of DATA or HEADERS.

    Raises:
        ProtocolViolation: There is more padding than payload.
    """
    start, stop = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolViolation(FRAME_SIZE_ERROR, "a padded frame without its length")
        start, stop = 1, stop - payload[0]
    if priority and flags & HAS_PRIORITY:
        start += 5
    if start > stop:
        raise ProtocolViolation(PROTOCOL_ERROR, "more padding than payload")
    return payload[start:stop]
