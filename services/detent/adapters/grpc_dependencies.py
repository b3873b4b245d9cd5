"""Reach the other services over gRPC: the remote sides of the ports of policy and monitor."""

import grpc
from opentelemetry.trace import Tracer

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
)
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.contracts.calls.policy import RecordOutcomesRequest, RecordOutcomesResponse
from detent.contracts.errors import NotOwner
from detent.rpc.call import Call
from detent.rpc.channel import RemoteService, open_channel


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


class GrpcOutcomes:
    """Hands outcomes to the policy service, and to the replica that owns the plan."""

    def __init__(self, channel: grpc.aio.Channel, tracer: Tracer) -> None:
        """Use an open channel."""
        self._service = RemoteService(channel, "PolicyService", tracer)
        self._tracer = tracer

    async def record_outcomes(
        self, query: RecordOutcomesRequest, call: Call
    ) -> RecordOutcomesResponse:
        """Record outcomes within what is left of the call; the same again change nothing."""
        try:
            return await self._ask(self._service, query, call)
        except NotOwner as error:
            channel = open_channel(error.metadata["owner_target"])
            try:
                owner = RemoteService(channel, "PolicyService", self._tracer)
                return await self._ask(owner, query, call)
            finally:
                await channel.close()

    @staticmethod
    async def _ask(
        service: RemoteService, query: RecordOutcomesRequest, call: Call
    ) -> RecordOutcomesResponse:
        return await service.call(
            query, RecordOutcomesResponse, timeout_s=call.remaining_s(), trace=call.trace
        )
