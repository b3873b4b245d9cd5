"""Name what policy asks of others; a service has a gRPC side and an in-process side."""

from collections.abc import Callable, Sequence
from typing import Protocol

from detent.adapters.sqlite_ledger import Written
from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
)
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.contracts.shadow import ShadowSignal
from detent.contracts.trades import Fill, Outcome
from detent.core.ledger.record import BoundPlan
from detent.rpc.call import Call

# Is told of the decisions of one call, once they are durable; gives back at once, never fails.
TellDecided = Callable[[BoundPlan, Sequence[Written]], None]


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


class Routes(Protocol):
    """Says who is asked for the model of a binding: deployments differ, answers do not."""

    def route_of(self, binding_hash: str) -> tuple[Features, Inference]:
        """Give what is asked for model inputs and for signals under a binding."""
        ...


class TradeFacts(Protocol):
    """Keeps what happened after the decisions, each fact once."""

    async def add_fills(self, fills: Sequence[Fill]) -> int:
        """Keep fills, all or none, and give how many were new; raises `DataConflict`."""
        ...

    async def add_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Keep outcomes, all or none, and give how many were new; raises `DataConflict`."""
        ...


class Shadows(Protocol):
    """Keeps what models said unused, each answer once."""

    async def add_shadows(self, signals: Sequence[ShadowSignal]) -> int:
        """Keep answers, all or none, and give how many were new; raises `DataConflict`."""
        ...
