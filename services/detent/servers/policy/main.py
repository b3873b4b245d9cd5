"""Start the policy process: settings, adapters, handlers, server."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import grpc
from msgspec import structs
from opentelemetry.trace import Tracer

from detent.adapters.artifact_store import ManifestFolder, PinnedManifest, read_manifest_folder
from detent.adapters.grpc_dependencies import GrpcFeatures, GrpcInference
from detent.adapters.kill_file import KillFile
from detent.adapters.ledger_anchors import AnchorFile, AnchorKey
from detent.adapters.ledger_reading import PostgresReader
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.process_settings import ending, read_settings
from detent.adapters.sqlite_file import Durability
from detent.adapters.sqlite_ledger import ModelInputRow, SqliteLedger
from detent.adapters.sqlite_shadows import SqliteShadows
from detent.adapters.sqlite_trades import SqliteTrades
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.contracts.calls.feature import ModelInput
from detent.core.rollout.ladder import ArtifactState, Mode, rung
from detent.core.rollout.shadow import shadow_enablement
from detent.rpc.channel import open_channel
from detent.rpc.serve import Server, ServerOptions, Service, run_process, serve_until_stopped
from detent.servers.policy.handler import PolicyHandler
from detent.servers.policy.held import HeldBinding
from detent.servers.policy.kill_switches import KillSwitches, SharedKills
from detent.servers.policy.ledger_handler import LedgerHandler
from detent.servers.policy.model_breakers import ModelBreakers
from detent.servers.policy.model_path import KeepInputs, ModelPath
from detent.servers.policy.plans import Plans
from detent.servers.policy.ports import TellDecided
from detent.servers.policy.rollout_handler import RolloutHandler
from detent.servers.policy.rollouts import Rollouts, SharedRollouts
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.settings import PolicySettings
from detent.servers.policy.shadowing import Shadowing
from detent.servers.policy.trade_facts import TradeFactsTaker
from detent.servers.policy.upkeep import Anchoring, SetServing, Upkeep

if TYPE_CHECKING:
    from detent.adapters.metrics import MetricsServer

log = logging.getLogger(__name__)
DAY_MS = 86_400_000
SERVED = ("PolicyService", "LedgerService", "RolloutService")
HEALTHY = {"": True} | {f"detent.api.v1.{name}": True for name in SERVED}


class Policy:
    """Owns the policy side of a process: ledger, plans and the two handlers."""

    def __init__(
        self,
        settings: PolicySettings,
        *,
        routes: FixedRoutes,
        tracer: Tracer,
        now_ms: Callable[[], int],
    ) -> None:
        """Open the ledger and read the manifests."""
        durability = Durability(settings.ledger_durability.upper())
        folder = manifests(settings)
        self.mode = _mode(settings, folder)
        self.ledger = SqliteLedger(
            settings.ledger_file, durability, reserve_bytes=settings.ledger_reserve_bytes
        )
        self.plans = Plans(self.ledger, settings.ownership)
        anchoring = _anchoring(self.ledger, settings, now_ms)
        self.upkeep = Upkeep(
            self.ledger,
            anchoring=anchoring,
            anchor_interval_s=settings.anchor_interval_s,
            shipper=_shipper(settings),
            drain_s=settings.drain_grace_s,
            now_ms=now_ms,
        )
        self.kills, self.rollouts = _shared_state(settings)
        held = {key: _held(pinned) for key, pinned in folder.accepted.items()}
        model_path = ModelPath(
            routes=routes.knowing(_model_ids(folder)),
            enablement=settings.enablement,
            kill_switch_env=kill_switch_env,
            tracer=tracer,
            keep_inputs=_input_keeper(self.ledger, settings, now_ms),
            kill_reading=self.kills.reading,
            note_outcomes=self.kills.note_outcomes,
            breakers=ModelBreakers(settings.breaker_limits, time.monotonic),
        )
        self.shadowing = self._shadowing(settings, model_path)
        self._metrics_server: MetricsServer | None = None
        self._drain_s = settings.drain_grace_s
        self.handler = PolicyHandler(
            ledger=self.ledger,
            plans=self.plans,
            held=held,
            model_path=model_path,
            trade_facts=TradeFactsTaker(
                plans=self.plans, ledger=self.ledger, facts=SqliteTrades(self.ledger.file)
            ),
            rollouts=self.rollouts,
            now_ms=now_ms,
            future_skew_ms=settings.future_skew_ms,
            replan_min_interval_ms=settings.replan_min_interval_s * 1_000,
            tracer=tracer,
            tell_decided=self._listeners(settings, folder),
        )
        url = settings.ledger_database_url
        ledger_handler = LedgerHandler(
            ledger=self.ledger,
            shared=PostgresReader(url.get_secret_value()) if url is not None else None,
            anchored=anchoring.anchored if anchoring is not None else None,
        )
        refused = self.handler.note_refusal
        self.services = [
            Service(name="PolicyService", handler=self.handler, on_refusal=refused),
            Service(name="LedgerService", handler=ledger_handler),
            Service(
                name="RolloutService",
                handler=RolloutHandler(self.kills, model_path, rollouts=self.rollouts, held=held),
            ),
        ]

    async def start(self, set_serving: SetServing | None = None) -> None:
        """Take up what earlier runs left, and start what runs beside the decisions."""
        self.kills.start()
        await self.plans.restore()
        await self.upkeep.start(set_serving)

    async def close(self) -> None:
        """Record what is under way, anchor and ship it, and close the ledger."""
        await self.handler.settle()
        if self.shadowing is not None:
            await self.shadowing.close(self._drain_s)
        await self.kills.close()
        self.rollouts.close()
        await self.upkeep.close()
        await self.ledger.close()
        if self._metrics_server is not None:
            self._metrics_server.close()

    def _listeners(self, settings: PolicySettings, folder: ManifestFolder) -> list[TellDecided]:
        """Give who is told of decisions: the shadow, and the series where they are scraped."""
        listeners: list[TellDecided] = []
        if self.shadowing is not None:
            listeners.append(self.shadowing.offer)
        if settings.metrics_listen is not None:
            # Slow to load, and not needed where nobody scrapes.
            from detent.adapters.metrics import Metrics, MetricsServer  # noqa: PLC0415
            from detent.servers.policy.decision_metrics import DecisionMetrics  # noqa: PLC0415

            metrics = Metrics()
            counted = DecisionMetrics(
                metrics, accepted_count=len(folder.accepted), refused_count=len(folder.refused)
            )
            listeners.append(counted.count)
            self._metrics_server = MetricsServer(metrics, listen=settings.metrics_listen)
        return listeners

    def _shadowing(self, settings: PolicySettings, model_path: ModelPath) -> Shadowing | None:
        """Give what asks models unused; on the rung OFF nothing runs."""
        if self.mode is Mode.OFF:
            return None
        unused = structs.replace(
            model_path,
            enablement=shadow_enablement(settings.enablement),
            # What a shadow is given is kept by nobody, and its troubles switch nothing off.
            keep_inputs=None,
            note_outcomes=None,
            breakers=None,
        )
        return Shadowing(
            model_path=unused,
            store=SqliteShadows(self.ledger.file),
            own=self.mode is Mode.SHADOW,
            limits=settings.shadow_limits,
            clock=time.monotonic,
            is_busy=lambda: self.handler.is_busy,
        )


def kill_switch_env() -> bool:
    """Say whether the environment forbids the model at this instant."""
    return os.environ.get("ML_KILL_SWITCH") == "1"


def wall_clock_ms() -> int:
    """Read the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def manifests(settings: PolicySettings) -> ManifestFolder:
    """Read what may be bound; an `ml:` file may switch off what an artifact needs."""
    folder = read_manifest_folder(settings.artifacts_dir, trust=settings.signature_trust)
    if settings.ml_settings is not None:
        # Slow to load, and not needed without such a file.
        from detent.adapters.ml_agreement import agreeing  # noqa: PLC0415
        from detent.adapters.ml_settings import read_ml_settings  # noqa: PLC0415

        folder = agreeing(read_ml_settings(settings.ml_settings), folder)
    _log_folder(folder)
    return folder


