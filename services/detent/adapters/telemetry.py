"""Set up logging and tracing for one process."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Tracer

from detent.rpc.tracing import no_tracer

# What JSON has no form for is written as its text.
_ENCODER = msgspec.json.Encoder(enc_hook=str)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Writes one JSON object per record: event name, level, and the facts as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        facts = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = {
            "event": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
            "at_ms": round(record.created * 1000),
            **facts,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line).decode()


def set_up_logging(level: str, stream: TextIO = sys.stderr) -> None:
    """Send every record of this process to one stream as JSON lines."""
    # What no line of ours says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    vars(logging)["_srcfile"] = None
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class SpanFile(SpanExporter):
    """Appends finished spans to a file, one JSON object a line; for a look without a collector."""

    def __init__(self, path: Path) -> None:
        """Append to the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans."""
        self._file.writelines(_ENCODER.encode(_facts_of(span)) + b"\n" for span in spans)
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def _facts_of(span: ReadableSpan) -> dict[str, object]:
    """Give a span as its ids in hex and its times in nanoseconds since the epoch."""
    context, parent = span.context, span.parent
    assert context is not None, "a finished span has ids"
    return {
        "name": span.name,
        "trace_id": format(context.trace_id, "032x"),
        "span_id": format(context.span_id, "016x"),
        "parent_id": None if parent is None else format(parent.span_id, "016x"),
        "kind": span.kind.name,
        "start_unix_nano": span.start_time,
        "end_unix_nano": span.end_time,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
    }


class Telemetry:
    """Owns the tracer of one process and what it exports to."""

    def __init__(
        self, service_name: str, *, otlp_endpoint: str | None, trace_file: Path | None
    ) -> None:
        """Export to a collector, to a file, to both, or not at all."""
        self._provider = TracerProvider(
            resource=Resource({SERVICE_NAME: service_name}), shutdown_on_exit=False
        )
        self.tracer: Tracer = no_tracer()
        if otlp_endpoint is not None:
            exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        if trace_file is not None:
            self._provider.add_span_processor(SimpleSpanProcessor(SpanFile(trace_file)))
        if otlp_endpoint is not None or trace_file is not None:
            self.tracer = self._provider.get_tracer("detent")

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()
