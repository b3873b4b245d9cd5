"""Start the inference process: settings, the pinned artifact, handler, server.

An artifact that is not what was pinned does not stop the process: it answers every call with
the reason and reports that it does not serve, so that policy has something to record.
"""

import asyncio
import logging
import time

from detent.adapters.artifact_store import read_artifact
from detent.adapters.onnx_session import Serving, open_serving
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.contracts.errors import ArtifactInvalid
from detent.rpc.serve import Server, ServerOptions, Service, serve_until_stopped
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.settings import InferenceSettings

log = logging.getLogger(__name__)


def load(settings: InferenceSettings) -> Serving | ArtifactInvalid:
    """Give the artifact, verified and warmed by its golden rows, or why it is refused."""
    try:
        artifact = read_artifact(
            settings.artifact_dir,
            model_version_hash=settings.model_version_hash,
            trust=settings.signature_trust,
        )
        serving = open_serving(artifact, execution_provider=settings.execution_provider)
    except ArtifactInvalid as error:
        facts = {"reason": error.gate_reason.value, "error": error.message}
        log.error(  # noqa: TRY400  The error is a refusal with its facts, not a crash.
            events.ARTIFACT_REFUSED, extra=facts | {"artifact": settings.artifact_dir.name}
        )
        return error
    facts = {"artifact": settings.artifact_dir.name, "mode": "pinned"}
    log.info(events.ML_MODE_INIT, extra=facts | {"binding_hash": artifact.pinned.binding_hash})
    return serving


def health_of(serving: Serving | ArtifactInvalid) -> dict[str, bool]:
    """Say what serves: the process always, the service and the artifact once it is verified."""
    ready = not isinstance(serving, ArtifactInvalid)
    health = {"": True, "detent.api.v1.InferenceService": ready}
    if not isinstance(serving, ArtifactInvalid):
        health[f"artifact/{serving.artifact.manifest.model_version_hash}"] = True
    return health


async def run(settings: InferenceSettings) -> None:
    """Serve until the process is asked to stop."""
    telemetry = Telemetry(
        "detent-inference", otlp_endpoint=settings.otlp_endpoint, trace_file=settings.trace_file
    )
    serving = load(settings)
    handler = InferenceHandler(
        serving,
        max_inference_latency_ms=settings.max_inference_latency_ms,
        clock=time.monotonic,
    )
    options = ServerOptions(
        listen=settings.listen,
        reflection=settings.reflection,
        drain_grace_s=settings.drain_grace_s,
    )
    service = Service(name="InferenceService", handler=handler)
    server = Server(options, [service], telemetry.tracer)
    await serve_until_stopped(server, health_of(serving))
    handler.close()
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    settings = InferenceSettings()
    set_up_logging(settings.log_level)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