def _mode(settings: PolicySettings, folder: ManifestFolder) -> Mode:
    """Find the rung of this process; raises `GuardRefused` where there is none."""
    artifact = ArtifactState.VALID
    if not folder.accepted:
        artifact = ArtifactState.INVALID if folder.refused else ArtifactState.MISSING
    mode = rung(settings.ladder(artifact), kill_switch_env=kill_switch_env())
    log.info(events.ML_MODE_INIT, extra={"mode": mode, "environment": settings.environment})
    return mode


def _shared_state(settings: PolicySettings) -> tuple[KillSwitches, Rollouts]:
    """Give what obeys the control database; both follow it over one connection."""
    kills, rollouts = None, None
    if settings.control_url is not None:
        # Slow to load, and not needed without a control database.
        from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
        from detent.adapters.kill_reader import KillSwitchReader  # noqa: PLC0415
        from detent.adapters.kill_store import KillStore  # noqa: PLC0415
        from detent.adapters.rollout_store import RolloutStore  # noqa: PLC0415

        database = ControlDatabase(settings.control_url.get_secret_value())
        reader = KillSwitchReader(database, f"{socket.gethostname()[:100]}/{os.getpid()}")
        kills = SharedKills(KillStore(database), reader)
        rollouts = SharedRollouts(RolloutStore(database), reader)
    file = settings.kill_file
    switches = KillSwitches(
        file=KillFile(file, clock=time.monotonic) if file is not None else None,
        shared=kills,
        limits=settings.latch_limits,
        clock=time.monotonic,
    )
    return switches, Rollouts(rollouts, clock=time.monotonic)


