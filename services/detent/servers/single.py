"""Compose all three services in one process: `detent up --single`.

The same handlers, without a wire between them: policy's ports are the feature and inference
handlers themselves. One address serves every service.
"""

import time

from detent.adapters.process_settings import ending, read_settings
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.adapters.unpickling import forbid_unpickling
from detent.rpc.serve import Server, ServerOptions, Service, run_process
from detent.servers.feature.main import NAME, build, serve
from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.main import health_of, load, services_of
from detent.servers.inference.settings import InferenceSettings
from detent.servers.policy.main import HEALTHY, Policy, wall_clock_ms
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.settings import PolicySettings


async def run(
    feature: FeatureSettings, inference: InferenceSettings, policy: PolicySettings
) -> None:
    """Serve all on policy's address until the process is asked to stop."""
    telemetry = Telemetry(
        "detent-single", otlp_endpoint=policy.otlp_endpoint, trace_file=policy.trace_file
    )
    features, shared = build(feature)
    serving = load(inference)
    signals = InferenceHandler(
        serving,
        max_inference_latency_ms=inference.max_inference_latency_ms,
        clock=time.monotonic,
    )
    decisions = Policy(
        policy,
        routes=FixedRoutes(features, signals),
        tracer=telemetry.tracer,
        now_ms=wall_clock_ms,
    )
    options = ServerOptions(
        listen=policy.listen, reflection=policy.reflection, drain_grace_s=policy.drain_grace_s
    )
    services = [
        Service(name="FeatureService", handler=features),
        *services_of(signals),
        *decisions.services,
    ]
    server = Server(options, services, telemetry.tracer)
    await decisions.start(server.set_serving)
    # Policy serves whatever becomes of the artifact: the whole process is healthy with it.
    await serve(server, {**health_of(serving), **HEALTHY, NAME: True}, shared)
    await decisions.close()
    signals.close()
    telemetry.close()


def main() -> None:
    """Read the environment and serve."""
    with ending():
        policy = read_settings(PolicySettings)
        feature, inference = read_settings(FeatureSettings), read_settings(InferenceSettings)
        set_up_logging(policy.log_level)
        forbid_unpickling()
        run_process(run(feature, inference, policy))


if __name__ == "__main__":
    main()
