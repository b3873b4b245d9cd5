"""Start the feature process: settings, manifests, handler, server."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from detent.adapters.artifact_store import read_manifest_folder
from detent.adapters.process_settings import ending, read_settings
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.core.features.feature_set import FeatureSet
from detent.core.features.market_state import MarketState
from detent.rpc.serve import Server, ServerOptions, Service, run_process, serve_until_stopped
from detent.servers.feature.handler import FeatureHandler
from detent.servers.feature.settings import FeatureSettings
from detent.servers.feature.shared_state import SharedState, lengths_of

log = logging.getLogger(__name__)
NAME = "detent.api.v1.FeatureService"
HEALTHY = {"": True, NAME: True}
# Well below the period of a readiness probe.
HEALTH_S = 0.2


def build(settings: FeatureSettings) -> tuple[FeatureHandler, SharedState | None]:
    """Read the manifests; give the handler, and the state that it shares if it shares one."""
    folder = read_manifest_folder(settings.artifacts_dir, trust=settings.signature_trust)
    for name, error in folder.refused.items():
        facts = {"artifact": name, "reason": error.gate_reason.value, "error": error.message}
        log.error(events.ARTIFACT_REFUSED, extra=facts)
    feature_sets = {key: pinned.feature_set for key, pinned in folder.accepted.items()}
    shared = share_state(settings, tuple(feature_sets.values()))
    handler = FeatureHandler(
        feature_sets,
        symbols_max=settings.symbols_max,
        now_ms=lambda: time.time_ns() // 1_000_000,
        shared=shared,
    )
    return handler, shared


def share_state(
    settings: FeatureSettings, feature_sets: Sequence[FeatureSet]
) -> SharedState | None:
    """Give the state in Redis, where one is named; it is followed once it runs."""
    if settings.redis_url is None:
        return None
    # Imported here: only whoever shares state needs the library.
    from detent.adapters.redis_market import RedisMarket  # noqa: PLC0415

    store = RedisMarket(
        settings.redis_url.get_secret_value(),
        prefix=settings.redis_prefix,
        lengths=lengths_of(feature_sets, quotes_max=settings.redis_quotes_max),
        symbols_max=settings.symbols_max,
    )
    return SharedState(
        store,
        lambda: MarketState(feature_sets, symbols_max=settings.symbols_max),
        clock=time.monotonic,
    )


async def serve(server: Server, serving: Mapping[str, bool], shared: SharedState | None) -> None:
    """Serve until stopped; meanwhile follow the shared state, if any, and say if that succeeds."""
    if shared is None:
        await serve_until_stopped(server, serving)
        return
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(shared.run()), group.create_task(_tell(server, shared))]
        await serve_until_stopped(server, {**serving, NAME: False})
        for task in tasks:
            task.cancel()
    await shared.close()


async def _tell(server: Server, shared: SharedState) -> None:
    """Keep the health of the service what the state allows; liveness is none of its business."""
    while True:
        server.set_serving({NAME: shared.is_current})
        await asyncio.sleep(HEALTH_S)


async def run(settings: FeatureSettings) -> None:
    """Serve until the process is asked to stop."""
    telemetry = Telemetry(
        "detent-feature", otlp_endpoint=settings.otlp_endpoint, trace_file=settings.trace_file
    )
    options = ServerOptions(
        listen=settings.listen,
        reflection=settings.reflection,
        drain_grace_s=settings.drain_grace_s,
    )
    handler, shared = build(settings)
    server = Server(options, [Service(name="FeatureService", handler=handler)], telemetry.tracer)
    await serve(server, HEALTHY, shared)
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    with ending():
        settings = read_settings(FeatureSettings)
        set_up_logging(settings.log_level)
        run_process(run(settings))


if __name__ == "__main__":
    main()