def _anchoring(
    ledger: SqliteLedger, settings: PolicySettings, now_ms: Callable[[], int]
) -> Anchoring | None:
    if settings.anchor_file is None or settings.anchor_key_file is None:
        return None
    key = AnchorKey.read(settings.anchor_key_file)
    return Anchoring(ledger, AnchorFile(settings.anchor_file), key, now_ms=now_ms)


def _shipper(settings: PolicySettings) -> LedgerShipper | None:
    if settings.ledger_database_url is None:
        return None
    options = ShippingOptions(url=settings.ledger_database_url.get_secret_value())
    return LedgerShipper(settings.ledger_file, options)


def _input_keeper(
    ledger: SqliteLedger, settings: PolicySettings, now_ms: Callable[[], int]
) -> KeepInputs | None:
    retention_ms = settings.inputs_retention_days * DAY_MS
    if not retention_ms:
        return None

    def keep(inputs: Mapping[str, ModelInput], texts: Mapping[str, bytes]) -> None:
        expires_ms = now_ms() + retention_ms
        ledger.stage_inputs(
            [
                ModelInputRow(
                    features_hash=given.features_hash,
                    expires_ms=expires_ms,
                    canonical=texts[symbol].decode("ascii"),
                    model_input=given.values,
                )
                for symbol, given in inputs.items()
            ]
        )

    return keep


def _held(pinned: PinnedManifest) -> HeldBinding:
    return HeldBinding(
        bar_interval_ms=pinned.manifest.bar_interval_ms,
        caller_names=frozenset(pinned.feature_set.caller_names),
    )


def _model_ids(folder: ManifestFolder) -> dict[str, str]:
    return {key: pinned.manifest.model_id for key, pinned in folder.accepted.items()}


def _log_folder(folder: ManifestFolder) -> None:
    for name, error in folder.refused.items():
        facts = {"artifact": name, "reason": error.gate_reason.value, "error": error.message}
        log.error(events.ARTIFACT_REFUSED, extra=facts)


class Channels:
    """Opens one channel to each address, and closes them all."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._open: dict[str, grpc.aio.Channel] = {}

    def to(self, target: str) -> grpc.aio.Channel:
        """Give the channel to an address."""
        if target not in self._open:
            self._open[target] = open_channel(target)
        return self._open[target]

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._open.values():
            await channel.close()


def _routes(settings: PolicySettings, channels: Channels, tracer: Tracer) -> FixedRoutes:
    return FixedRoutes(
        GrpcFeatures(channels.to(settings.feature_target), tracer),
        GrpcInference(channels.to(settings.inference_target), tracer),
        features_of={
            key: GrpcFeatures(channels.to(target), tracer)
            for key, target in settings.feature_targets.items()
        },
        inference_of={
            key: GrpcInference(channels.to(target), tracer)
            for key, target in settings.inference_targets.items()
        },
    )


async def run(settings: PolicySettings) -> None:
    """Serve until the process is asked to stop."""
    telemetry = Telemetry(
        "detent-policy", otlp_endpoint=settings.otlp_endpoint, trace_file=settings.trace_file
    )
    channels = Channels()
    policy = Policy(
        settings,
        routes=_routes(settings, channels, telemetry.tracer),
        tracer=telemetry.tracer,
        now_ms=wall_clock_ms,
    )
    options = ServerOptions(
        listen=settings.listen,
        reflection=settings.reflection,
        drain_grace_s=settings.drain_grace_s,
    )
    server = Server(options, policy.services, telemetry.tracer)
    await policy.start(server.set_serving)
    await serve_until_stopped(server, HEALTHY)
    await policy.close()
    await channels.close()
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    with ending():
        settings = read_settings(PolicySettings)
        set_up_logging(settings.log_level)
        run_process(run(settings))


if __name__ == "__main__":
    main()
