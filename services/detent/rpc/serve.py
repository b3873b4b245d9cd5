"""Serve handlers over grpc.aio: decode, ask, encode; health, reflection, drain.

A handler is any object with one coroutine per method of its service, under the method's
name in snake case, from a domain request and a `Call` to a domain response.
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

import grpc
import msgspec
import uvloop
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import SpanKind, Tracer

from detent.contracts import events
from detent.contracts.errors import DetentError, InvalidField, ServiceUnavailable
from detent.contracts.wire import from_wire, to_bytes
from detent.rpc import registry
from detent.rpc.call import Call
from detent.rpc.status import code_of, details_of, outcome_of
from detent.rpc.tracing import annotate, extract, span, trace_id_of

# A caller that names no deadline gets this one; none waits for ever.
DEADLINE_S_DEFAULT = 5.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CONCURRENT_CALLS_MAX = 1_000
GC_YOUNG_OBJECTS = 100_000
TRACED_FIELDS = ("binding_hash", "plan_id", "ts_ms", "as_of_ts_ms")

log = logging.getLogger(__name__)
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
    """Owns one grpc.aio server from its start to its drain."""

    def __init__(self, options: ServerOptions, services: list[Service], tracer: Tracer) -> None:
        """Bind the services; nothing listens yet."""
        self._options = options
        self._tracer = tracer
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=CONCURRENT_CALLS_MAX,
        )
        self._names = [service.descriptor.full_name for service in services]
        for service in services:
            self._server.add_generic_rpc_handlers((self._bound(service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Listen and give the address.

        Raises:
            ServiceUnavailable: The address is taken or cannot be bound.
        """
        host = self._options.listen.rpartition(":")[0]
        try:
            port = self._server.add_insecure_port(self._options.listen)
        except RuntimeError as error:
            raise ServiceUnavailable(
                f"cannot listen on {self._options.listen}: is another process there?",
                listen=self._options.listen,
            ) from error
        await self._server.start()
        return f"{host}:{port}"

    async def set_serving(self, serving: Mapping[str, bool]) -> None:
        """Say per health name whether it serves; names are full service names or artifacts."""
        for name, is_serving in serving.items():
            status = health_pb2.HealthCheckResponse
            await self._health.set(name, status.SERVING if is_serving else status.NOT_SERVING)

    async def drain(self) -> None:
        """Refuse new calls, let those in flight finish within the grace, stop."""
        log.info(events.SERVER_DRAINING, extra={"grace_s": self._options.drain_grace_s})
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._options.drain_grace_s)
        log.info(events.SERVER_STOPPED)

    def _bound(self, service: Service) -> grpc.GenericRpcHandler:
        descriptor = service.descriptor
        methods: dict[str, Any] = {}
        for method in descriptor.methods:
            serve = _Method(method, service, self._tracer)
            make = (
                grpc.stream_unary_rpc_method_handler
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            methods[method.name] = make(
                serve.streamed if method.client_streaming else serve.unary,
                request_deserializer=_reader_of(GetMessageClass(method.input_type)),
            )
        return grpc.method_handlers_generic_handler(descriptor.full_name, methods)


class _Method:
    """Serves one method: the only place where a call crosses from grpcio to us."""

    def __init__(self, method: MethodDescriptor, service: Service, tracer: Tracer) -> None:
        self._name = f"{service.name}/{method.name}"
        self._request_name = method.input_type.name
        self._request_type = None if service.foreign else registry.request_type(method)
        self._answer = getattr(service.handler, registry.handler_name(method))
        self._on_refusal = service.on_refusal
        self._tracer = tracer

    async def unary(self, message: Any, context: Any) -> Any:
        async def answer(call: Call) -> Any:
            annotate(call.trace, _ids(message))
            answered = await self._answer(self._read(message), call)
            # A foreign service answers with a message of its own.
            is_ours = self._request_type is not None
            return to_bytes(answered) if is_ours else answered.SerializeToString()

        return await self._served(answer, message, context)

    async def streamed(self, messages: AsyncIterator[Any], context: Any) -> Any:
        async def decoded() -> AsyncIterator[Any]:
            async for message in messages:
                yield self._read(message)

        async def answer(call: Call) -> Any:
            return to_bytes(await self._answer(decoded(), call))

        return await self._served(answer, None, context)

    def _read(self, message: Any) -> Any:
        if isinstance(message, bytes):
            found = f"{len(message)} bytes that do not parse"
            raise InvalidField("request", found, f"a {self._request_name}")
        return message if self._request_type is None else from_wire(self._request_type, message)

    async def _served(
        self, answer: Callable[[Call], Awaitable[Any]], message: Any, context: Any
    ) -> Any:
        started_s = time.monotonic()
        remaining_s = context.time_remaining()
        parent = extract(context.invocation_metadata() or ())
        code = "OK"
        with span(self._tracer, self._name, parent, kind=SpanKind.SERVER) as trace:
            call = Call(
                deadline_s=started_s + (DEADLINE_S_DEFAULT if remaining_s is None else remaining_s),
                clock=time.monotonic,
                identity=context.peer(),
                trace=trace,
            )
            try:
                outcome = await outcome_of(answer(call))
                if not isinstance(outcome, DetentError):
                    return outcome
                code = outcome.reason.value
                annotate(trace, {"error.reason": code})
                await self._tell(message, outcome)
                await context.abort(code_of(outcome), outcome.message, details_of(outcome))
            finally:
                elapsed_ms = round((time.monotonic() - started_s) * 1000, 3)
                facts = {"method": self._name, "code": code, "elapsed_ms": elapsed_ms}
                facts |= {"trace_id": trace_id_of(trace), **_ids(message)}
                log.info(events.RPC, extra=facts)

    async def _tell(self, message: Any, error: DetentError) -> None:
        if self._on_refusal is None:
            return
        try:
            await self._on_refusal(self._name, message, error)
        except DetentError:
            # The refusal stands whether or not it could be noted.
            log.exception(events.CALL_FAILED)


def _reader_of(kind: type[Message]) -> Callable[[bytes], Message | bytes]:
    """Give what reads a request; bytes that are none are handed on, to be refused in our words."""

    def read(content: bytes) -> Message | bytes:
        try:
            return kind.FromString(content)
        except DecodeError:
            return content

    return read


def _ids(message: Any) -> dict[str, str | int]:
    """Give the ids that a request message carries, for span and log."""
    return {
        name: value for name in TRACED_FIELDS if (value := getattr(message, name, None)) is not None
    }


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
    await server.set_serving(serving)
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
