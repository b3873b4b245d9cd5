"""Serve handlers over gRPC: decode, ask, encode; health, reflection, drain.

A handler is any object with one coroutine per method of its service, under the method's
name in snake case, from a domain request and a `Call` to a domain response. A method that
gives a stream is served by `conversation`.
"""

import asyncio
import gc
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec
import uvloop
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from detent.contracts import events
from detent.contracts.errors import DetentError, InvalidField, ServiceUnavailable
from detent.contracts.wire import from_wire, to_bytes
from detent.rpc import health, reflection, registry
from detent.rpc.call import Call
from detent.rpc.call_lines import say
from detent.rpc.conversation import CANCELLED, OK, Conversation, Feed, ended_by
from detent.rpc.health import Health
from detent.rpc.http2.listener import Listener
from detent.rpc.http2.shared import Limits
from detent.rpc.http2.stream import Ended, Route, Stream
from detent.rpc.status import as_detent_error
from detent.rpc.tracing import annotate, extract, span, trace_id_of

# A caller that names no deadline gets this one; none waits for ever.
DEADLINE_S_DEFAULT = 5.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CONCURRENT_CALLS_MAX = 1_000
GC_YOUNG_OBJECTS = 100_000
TRACED_FIELDS = ("binding_hash", "plan_id", "ts_ms", "as_of_ts_ms")

log = logging.getLogger(__name__)
Ids = dict[str, str | int]
Serve = Callable[[Stream], Awaitable[Ended]]
Refused = Callable[[str, Any, DetentError], Awaitable[None]]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs a service of the contract with what answers it.

    Attributes:
        name: For example `PolicyService`.
        handler: Serves every method of it.
        on_refusal: Told of every refusal (method, request message or None, error), or None.
        foreign: The descriptor of a protocol that is not ours, or None. There are no domain
            values for it: its handler takes and gives the messages themselves.
    """

    name: str
    handler: object
    on_refusal: Refused | None = None
    foreign: ServiceDescriptor | None = None

    @property
    def descriptor(self) -> ServiceDescriptor:
        """Give the description of its methods."""
        return self.foreign or registry.SERVICES[self.name]


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a process serves.

    Attributes:
        listen: `host:port`; port 0 picks a free one.
        reflection: Whether the contract can be read from the server.
        drain_grace_s: How long calls in flight may finish after a stop was asked for.
    """

    listen: str
    reflection: bool
    drain_grace_s: float


class Server:
    """Owns what one process serves, from its start to its drain."""

    def __init__(self, options: ServerOptions, services: list[Service], tracer: Tracer) -> None:
        """Bind the services; nothing listens yet."""
        self._options = options
        self._health = Health()
        routes = self._health.routes()
        for service in services:
            routes |= _routes_of(service, tracer)
        if options.reflection:
            names = [service.descriptor.full_name for service in services]
            routes |= reflection.routes([*names, health.NAME, reflection.NAME])
        limits = Limits(
            message_bytes_max=MESSAGE_BYTES_MAX,
            calls_max=CONCURRENT_CALLS_MAX,
            unary_wait_s=DEADLINE_S_DEFAULT,
        )
        self._listener = Listener(routes, limits, time.monotonic)

    async def start(self) -> str:
        """Listen and give the address.

        Raises:
            ServiceUnavailable: The address is taken or cannot be bound.
        """
        host, _, port = self._options.listen.rpartition(":")
        try:
            bound = await self._listener.start(host, int(port))
        except OSError as error:
            raise ServiceUnavailable(
                f"cannot listen on {self._options.listen}: is another process there?",
                listen=self._options.listen,
            ) from error
        return f"{host}:{bound}"

    def set_serving(self, serving: Mapping[str, bool]) -> None:
        """Say per health name whether it serves; names are full service names or artifacts."""
        self._health.set(serving)

    async def drain(self) -> None:
        """Refuse new calls, let those in flight finish within the grace, stop."""
        log.info(events.SERVER_DRAINING, extra={"grace_s": self._options.drain_grace_s})
        self._health.end()
        await self._listener.drain(self._options.drain_grace_s)
        log.info(events.SERVER_STOPPED)


def _routes_of(service: Service, tracer: Tracer) -> dict[str, Route]:
    routes: dict[str, Route] = {}
    for method in service.descriptor.methods:
        routes[registry.path_of(method)] = Route(
            serve=_serve_of(method, service, tracer),
            takes_stream=method.client_streaming,
            gives_stream=method.server_streaming,
        )
    return routes


def _serve_of(method: MethodDescriptor, service: Service, tracer: Tracer) -> Serve:
    if not method.server_streaming:
        return _Method(method, service, tracer).serve
    kind = Conversation if method.client_streaming else Feed
    return kind(f"{service.name}/{method.name}", method, service.handler).serve


