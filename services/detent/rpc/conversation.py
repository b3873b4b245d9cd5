"""Serve a method in which items and answers go both ways at once.

Its handler is given the items as they come and gives the answers as they are ready. What is
wrong with one item is an item of its own (`Malformed`), so that the others are answered.
"""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from detent.contracts import events
from detent.contracts.errors import DetentError, InvalidField, Overloaded, ServiceUnavailable
from detent.contracts.wire import from_wire, to_bytes
from detent.rpc import registry
from detent.rpc.call import Call
from detent.rpc.call_lines import say
from detent.rpc.http2.stream import Ended, Stream
from detent.rpc.status import as_detent_error, code_of, details_of
from detent.rpc.tracing import extract, trace_id_of

# Each lasts as long as its caller likes: together they must leave room for calls that do not.
CONVERSATIONS_MAX = 256
# What the line of a call says of how it ended, where no error did it.
OK, CANCELLED = "OK", "CANCELLED"

log = logging.getLogger(__name__)
Answers = Callable[[AsyncIterator[Any], Call], AsyncGenerator[Any, None]]


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """Stands where an item stood that does not read as its type.

    Attributes:
        message: The message as far as it reads; None where its bytes are none.
        error: What is wrong with it.
    """

    message: Message | None
    error: InvalidField


def ended_by(error: DetentError) -> Ended:
    """Give the end of a call that failed."""
    return Ended(code=code_of(error).value[0], message=error.message, metadata=details_of(error))


class Conversation:
    """Serves one such method; as many at once as the bound allows."""

    def __init__(self, name: str, method: MethodDescriptor, handler: object) -> None:
        """Take the name for log lines, and what answers."""
        self._name = name
        self._item_name = method.input_type.name
        self._item_type = registry.request_type(method)
        self._message_class = GetMessageClass(method.input_type)
        self._answers: Answers = getattr(handler, registry.handler_name(method))
        self._under_way = 0

    async def serve(self, stream: Stream) -> Ended:
        """Serve one call to its end and write its line."""
        started_s = time.monotonic()
        trace = extract(stream.headers.items())
        call = Call(
            deadline_s=stream.deadline_s,
            clock=time.monotonic,
            identity=stream.peer,
            trace=trace,
        )
        code = CANCELLED
        self._under_way += 1
        try:
            await self._talk(stream, call)
            code = OK
        except Exception as failed:  # noqa: BLE001  The boundary: nothing leaves untranslated.
            error = as_detent_error(failed)
            code = error.reason.value
            return ended_by(error)
        finally:
            self._under_way -= 1
            elapsed_ms = round((time.monotonic() - started_s) * 1000, 3)
            facts = {"method": self._name, "code": code, "elapsed_ms": elapsed_ms}
            say(log, events.RPC, {**facts, "trace_id": trace_id_of(trace)})
        return Ended()

    async def _talk(self, stream: Stream, call: Call) -> None:
        """Answer until the caller has said its last and has every answer.

        Raises:
            Overloaded: There are too many such calls.
            ServiceUnavailable: The process ends; what was read of the items is answered.
        """
        if self._under_way > CONVERSATIONS_MAX:
            limit = f"{CONVERSATIONS_MAX} such calls"
            raise Overloaded(f"{limit} are under way, as many as are taken", limit=limit)
        async with contextlib.aclosing(self._answers(self._items(stream), call)) as answers:
            async for answer in answers:
                await stream.send(to_bytes(answer))
        if stream.is_stopped:
            raise ServiceUnavailable("the process ends; ask again")

    async def _items(self, stream: Stream) -> AsyncIterator[Any]:
        async for content in stream.messages():
            yield self._read(content)

    def _read(self, content: bytes) -> Any:
        message = None
        try:
            message = self._message_class.FromString(content)
            return from_wire(self._item_type, message)
        except DecodeError:
            found = f"{len(content)} bytes that do not parse"
            error = InvalidField("item", found, f"a {self._item_name}")
        except InvalidField as failed:
            error = failed.with_traceback(None)
        return Malformed(message=message, error=error)
