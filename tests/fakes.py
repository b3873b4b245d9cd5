"""Stands in for what policy asks, over the same ports and over the same wire."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from tests.builders import HOUR_MS, START_MS

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_trades import SqliteTrades
from detent.contracts.binding import ModelBinding
from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    ModelInput,
)
from detent.contracts.calls.inference import (
    InferSignalsRequest,
    InferSignalsResponse,
    SignalRow,
)
from detent.contracts.calls.signal_columns import InferenceColumns, SignalColumn, SignalColumns
from detent.contracts.canonical import sha256_hex
from detent.contracts.signals import DirectionSignal, MlSignalSnapshot
from detent.contracts.wire import message_class
from detent.core.features.model_input import features_hash
from detent.core.rollout.gates import ACTIVE_ACK, Enablement
from detent.rpc import registry
from detent.rpc.call import Call
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.serve import Server, ServerOptions, Service
from detent.rpc.status import from_rpc_error
from detent.rpc.tracing import no_tracer
from detent.servers.policy.handler import PolicyHandler
from detent.servers.policy.held import HeldBinding
from detent.servers.policy.kill_switches import KillSwitches
from detent.servers.policy.ledger_handler import LedgerHandler
from detent.servers.policy.model_breakers import ModelBreakers
from detent.servers.policy.model_path import ModelPath
from detent.servers.policy.plans import Plans
from detent.servers.policy.ports import Routes
from detent.servers.policy.rollout_handler import RolloutHandler
from detent.servers.policy.rollouts import Rollouts
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.trade_facts import TradeFactsTaker

ACTIVE = Enablement(infer_enabled=True, active_enabled=True, active_ack=ACTIVE_ACK)
FeaturesBehavior = Callable[
    [GetFeatureSnapshotsRequest, Call], Awaitable[GetFeatureSnapshotsResponse]
]
InferenceBehavior = Callable[[InferSignalsRequest, Call], Awaitable[InferSignalsResponse]]


class FakeFeatures:
    """Gives model inputs for any symbol, or whatever it was told to do."""

    def __init__(self, binding: ModelBinding) -> None:
        self.binding = binding
        self.asked: list[GetFeatureSnapshotsRequest] = []
        self.behavior: FeaturesBehavior = self.answers

    async def get_feature_snapshots(
        self, query: GetFeatureSnapshotsRequest, call: Call
    ) -> GetFeatureSnapshotsResponse:
        self.asked.append(query)
        return await self.behavior(query, call)

    async def answers(
        self, query: GetFeatureSnapshotsRequest, _call: Call
    ) -> GetFeatureSnapshotsResponse:
        return GetFeatureSnapshotsResponse(
            binding_hash=query.binding_hash,
            feature_version=self.binding.feature_version,
            rows=tuple(
                FeatureRow(
                    symbol=symbol,
                    model_input=model_input_of(
                        symbol,
                        query.as_of_ts_ms,
                        feature_version=self.binding.feature_version,
                    ),
                )
                for symbol in query.symbols
            ),
        )


class FakeInference:
    """Gives one probability for every row, or does whatever it was told to do."""

    def __init__(self, binding: ModelBinding, *, p_hat_bps: int = 9_000) -> None:
        self.binding = binding
        self.p_hat_bps = p_hat_bps
        self.asked: list[InferSignalsRequest] = []
        self.behavior: InferenceBehavior = self.answers

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        self.asked.append(query)
        return await self.behavior(query, call)

    async def answers(self, query: InferSignalsRequest, _call: Call) -> InferSignalsResponse:
        return signals_of(query, self.binding, p_hat_bps=self.p_hat_bps)


def model_input_of(symbol: str, ts_ms: int, *, feature_version: str = "b" * 64) -> ModelInput:
    """Give a model input that is sound, of whatever feature version the fakes speak."""
    values, snapshot_hashes = b"\x00\x00\x80\x3f" * 11, ("d" * 64,)
    hashed = features_hash(
        feature_version,
        symbol=symbol,
        ts_ms=ts_ms,
        snapshot_hashes=snapshot_hashes,
        values=values,
    )
    return ModelInput(
        ts_ms=ts_ms, values=values, snapshot_hashes=snapshot_hashes, features_hash=hashed
    )


def signals_of(
    query: InferSignalsRequest, binding: ModelBinding, *, p_hat_bps: int
) -> InferSignalsResponse:
    """Give the sound answer to a query, in the form of the query."""
    if query.columns is not None:
        return InferSignalsResponse(
            binding_hash=query.binding_hash,
            model_version_hash=binding.model_version_hash,
            calibration_version=binding.calibration_version,
            columns=columns_of(query.columns, p_hat_bps=p_hat_bps),
        )
    return InferSignalsResponse(
        binding_hash=query.binding_hash,
        model_version_hash=binding.model_version_hash,
        calibration_version=binding.calibration_version,
        rows=tuple(
            SignalRow(
                symbol=row.symbol,
                features_hash=row.model_input.features_hash,
                signal=MlSignalSnapshot(
                    ts=row.model_input.ts_ms,
                    symbol=row.symbol,
                    model_version="v1.0.0",
                    model_hash="e" * 16,
                    top_features=(),
                    top_feature_weights_x1000=(),
                    inference_latency_us=500,
                    features_hash=row.model_input.features_hash[:16],
                    direction=DirectionSignal(p_hat_raw_bps=p_hat_bps, p_hat_bps=p_hat_bps),
                ),
            )
            for row in query.rows
        ),
    )


def columns_of(asked: InferenceColumns, *, p_hat_bps: int) -> SignalColumns:
    """Give the sound answer to columns."""
    values = p_hat_bps.to_bytes(4, "little", signed=True) * len(asked.symbols)
    return SignalColumns(
        features_hashes=asked.features_hashes,
        inputs_sha256=sha256_hex(asked.values),
        model_version="v1.0.0",
        model_hash="e" * 16,
        latency_us=500,
        signals=tuple(
            SignalColumn(name=name, values=values) for name in ("p_hat_raw_bps", "p_hat_bps")
        ),
    )


def raises(error: Exception) -> Callable[[Any, Call], Awaitable[Any]]:
    """Give a behavior that fails."""

    async def behavior(query: Any, call: Call) -> Any:
        raise error

    return behavior


async def hangs(query: Any, call: Call) -> Any:
    """Never answer."""
    await asyncio.Event().wait()


def held_of(
    bindings: Iterable[ModelBinding], caller_names: Iterable[str]
) -> dict[str, HeldBinding]:
    """Give what the manifests of some bindings would say."""
    return {
        one.binding_hash: HeldBinding(bar_interval_ms=HOUR_MS, caller_names=frozenset(caller_names))
        for one in bindings
    }


class PolicyHost:
    """Serves policy from the test's own process, over real gRPC, with any ports behind it."""

    def __init__(
        self,
        ledger_file: Path,
        binding: ModelBinding,
        *,
        features: Any = None,
        inference: Any = None,
        enablement: Enablement = ACTIVE,
        kill_switch_env: Callable[[], bool] = lambda: False,
        tracer: Any = None,
        caller_names: Iterable[str] = (),
        reserve_bytes: int = 0,
        kills: KillSwitches | None = None,
        rollouts: Rollouts | None = None,
        also_held: Sequence[ModelBinding] = (),
        routes: Routes | None = None,
        breakers: ModelBreakers | None = None,
    ) -> None:
        self.ledger_file, self.binding = ledger_file, binding
        self.features = features or FakeFeatures(binding)
        self.inference = inference or FakeInference(binding)
        self.now_ms = START_MS + 100_000 * HOUR_MS
        self.target, self._tracer = "", tracer or no_tracer()
        self.ledger = SqliteLedger(ledger_file, reserve_bytes=reserve_bytes)
        self.plans = Plans(self.ledger)
        self.kills = kills or KillSwitches(clock=time.monotonic)
        self.rollouts = rollouts or Rollouts(clock=time.monotonic)
        facts = SqliteTrades(self.ledger.file)
        held = self._held = held_of((binding, *also_held), caller_names)
        self.model_path = ModelPath(
            routes=routes or FixedRoutes(self.features, self.inference),
            enablement=enablement,
            kill_switch_env=kill_switch_env,
            tracer=self._tracer,
            kill_reading=self.kills.reading,
            note_outcomes=self.kills.note_outcomes,
            breakers=breakers,
        )
        self.handler = PolicyHandler(
            ledger=self.ledger,
            plans=self.plans,
            held=held,
            model_path=self.model_path,
            trade_facts=TradeFactsTaker(plans=self.plans, ledger=self.ledger, facts=facts),
            rollouts=self.rollouts,
            now_ms=lambda: self.now_ms,
            future_skew_ms=1_000,
            tracer=self._tracer,
        )
        self._server = Server(
            ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=1.0),
            self._services(),
            self._tracer,
        )

    def _services(self) -> list[Service]:
        rollouts = RolloutHandler(
            self.kills, self.model_path, rollouts=self.rollouts, held=self._held
        )
        note = self.handler.note_refusal
        return [
            Service(name="PolicyService", handler=self.handler, on_refusal=note),
            Service(name="LedgerService", handler=LedgerHandler(ledger=self.ledger)),
            Service(name="RolloutService", handler=rollouts),
        ]

    async def __aenter__(self) -> Self:
        self.kills.start()
        await self.plans.restore()
        self.target = await self._server.start()
        return self

    def hold(self, binding: ModelBinding) -> None:
        """Hold one more manifest."""
        self._held |= held_of([binding], ())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.drain()
        await self.handler.settle()
        await self.kills.close()
        self.rollouts.close()
        await self.ledger.close()