class _Method:
    """Serves one method: the only place where a call crosses from the transport to us."""

    def __init__(self, method: MethodDescriptor, service: Service, tracer: Tracer) -> None:
        self._name = f"{service.name}/{method.name}"
        self._request_name = method.input_type.name
        self._request_type = None if service.foreign else registry.request_type(method)
        self._message_class = GetMessageClass(method.input_type)
        self._takes_stream = method.client_streaming
        fields = {} if self._takes_stream else method.input_type.fields_by_name
        self._id_names = tuple(name for name in TRACED_FIELDS if name in fields)
        self._answer = getattr(service.handler, registry.handler_name(method))
        self._on_refusal = service.on_refusal
        self._tracer = tracer

    async def serve(self, stream: Stream) -> Ended:
        """Serve one call to its end, under a span, and write its line."""
        message = None if self._takes_stream else self._parsed(stream.message)
        ids = {} if isinstance(message, bytes) else self._ids(message)
        parent = extract(stream.headers.items())
        opened = span(self._tracer, self._name, parent, kind=SpanKind.SERVER, attributes=ids)
        try:
            with opened as trace:
                return Ended(answer=await self._answered(message, ids, stream, trace))
        except DetentError as error:
            return ended_by(error)

    async def _answered(self, message: Any, ids: Ids, stream: Stream, trace: Context) -> bytes:
        """Ask the handler.

        Raises:
            DetentError: What the caller is told.
        """
        started_s = time.monotonic()
        deadline_s = stream.deadline_s
        if not math.isfinite(deadline_s):
            deadline_s = started_s + DEADLINE_S_DEFAULT
        call = Call(deadline_s=deadline_s, clock=time.monotonic, identity=stream.peer, trace=trace)
        code = CANCELLED
        try:
            asked = self._read_all(stream) if self._takes_stream else self._read(message)
            content = self._written(await self._answer(asked, call))
            code = OK
        except Exception as failed:  # noqa: BLE001  The boundary: nothing leaves untranslated.
            error = as_detent_error(failed)
            code = error.reason.value
            annotate(trace, {"error.reason": code})
            await self._tell(message, error)
            raise error from None
        finally:
            elapsed_ms = round((time.monotonic() - started_s) * 1000, 3)
            facts = {"method": self._name, "code": code, "elapsed_ms": elapsed_ms}
            say(log, events.RPC, {**facts, "trace_id": trace_id_of(trace), **ids})
        return content

    def _ids(self, message: Any) -> Ids:
        """Give the ids that a request message carries, for span and log."""
        return {name: getattr(message, name) for name in self._id_names}

    def _parsed(self, content: bytes) -> Message | bytes:
        """Read a request; bytes that are none are handed on, to be refused in our words."""
        try:
            return self._message_class.FromString(content)
        except DecodeError:
            return content

    def _read(self, message: Any) -> Any:
        if isinstance(message, bytes):
            found = f"{len(message)} bytes that do not parse"
            raise InvalidField("request", found, f"a {self._request_name}")
        return message if self._request_type is None else from_wire(self._request_type, message)

    async def _read_all(self, stream: Stream) -> AsyncIterator[Any]:
        async for content in stream.messages():
            yield self._read(self._parsed(content))

    def _written(self, answered: Any) -> bytes:
        # A foreign service answers with a message of its own.
        is_ours = self._request_type is not None
        return to_bytes(answered) if is_ours else bytes(answered.SerializeToString())

    async def _tell(self, message: Any, error: DetentError) -> None:
        if self._on_refusal is None:
            return
        try:
            await self._on_refusal(self._name, message, error)
        except DetentError:
            # The refusal stands whether or not it could be noted.
            log.exception(events.CALL_FAILED)


def run_process(served: Coroutine[Any, Any, None]) -> None:
    """Run a server's coroutine to its end, on the event loop that costs a call least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served)


async def serve_until_stopped(server: Server, serving: Mapping[str, bool]) -> None:
    """Listen, say what serves, wait for the stop signal, drain."""
    # A batch of thousands of rows makes objects by the hundred thousand, none in cycles, and
    # what start-up made stays. Walking all that cost a batch of 1,000 rows 5 to 19 %.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS)
    # Before anybody can ask: a probe that finds a server finds all that it says of itself.
    server.set_serving(serving)
    address = await server.start()
    log.info(events.SERVER_READY, extra={"address": address, "serving": dict(serving)})
    await wait_for_stop()
    await server.drain()


async def wait_for_stop() -> None:
    """Wait until the process is asked to stop by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
