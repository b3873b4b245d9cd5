"""Call services over grpc.aio with domain values, deadlines and trace context."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from detent.contracts.errors import InvalidField, InvalidResponse
from detent.contracts.wire import from_wire, message_class, to_wire
from detent.rpc import registry
from detent.rpc.status import from_rpc_error
from detent.rpc.tracing import inject, span

T = TypeVar("T")
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# A server that comes back is found again within a bar, not after grpcio's two minutes.
RECONNECT_MS_MIN = 20
RECONNECT_MS_MAX = 200
RESOLVE_MS_MIN = 1_000
# An answer of some thousand rows comes without a pause for the window to be opened further.
WINDOW_BYTES = 4 * 1024 * 1024


def open_channel(target: str) -> grpc.aio.Channel:
    """Open a channel; it connects on first use and reconnects by itself."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS_MIN),
            ("grpc.min_reconnect_backoff_ms", RECONNECT_MS_MIN),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
            # The window is as wide as it is: nobody has to find out by pings how wide it should be.
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.http2.bdp_probe", 0),
            # A container that comes back has another address: look its name up again soon.
            ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_MS_MIN),
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ],
    )


class RemoteService:
    """Calls the methods of one service over a channel."""

    def __init__(self, channel: grpc.aio.Channel, service: str, tracer: Tracer) -> None:
        """Prepare every method; `service` is for example `PolicyService`."""
        self._service = service
        self._tracer = tracer
        self._calls: dict[str, Any] = {}
        for method in registry.SERVICES[service].methods:
            make = {
                (False, False): channel.unary_unary,
                (True, False): channel.stream_unary,
                (False, True): channel.unary_stream,
                (True, True): channel.stream_stream,
            }[method.client_streaming, method.server_streaming]
            self._calls[registry.request_type(method).__name__] = make(
                registry.path_of(method),
                request_serializer=message_class(method.input_type.name).SerializeToString,
                response_deserializer=message_class(method.output_type.name).FromString,
            )

    async def call(
        self, request: Any, response_type: type[T], *, timeout_s: float, trace: Context
    ) -> T:
        """Make one unary call.

        Raises:
            DetentError: What the other side raised, or what the transport means.
            InvalidResponse: The answer does not read as its type.
        """
        name = type(request).__name__
        with self._span(name, trace) as inner:
            return await self._finish(
                self._calls[name](to_wire(request), timeout=timeout_s, metadata=inject(inner)),
                response_type,
            )

    async def stream(
        self,
        requests: AsyncIterator[Any],
        request_type: type[Any],
        response_type: type[T],
        *,
        timeout_s: float,
        trace: Context,
    ) -> T:
        """Make one call with a stream of requests; raises as `call` does."""
        name = request_type.__name__
        with self._span(name, trace) as inner:
            return await self._finish(
                self._calls[name](_written(requests), timeout=timeout_s, metadata=inject(inner)),
                response_type,
            )

    async def converse(
        self, requests: AsyncIterator[Any], request_type: type[Any], response_type: type[T]
    ) -> AsyncGenerator[T, None]:
        """Make one call in which requests go and answers come for as long as both sides like.

        It has neither a deadline nor a trace: each request brings its own.

        Raises:
            DetentError: The call ended otherwise than well.
            InvalidResponse: An answer does not read as its type.
        """
        call = self._calls[request_type.__name__](_written(requests))
        try:
            async for message in call:
                yield _read(response_type, message)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(self._service, error) from error
        finally:
            call.cancel()

    async def follow(self, request: Any, response_type: type[T]) -> AsyncGenerator[T, None]:
        """Make one call that is answered again and again, until either side has enough.

        It has neither a deadline nor a trace. Errors are those of `converse`.
        """
        call = self._calls[type(request).__name__](to_wire(request))
        try:
            async for message in call:
                yield _read(response_type, message)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(self._service, error) from error
        finally:
            call.cancel()

    def _span(self, request_name: str, trace: Context) -> Any:
        method = request_name.removesuffix("Request")
        return span(self._tracer, f"{self._service}/{method}", trace, kind=SpanKind.CLIENT)

    async def _finish(self, pending: Any, response_type: type[T]) -> T:
        try:
            message = await pending
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(self._service, error) from error
        return _read(response_type, message)


async def _written(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield to_wire(request)


def _read(kind: type[T], message: Any) -> T:
    try:
        return from_wire(kind, message)
    except InvalidField as error:
        raise InvalidResponse(error.field, error.found, error.expected) from error
