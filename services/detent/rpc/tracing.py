"""Carry W3C trace context over every hop and open spans around the steps of a call.

This is on the path of every call, so the common forms go straight through the public classes
of opentelemetry; whatever looks unusual goes through its own propagator.
"""

import re
from collections.abc import Iterable, Mapping
from types import TracebackType

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_KEYS = ("traceparent", "tracestate")
# The key under which opentelemetry keeps a span; the library has no public name for it.
(_SPAN_KEY,) = trace.set_span_in_context(INVALID_SPAN, Context())
# Version 00 and nothing around it: what every library of today sends.
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FLAGS = tuple(TraceFlags(number) for number in range(256))
Attributes = Mapping[str, str | int]
_NOWHERE = Context()
_NO_TRACE_ID = "0" * 32


def no_tracer() -> Tracer:
    """Give a tracer that records nothing, for a process without an exporter."""
    return trace.NoOpTracer()


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """Read the caller's trace context from request metadata."""
    carrier = {key: value for key, value in metadata if key in _KEYS and isinstance(value, str)}
    if not carrier:
        return _NOWHERE
    if len(carrier) == 1 and (found := _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))):
        trace_id, span_id, flags = found.groups()
        parent = SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_FLAGS[int(flags, 16)]
        )
        # An id of zeros names nobody.
        return Context({_SPAN_KEY: NonRecordingSpan(parent)}) if parent.is_valid else Context()
    return _PROPAGATOR.extract(carrier, context=Context())


def inject(context: Context) -> tuple[tuple[str, str], ...]:
    """Write a trace context as request metadata."""
    here = _span_of(context).get_span_context()
    if here.is_valid and not here.trace_state:
        text = f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"
        return (("traceparent", text),)
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=context)
    return tuple(carrier.items())


def trace_id_of(context: Context) -> str:
    """Give the trace id as 32 hex, for the log; zeros when nothing is traced."""
    if not context:
        return _NO_TRACE_ID
    return f"{_span_of(context).get_span_context().trace_id:032x}"


class span:  # noqa: N801  It is used as a function, as `contextlib`'s own classes are.
    """Open a span around a step and give the context that its own steps hang under.

    An exception marks the span as failed by its class name and passes.
    """

    __slots__ = ("_context", "_span")

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        context: Context,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
    ) -> None:
        """Start the span; it ends when the block does."""
        self._context = context
        self._span: Span | None = None
        if type(tracer) is not trace.NoOpTracer:
            self._span = tracer.start_span(name, context=context, kind=kind, attributes=attributes)

    def __enter__(self) -> Context:
        """Give the context of the span; the caller's where nothing is recorded."""
        if self._span is None:
            return self._context
        return trace.set_span_in_context(self._span, self._context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the span."""
        if self._span is None:
            return
        if kind is not None:
            self._span.set_status(Status(StatusCode.ERROR, kind.__name__))
        self._span.end()


def annotate(context: Context, attributes: Attributes) -> None:
    """Add facts to the span that a context carries."""
    if not context:
        return
    _span_of(context).set_attributes(attributes)


def _span_of(context: Context) -> Span:
    """Give the span that a context carries; one that records nothing where there is none."""
    found = context.get(_SPAN_KEY)
    return found if isinstance(found, Span) else INVALID_SPAN
