"""Serve a handler that does nothing, with telemetry or without: `... served PORT FOLDER MODE`."""

import logging
import os
import sys
from pathlib import Path

from benchmarks.telemetry.parts import PROVENANCE
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.contracts.calls.inference import (
    DescribeArtifactRequest,
    DescribeArtifactResponse,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.errors import ModelNotReady
from detent.contracts.reasons import Reason
from detent.rpc.call import Call
from detent.rpc.serve import Server, ServerOptions, Service, run_process, serve_until_stopped
from detent.rpc.tracing import annotate
from detent_cli.stack import HOST

OFF, SHARE, ON = "off", "1% of traces", "on"
HEALTHY = {"": True}

log = logging.getLogger(__name__)


class Echo:
    """Answers without a model, and says of a call what the inference service says."""

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        """Answer nothing."""
        annotate(call.trace, PROVENANCE)
        facts = {
            "binding_hash": query.binding_hash,
            "model_id": PROVENANCE["model_id"],
            "model_hash": PROVENANCE["model_hash"],
            "row_count": len(query.rows),
            "refused_count": 0,
            "refusals": [],
            "symbols": [row.symbol for row in query.rows],
            "features_hash": [row.model_input.features_hash for row in query.rows],
            "latency_us": 10,
        }
        log.info(events.ML_INFER_OK, extra=facts)
        return InferSignalsResponse(
            binding_hash=query.binding_hash,
            model_version_hash=query.binding_hash,
            calibration_version="v1.0.0",
            rows=(),
        )

    async def describe_artifact(
        self, query: DescribeArtifactRequest, call: Call
    ) -> DescribeArtifactResponse:
        """Refuse: nothing is served here.

        Raises:
            ModelNotReady: Always.
        """
        del query, call
        raise ModelNotReady("no artifact is served", gate_reason=Reason.MODEL_NOT_READY)


async def serve(port: int, folder: Path, mode: str) -> None:
    """Serve until the process is ended."""
    spans = None if mode == OFF else folder / f"{mode}.spans.jsonl"
    telemetry = Telemetry("bench", otlp_endpoint=None, trace_file=spans)
    options = ServerOptions(listen=f"{HOST}:{port}", reflection=False, drain_grace_s=1.0)
    service = Service(name="InferenceService", handler=Echo())
    await serve_until_stopped(Server(options, [service], telemetry.tracer), HEALTHY)
    telemetry.close()


def main() -> None:
    """Read the arguments and serve."""
    port, folder, mode = sys.argv[1:]
    if mode == SHARE:
        os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        os.environ["OTEL_TRACES_SAMPLER_ARG"] = "0.01"
    set_up_logging("WARNING" if mode == OFF else "INFO")
    run_process(serve(int(port), Path(folder), mode))


if __name__ == "__main__":
    main()
