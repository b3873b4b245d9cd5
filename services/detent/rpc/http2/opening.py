"""Judge the head of a request: who serves it, how long the caller waits, or why nobody does."""

import re
from collections.abc import Mapping

import msgspec

from detent.rpc.http2 import heads
from detent.rpc.http2.messages import ENCODINGS
from detent.rpc.http2.stream import Ended, Route

# Status codes of gRPC that the transport itself gives.
INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 3, 4, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14
METHOD_NOT_ALLOWED, UNSUPPORTED_MEDIA_TYPE, BAD_REQUEST = 405, 415, 400
# With a codec or parameters; not the `-web` of another protocol.
_GRPC = re.compile(re.escape(heads.CONTENT_TYPE) + r"(?![^+; ])")


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a call begins.

    Attributes:
        route: Who serves it.
        encoding: How its messages may be compressed.
        timeout_s: How long the caller waits, seconds; None where it does not say.
    """

    route: Route
    encoding: str
    timeout_s: float | None


def opening_of(headers: Mapping[str, str], routes: Mapping[str, Route]) -> Opening | Ended:
    """Read the head of a gRPC request."""
    route = routes.get(headers[":path"])
    if route is None:
        path = headers[":path"][:256]
        return Ended(code=UNIMPLEMENTED, message=f"Method not found: {path}")
    encoding = headers.get("grpc-encoding", "identity")
    if encoding not in ENCODINGS:
        message = f"grpc-encoding: found {encoding[:32]!r}, expected identity, deflate or gzip"
        return Ended(code=UNIMPLEMENTED, message=message, metadata=(heads.ACCEPTED,))
    try:
        timeout_s = heads.timeout_s_of(headers)
    except ValueError as error:
        return Ended(code=INVALID_ARGUMENT, message=str(error))
    return Opening(route=route, encoding=encoding, timeout_s=timeout_s)


def no_grpc(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Say by an HTTP status and a text why a request is no gRPC; None where it is."""
    if ":path" not in headers or ":method" not in headers:
        return BAD_REQUEST, "a request has a method and a path"
    if headers[":method"] != "POST":
        return METHOD_NOT_ALLOWED, "gRPC calls are POST"
    if _GRPC.match(headers.get("content-type", "")) is None:
        return UNSUPPORTED_MEDIA_TYPE, f"expected content-type {heads.CONTENT_TYPE}"
    return None
