"""Read the heads of requests and write those of answers (gRPC over HTTP/2).

Answers use no dynamic table, so that the head of an answer is the same bytes on every
connection.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from hpack import Encoder, NeverIndexedHeaderTuple

Metadata = Iterable[tuple[str, str | bytes]]
CONTENT_TYPE = "application/grpc"
STATUS_OK = 0
# Tells the peer's decoder that no entry of a dynamic table will ever be used.
TABLE_SIZE_ZERO = b"\x20"
# What grpc-message may hold as it is: printable ASCII but for the percent sign.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Write a header block that depends on no other."""
    pairs = [NeverIndexedHeaderTuple(name, value) for name, value in headers]
    return bytes(Encoder().encode(pairs, huffman=False))


_ANSWER_HEAD = ((":status", "200"), ("content-type", CONTENT_TYPE))
# Says which compressions a peer may use, where it used another one.
ACCEPTED = ("grpc-accept-encoding", "identity,deflate,gzip")
ANSWER_HEAD = block(_ANSWER_HEAD)
ANSWER_TAIL_OK = block([("grpc-status", "0")])


def tail(code: int, message: str, metadata: Metadata) -> bytes:
    """Write what ends an answer that has begun."""
    return block(_ended(code, message, metadata))


def whole(code: int, message: str, metadata: Metadata) -> bytes:
    """Write an answer that is nothing but its end."""
    return block([*_ANSWER_HEAD, *_ended(code, message, metadata)])


def refused(http_status: int, text: str) -> bytes:
    """Write the head of an answer to what is no gRPC."""
    return block([(":status", str(http_status)), ("content-type", "text/plain"), ("detail", text)])


def _ended(code: int, message: str, metadata: Metadata) -> list[tuple[str, str]]:
    ended = [("grpc-status", str(code))]
    if message:
        ended.append(("grpc-message", quote(message, safe=_PLAIN)))
    return [*ended, *((name, _text(value)) for name, value in metadata)]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")


def timeout_s_of(headers: Mapping[str, str]) -> float | None:
    """Read how long the caller waits, in seconds; None where it does not say.

    Raises:
        ValueError: It is not a number of at most eight digits and a unit.
    """
    text = headers.get("grpc-timeout")
    if text is None:
        return None
    parsed = _TIMEOUT.fullmatch(text)
    if parsed is None:
        raise ValueError(f"grpc-timeout: found {text[:32]!r}, expected digits and one of HMSmun")
    return int(parsed[1]) * _UNIT_S[parsed[2]]
