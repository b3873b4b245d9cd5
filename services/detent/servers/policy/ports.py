"""Name what policy asks of others; each port has a gRPC side and an in-process side."""

from typing import Protocol

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
)
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.rpc.call import Call


class Features(Protocol):
    """Gives model inputs; the feature handler itself is the in-process side."""

    async def get_feature_snapshots(
        self, query: GetFeatureSnapshotsRequest, call: Call
    ) -> GetFeatureSnapshotsResponse:
        """Give one row per symbol."""
        ...


class Inference(Protocol):
    """Gives signals; the inference handler itself is the in-process side."""

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        """Give one row per row asked."""
        ...