class HandlerHost:
    """Serves one handler of one service from the test's own process, over real gRPC."""

    def __init__(self, service: str, handler: object) -> None:
        options = ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=0.0)
        self._server = Server(options, [Service(name=service, handler=handler)], no_tracer())
        self.target = ""

    async def __aenter__(self) -> Self:
        self.target = await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.drain()


class RawServer:
    """Answers one service with messages that our own code would refuse to build."""

    def __init__(self, service: str, answers: Mapping[str, Callable[[Message], Any]]) -> None:
        """Take what answers each method: a message, bytes, or a coroutine of one."""
        self._server = grpc.aio.server()
        self.target = ""
        descriptor = registry.SERVICES[service]
        methods = {}
        for method in descriptor.methods:
            if method.name in answers:
                methods[method.name] = grpc.unary_unary_rpc_method_handler(
                    _raw(answers[method.name]),
                    request_deserializer=message_class(method.input_type.name).FromString,
                    response_serializer=_serialized,
                )
        handler = grpc.method_handlers_generic_handler(descriptor.full_name, methods)
        self._server.add_generic_rpc_handlers((handler,))

    async def __aenter__(self) -> Self:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


def _raw(answer: Callable[[Message], Any]) -> Callable[[Message, Any], Awaitable[Any]]:
    async def respond(message: Message, context: Any) -> Any:
        answered = answer(message)
        return await answered if asyncio.iscoroutine(answered) else answered

    return respond


def _serialized(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


@contextlib.asynccontextmanager
async def remote(target: str, service: str) -> AsyncIterator[RemoteService]:
    """Open one service for a test that needs neither retries nor local answers."""
    channel = open_channel(target)
    try:
        yield RemoteService(channel, service, no_tracer())
    finally:
        await channel.close()


async def send(target: str, message: Message, *, timeout_s: float = 5.0) -> Any:
    """Send a message as it is, however spoilt, and give the answering message.

    Raises:
        DetentError: What the server refused it with.
    """
    name = message.DESCRIPTOR.name
    method = next(
        method
        for service in registry.SERVICES.values()
        for method in service.methods
        if method.input_type.name == name
    )
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(
            registry.path_of(method),
            request_serializer=message_class(name).SerializeToString,
            response_deserializer=message_class(method.output_type.name).FromString,
        )
        try:
            return await call(message, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(method.containing_service.name, error) from error
