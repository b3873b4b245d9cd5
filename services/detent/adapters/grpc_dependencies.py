"""Reach the feature and inference services over gRPC: the remote sides of policy's ports."""

import grpc
from opentelemetry.trace import Tracer

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
)
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.rpc.call import Call
from detent.rpc.channel import RemoteService


class GrpcFeatures:
    """Asks the feature service."""

    def __init__(self, channel: grpc.aio.Channel, tracer: Tracer) -> None:
        """Use an open channel."""
        self._service = RemoteService(channel, "FeatureService", tracer)

    async def get_feature_snapshots(
        self, query: GetFeatureSnapshotsRequest, call: Call
    ) -> GetFeatureSnapshotsResponse:
        """Ask for model inputs within what is left of the call."""
        return await self._service.call(
            query,
            GetFeatureSnapshotsResponse,
            timeout_s=call.remaining_s(),
            trace=call.trace,
        )


class GrpcInference:
    """Asks the inference service."""

    def __init__(self, channel: grpc.aio.Channel, tracer: Tracer) -> None:
        """Use an open channel."""
        self._service = RemoteService(channel, "InferenceService", tracer)

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        """Ask for signals within what is left of the call."""
        return await self._service.call(
            query, InferSignalsResponse, timeout_s=call.remaining_s(), trace=call.trace
        )
