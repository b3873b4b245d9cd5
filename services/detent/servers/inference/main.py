"""Start the inference process: settings, the pinned artifact, handler, server.

An artifact that is not what was pinned does not stop the process: it answers every call with
the reason and reports that it does not serve, so that policy has something to record.
"""

import asyncio
import logging
import signal
import time
from importlib.metadata import version

from msgspec import structs

from detent.adapters.artifact_store import read_artifact
from detent.adapters.cpu_quota import cpu_count
from detent.adapters.process_settings import ending, read_settings
from detent.adapters.serving import Serving, open_serving
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.adapters.unpickling import forbid_unpickling
from detent.contracts import events
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.json_codec import to_json
from detent.rpc.serve import Server, ServerOptions, Service, run_process, serve_until_stopped
from detent.servers.inference import open_inference
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.run_queue import QueueLimits
from detent.servers.inference.settings import InferenceSettings

# As long may a run hold up the event loop on one processor; what a run may take, unless set higher.
ALONE_INLINE_S_MAX = 0.010

log = logging.getLogger(__name__)


def load(settings: InferenceSettings) -> Serving | ArtifactInvalid:
    """Give the artifact, verified and warmed by its golden rows, or why it is refused."""
    try:
        artifact = read_artifact(
            settings.artifact_dir,
            model_version_hash=settings.model_version_hash,
            trust=settings.signature_trust,
        )
        serving = open_serving(
            artifact, execution_provider=settings.execution_provider, threads=settings.threads
        )
    except ArtifactInvalid as error:
        facts = {"reason": error.gate_reason.value, "error": error.message}
        log.error(  # noqa: TRY400  The error is a refusal with its facts, not a crash.
            events.ARTIFACT_REFUSED, extra=facts | {"artifact": settings.artifact_dir.name}
        )
        return error
    facts = {"artifact": settings.artifact_dir.name, "mode": "pinned"}
    log.info(events.ML_MODE_INIT, extra=facts | {"binding_hash": artifact.pinned.binding_hash})
    certificate = serving.certificate
    log.info(
        events.CERTIFICATE_ISSUED,
        extra={"certificate_hash": certificate.certificate_hash, **to_json(certificate)},
    )
    return serving


def services_of(handler: InferenceHandler) -> list[Service]:
    """Give the two services that one handler answers: ours and the Open Inference Protocol's."""
    return [
        Service(name="InferenceService", handler=handler),
        open_inference.service_of(handler, server_version=version("detent")),
    ]


def health_of(serving: Serving | ArtifactInvalid) -> dict[str, bool]:
    """Say what serves: the process always, services and artifact once it is verified.

    The artifact is named by its manifest's hash, and by its line, which is what a client of
    the Open Inference Protocol knows it by.
    """
    ready = not isinstance(serving, ArtifactInvalid)
    health = {
        "": True,
        "detent.api.v1.InferenceService": ready,
        open_inference.DESCRIPTOR.full_name: ready,
    }
    if not isinstance(serving, ArtifactInvalid):
        manifest = serving.artifact.manifest
        health[f"artifact/{manifest.model_version_hash}"] = True
        health[f"model/{manifest.model_name}"] = True
    return health


def limits_of(settings: InferenceSettings) -> QueueLimits:
    """Give what the queue may hold, and as many workers as there are processors to run them."""
    processors = cpu_count()
    limits = QueueLimits(
        window_s=settings.batch_window_us / 1e6,
        rows_per_run=settings.batch_rows_max,
        rows_waiting_max=settings.queue_rows_max,
        workers=settings.workers or max(1, processors // settings.threads),
    )
    if processors > 1 or settings.execution_provider != "cpu":
        return limits
    # A worker would take turns with the loop on the one processor, and both go slower for it.
    run_s_max = settings.max_inference_latency_ms / 1e3
    return structs.replace(limits, inline_s_max=min(ALONE_INLINE_S_MAX, run_s_max))


async def reload_on_hangup(
    handler: InferenceHandler, server: Server, settings: InferenceSettings
) -> None:
    """Load the artifact again whenever the process is sent SIGHUP, beside the one that serves.

    What does not verify is refused and changes nothing.
    """
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        serving = await asyncio.to_thread(load, settings)
        if not isinstance(serving, ArtifactInvalid):
            handler.swap(serving)
            server.set_serving(health_of(serving))


async def run(settings: InferenceSettings) -> None:
    """Serve until the process is asked to stop."""
    telemetry = Telemetry(
        "detent-inference", otlp_endpoint=settings.otlp_endpoint, trace_file=settings.trace_file
    )
    serving = load(settings)
    handler = InferenceHandler(
        serving,
        max_inference_latency_ms=settings.max_inference_latency_ms,
        limits=limits_of(settings),
        clock=time.monotonic,
    )
    options = ServerOptions(
        listen=settings.listen,
        reflection=settings.reflection,
        drain_grace_s=settings.drain_grace_s,
    )
    server = Server(options, services_of(handler), telemetry.tracer)
    reloading = asyncio.create_task(reload_on_hangup(handler, server, settings))
    await serve_until_stopped(server, health_of(serving))
    reloading.cancel()
    handler.close()
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    with ending():
        settings = read_settings(InferenceSettings)
        set_up_logging(settings.log_level)
        forbid_unpickling()
        run_process(run(settings))


if __name__ == "__main__":
    main()
