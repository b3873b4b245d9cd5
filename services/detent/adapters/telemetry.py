"""Set up logging and tracing for one process.

Both are on the path of every call, so lines of calls and spans are written a moment later
(`late_lines`). Everything else in the log is written before the code that said it goes on.
"""

import atexit
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from detent.adapters.late_lines import LateLines
from detent.contracts import events
from detent.rpc.call_lines import CallRecord, CallWriter
from detent.rpc.tracing import no_tracer

# What JSON has no form for is written as its text.
_ENCODER = msgspec.json.Encoder(enc_hook=str)
# A record has these first, and then the facts that the caller gave.
_STANDARD_COUNT = len(vars(logging.makeLogRecord({})))
_ADDED_BY_OTHERS = ("message", "asctime")
_KINDS = {kind.value: kind.name.encode() for kind in SpanKind}
_STATUSES = {status.value: status.name.encode() for status in StatusCode}
# Written once per call, while the process serves; what a kill takes with it is in the answers.
PER_CALL = frozenset({events.RPC, events.ML_INFER_OK})

log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """Writes one JSON object per record: event name, level, and the facts as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        return self.line(record).decode()

    def line(self, record: logging.LogRecord) -> bytes:
        """Give the line as UTF-8, without its end."""
        if isinstance(record, CallRecord):
            return call_line(record.name, record.msg, record.created, record.facts)
        line: dict[str, object] = {
            "event": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
            "at_ms": round(record.created * 1000),
        }
        line.update(itertools.islice(vars(record).items(), _STANDARD_COUNT, None))
        for name in _ADDED_BY_OTHERS:
            line.pop(name, None)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


def call_line(name: str, event: str, at_s: float, facts: Mapping[str, object]) -> bytes:
    """Give the line of a call as UTF-8, without its end.

    Args:
        name: The logger that says it.
        event: One of `contracts.events`.
        at_s: When, Unix seconds.
        facts: Further fields.
    """
    head = {"event": event, "level": "INFO", "logger": name, "at_ms": round(at_s * 1000)}
    return _ENCODER.encode({**head, **facts})


class JsonLog(CallWriter):
    """Writes records to one stream: those of single calls a moment later, all others at once."""

    def __init__(self, stream: TextIO) -> None:
        """Write to the stream."""
        super().__init__()
        self._json = JsonLines()
        self.setFormatter(self._json)
        self._write = writer_of(stream)
        self._lines = LateLines(self._write, on_lost=self._say_lost)

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass the record on without the handler's lock: the lines have their own."""
        passes = not self.filters or bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def write_call(self, name: str, event: str, facts: Mapping[str, object]) -> None:
        """Have the line of a call written within `late_lines.DELAY_S`."""
        try:
            line = call_line(name, event, time.time(), facts)
        except (TypeError, ValueError, OverflowError):
            # What fails here fails there too, and is reported as every handler reports it.
            self.emit(CallRecord(name, event, facts))
            return
        self._lines.put(line + b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or have it written within `late_lines.DELAY_S`."""
        try:
            line = self._json.line(record) + b"\n"
            if record.levelno <= logging.INFO and record.msg in PER_CALL:
                self._lines.put(line)
            else:
                self._lines.put_now(line)
        except Exception:  # noqa: BLE001  As every handler of `logging`: a log ends no call.
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        self._lines.flush()

    def close(self) -> None:
        """Write what waits and end; `logging` calls this when the process ends."""
        self._lines.close()
        super().close()

    def _say_lost(self, count: int) -> None:
        facts = {"lines": count, "of": "log"}
        record = log.makeRecord(
            log.name, logging.WARNING, "", 0, events.TELEMETRY_LOST, (), None, extra=facts
        )
        self._write(self._json.line(record) + b"\n")


def writer_of(stream: TextIO) -> Callable[[bytes], None]:
    """Give what writes whole lines to a stream, past its text layer where it has one."""
    target = getattr(stream, "buffer", None)

    def write(lines: bytes) -> None:
        if target is None:
            stream.write(lines.decode())
            stream.flush()
            return
        target.write(lines)
        target.flush()

    return write


def set_up_logging(level: str, stream: TextIO = sys.stderr) -> None:
    """Send every record of this process to one stream as JSON lines."""
    # What no line of ours says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    vars(logging).update(_srcfile=None, logAsyncioTasks=False)
    logging.basicConfig(level=level, handlers=[JsonLog(stream)], force=True)


class SpanFile(SpanProcessor):
    """Appends finished spans to a file, one JSON object a line; for a look without a collector.

    A span is encoded when it ends, so that no finished span is kept, and written with others
    within `late_lines.DELAY_S`. A kill takes the last of them: the record is the ledger.
    """

    def __init__(self, path: Path) -> None:
        """Append to the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._lines = LateLines(self._write, on_lost=self._say_lost)
        # A process that ends by an error never closes its telemetry.
        atexit.register(self.shutdown)

    def on_end(self, span: ReadableSpan) -> None:
        """Have the span written."""
        if self._file.closed:
            return
        self._lines.put(_line_of(span))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what waits."""
        del timeout_millis
        self._lines.flush()
        return True

    def shutdown(self) -> None:
        """Write what waits and close the file; a second time is too late to matter."""
        atexit.unregister(self.shutdown)
        if not self._file.closed:
            self._lines.close()
            self._file.close()

    def _write(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()

    def _say_lost(self, count: int) -> None:
        log.warning(events.TELEMETRY_LOST, extra={"lines": count, "of": "spans"})


def _line_of(span: ReadableSpan) -> bytes:
    """Give a span as its ids in hex and its times in nanoseconds since the epoch."""
    context, parent, attributes = span.context, span.parent, span.attributes
    assert context is not None, "a finished span has ids"
    # Put together and not built as a dictionary first: most of it needs no escaping.
    return b'{"name":%b,"trace_id":"%032x","span_id":"%016x","parent_id":%b,"kind":"%b",' % (
        _ENCODER.encode(span.name),
        context.trace_id,
        context.span_id,
        b"null" if parent is None else b'"%016x"' % parent.span_id,
        _KINDS[span.kind.value],
    ) + b'"start_unix_nano":%d,"end_unix_nano":%d,"status":"%b","attributes":%b}\n' % (
        span.start_time or 0,
        span.end_time or 0,
        _STATUSES[span.status.status_code.value],
        # What the library gives is a view whose every item is looked up by itself.
        _ENCODER.encode(
            attributes.copy()
            if isinstance(attributes, MappingProxyType)
            else dict(attributes or {})
        ),
    )


class FollowCaller(Sampler):
    """Decides as opentelemetry's parent-based samplers do, without a new answer for every span.

    Whose caller samples is recorded; whose caller does not, is not; who has none asks the root.
    """

    _RECORDED = SamplingResult(Decision.RECORD_AND_SAMPLE)
    _DROPPED = SamplingResult(Decision.DROP)

    def __init__(self, root: Sampler = ALWAYS_ON) -> None:
        """Ask `root` about spans that have no caller."""
        self._whole = ParentBased(root)

    def should_sample(  # noqa: PLR0917  The library's own signature.
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Give the decision, and the caller's trace state with it."""
        caller = get_current_span(parent_context).get_span_context()
        if caller.is_valid and not caller.trace_state:
            if not caller.trace_flags.sampled:
                return self._DROPPED
            if not attributes:
                return self._RECORDED
        return self._whole.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Name what it decides as."""
        return f"FollowCaller{{{self._whole!r}}}"


def sampler_of(environment: Mapping[str, str]) -> Sampler | None:
    """Give the sampler that opentelemetry's own variables name; None leaves it to the library."""
    argument = environment.get(OTEL_TRACES_SAMPLER_ARG, "1.0")
    match environment.get(OTEL_TRACES_SAMPLER, "parentbased_always_on").strip().lower():
        case "parentbased_always_on":
            return FollowCaller()
        case "parentbased_traceidratio":
            try:
                return FollowCaller(TraceIdRatioBased(float(argument)))
            except ValueError:
                return None
        case _:
            return None


class Telemetry:
    """Owns the tracer of one process and what it exports to."""

    def __init__(
        self, service_name: str, *, otlp_endpoint: str | None, trace_file: Path | None
    ) -> None:
        """Export to a collector, to a file, to both, or not at all."""
        self._provider = TracerProvider(
            sampler=sampler_of(os.environ),
            resource=Resource({SERVICE_NAME: service_name}),
            shutdown_on_exit=False,
        )
        self.tracer: Tracer = no_tracer()
        if otlp_endpoint is not None:
            exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        if trace_file is not None:
            self._provider.add_span_processor(SpanFile(trace_file))
        if otlp_endpoint is not None or trace_file is not None:
            self.tracer = self._provider.get_tracer("detent")

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()
