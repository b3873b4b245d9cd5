"""Measure the parts by themselves: a span, a line, a header read and written.

Processor time of the whole process, so that what a part leaves to another thread counts too.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from benchmarks.decide.timing import Timing, timing_of
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts import events
from detent.rpc.call_lines import say
from detent.rpc.tracing import annotate, extract, inject, span, trace_id_of

IDS = {"binding_hash": "a" * 64, "plan_id": "plan-1"}
PROVENANCE = {"model_id": "direction_v1.0.0", "model_version": "v1.0.0", "model_hash": "b" * 16}
LINE: dict[str, object] = {
    "method": "InferenceService/InferSignals",
    "code": "OK",
    "elapsed_ms": 0.123,
    "trace_id": "c" * 32,
    **IDS,
}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
SAMPLED = (("user-agent", "bench"), ("traceparent", PARENT + "1"))
UNSAMPLED = (("user-agent", "bench"), ("traceparent", PARENT + "0"))
REPEATS = 1_000
Step = Callable[[], object]

log = logging.getLogger("detent.rpc.serve")


def measure_parts(folder: Path, rounds: int) -> dict[str, Timing]:
    """Give the time of each part, in microseconds; the parts take turns.

    Args:
        folder: Where spans and lines are written; it exists.
        rounds: How often each part is repeated a thousand times.
    """
    telemetry = Telemetry("bench", otlp_endpoint=None, trace_file=folder / "parts.spans.jsonl")
    times_us: dict[str, list[float]] = {}
    with (folder / "parts.log").open("w") as stream:
        set_up_logging("INFO", stream)
        steps = _steps(telemetry)
        for _ in range(rounds):
            for name, step in steps.items():
                started_ns = time.process_time_ns()
                for _ in range(REPEATS):
                    step()
                spent_us = (time.process_time_ns() - started_ns) / 1_000
                times_us.setdefault(name, []).append(spent_us / REPEATS)
        telemetry.close()
        logging.shutdown()
    logging.getLogger().handlers.clear()
    return {name: timing_of(times) for name, times in times_us.items()}


def _steps(telemetry: Telemetry) -> dict[str, Step]:
    tracer, context = telemetry.tracer, extract(SAMPLED)

    def traced(metadata: tuple[tuple[str, str], ...]) -> Context:
        caller = extract(metadata)
        name = "InferenceService/InferSignals"
        with span(tracer, name, caller, kind=SpanKind.SERVER) as trace:
            annotate(trace, IDS)
            annotate(trace, PROVENANCE)
        return trace

    def whole(*, lines: int) -> None:
        """Do what a server does for a call."""
        caller = extract(SAMPLED)
        name = "InferenceService/InferSignals"
        with span(tracer, name, caller, kind=SpanKind.SERVER) as trace:
            annotate(trace, IDS | PROVENANCE)
            for _ in range(lines):
                say(log, events.RPC, LINE | {"trace_id": trace_id_of(trace)})

    def bare() -> None:
        with span(tracer, "step", context):
            pass

    return {
        "read a caller's context": lambda: extract(SAMPLED),
        "write a context": lambda: inject(context),
        "a span": bare,
        "a server's span, two times annotated": lambda: traced(SAMPLED),
        "the same, not sampled": lambda: traced(UNSAMPLED),
        "a line by Logger.info": lambda: log.info(events.RPC, extra=LINE),
        "a line by say": lambda: say(log, events.RPC, LINE),
        "a call: span, one annotation, one line": lambda: whole(lines=1),
        "a call: span, one annotation, two lines": lambda: whole(lines=2),
    }
