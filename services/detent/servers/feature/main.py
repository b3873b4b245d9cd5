"""Start the feature process: settings, manifests, handler, server."""

import asyncio
import logging
import time

from detent.adapters.artifact_store import read_manifest_folder
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.rpc.serve import Server, ServerOptions, Service, serve_until_stopped
from detent.servers.feature.handler import FeatureHandler
from detent.servers.feature.settings import FeatureSettings

log = logging.getLogger(__name__)
HEALTHY = {"": True, "detent.api.v1.FeatureService": True}


def build_handler(settings: FeatureSettings) -> FeatureHandler:
    """Read the manifests and serve the feature set of each that is sound."""
    folder = read_manifest_folder(settings.artifacts_dir)
    for name, error in folder.refused.items():
        facts = {"artifact": name, "reason": error.gate_reason.value, "error": error.message}
        log.error(events.ARTIFACT_REFUSED, extra=facts)
    return FeatureHandler(
        {key: pinned.feature_set for key, pinned in folder.accepted.items()},
        symbols_max=settings.symbols_max,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


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
    service = Service(name="FeatureService", handler=build_handler(settings))
    server = Server(options, [service], telemetry.tracer)
    await serve_until_stopped(server, HEALTHY)
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    settings = FeatureSettings()
    set_up_logging(settings.log_level)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
