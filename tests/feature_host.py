"""Serves features in this process, over gRPC, and speaks to them with messages as they are."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.context import Context

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
)
from detent.contracts.market import Bar, Quote
from detent.contracts.wire import from_wire, message_class, to_wire
from detent.core.features.feature_set import FeatureSet
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.serve import Server, ServerOptions, Service
from detent.rpc.status import from_rpc_error
from detent.rpc.tracing import no_tracer
from detent.servers.feature.handler import FeatureHandler

INGEST = "/detent.api.v1.FeatureService/IngestMarketData"
PATIENCE_S = 60.0


class FeatureHost:
    """Owns a feature server on a free port.

    Attributes:
        target: Its address, once it was entered.
    """

    def __init__(self, feature_sets: Mapping[str, FeatureSet]) -> None:
        self._handler = FeatureHandler(feature_sets)
        options = ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=0)
        service = Service(name="FeatureService", handler=self._handler)
        self._server = Server(options, [service], no_tracer())
        self.target = ""

    async def __aenter__(self) -> Self:
        self.target = await self._server.start()
        self._channel = open_channel(self.target)
        self._remote = RemoteService(self._channel, "FeatureService", no_tracer())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._channel.close()
        await self._server.drain()

    async def ingest(self, *messages: Any) -> IngestMarketDataResponse:
        """Stream messages as they are and read the acknowledgement."""
        return await ingest(self.target, *messages)

    async def ask(self, query: GetFeatureSnapshotsRequest) -> GetFeatureSnapshotsResponse:
        """Ask for model inputs."""
        return await self._remote.call(
            query, GetFeatureSnapshotsResponse, timeout_s=PATIENCE_S, trace=Context()
        )


async def ingest(target: str, *messages: Any) -> IngestMarketDataResponse:
    """Stream messages as they are, to any feature server; raises what it refuses."""
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_unary(
            INGEST,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class("IngestMarketDataResponse").FromString,
        )
        try:
            answer = await call(iter(messages), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("FeatureService", error) from error
    return from_wire(IngestMarketDataResponse, answer)


def message_of(items: Iterable[Bar | Quote]) -> Any:
    """Give the message that carries market data, for a test to spoil."""
    events = [
        MarketEvent(bar=item) if isinstance(item, Bar) else MarketEvent(quote=item)
        for item in items
    ]
    return to_wire(IngestMarketDataRequest(events=tuple(events)))
