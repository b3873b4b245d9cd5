"""Serve a method that gives answers as they are ready, for as long as both sides like.

In a `Conversation` its handler is given the items as they come. What is wrong with one item is
an item of its own (`Malformed`), so that the others are answered. In a `Feed` there is one
request, and what is wrong with that ends the call.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
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
from detent.rpc.status import as_detent_error, code_of, details_of, message_of
from detent.rpc.tracing import extract, trace_id_of

# Each lasts as long as its caller likes: together they must leave room for calls that do not.
CONVERSATIONS_MAX = 256
# What the line of a call says of how it ended, where no error did it.
OK, CANCELLED = "OK", "CANCELLED"

log = logging.getLogger(__name__)
Answers = Callable[[Any, Call], AsyncGenerator[Any, None]]


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
    return Ended(
        code=code_of(error).value[0], message=message_of(error), metadata=details_of(error)
    )


class Answering(ABC):
    """Serves one method of several answers; as many calls at once as the bound allows."""

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
        """Answer until there is nothing more to say.

        Raises:
            Overloaded: There are too many such calls.
            ServiceUnavailable: The process ends; what was read of the items is answered.
        """
        if self._under_way > CONVERSATIONS_MAX:
            limit = f"{CONVERSATIONS_MAX} such calls"
            raise Overloaded(f"{limit} are under way, as many as are taken", limit=limit)
        await self._answer(stream, call)
        if stream.is_stopped:
            raise ServiceUnavailable("the process ends; ask again")

    @abstractmethod
    async def _answer(self, stream: Stream, call: Call) -> None:
        """Send every answer of one call."""

    def _read(self, content: bytes) -> Any:
        """Read a request, or say what is wrong with it."""
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


class Conversation(Answering):
    """Serves a method in which items and answers go both ways at once."""

    async def _answer(self, stream: Stream, call: Call) -> None:
        """Answer until the caller has said its last and has every answer."""
        async with contextlib.aclosing(self._answers(self._items(stream), call)) as answers:
            async for answer in answers:
                await stream.send(to_bytes(answer))

    async def _items(self, stream: Stream) -> AsyncIterator[Any]:
        async for content in stream.messages():
            yield self._read(content)


class Feed(Answering):
    """Serves a method of one request and of answers for as long as the caller stays."""

    async def _answer(self, stream: Stream, call: Call) -> None:
        """Answer until the handler has no more to say, or the process ends."""
        asked = self._read(stream.message)
        if isinstance(asked, Malformed):
            raise asked.error
        stopping = asyncio.create_task(stream.stopping())
        try:
            async with contextlib.aclosing(self._answers(asked, call)) as answers:
                while (answer := await _next_of(answers, stopping)) is not None:
                    await stream.send(to_bytes(answer))
        finally:
            stopping.cancel()


async def _next_of(answers: AsyncGenerator[Any, None], stopping: asyncio.Task[None]) -> Any:
    """Give the next answer; None where there is none, or the process ends first."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(answers, None))
    try:
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        # A generator cannot be closed while somebody waits for its next answer.
        waiting.cancel()
        await asyncio.wait((waiting,))
