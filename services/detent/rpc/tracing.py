"""Carry W3C trace context over every hop and open spans around the steps of a call."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_KEYS = ("traceparent", "tracestate")
Attributes = Mapping[str, str | int]


def no_tracer() -> Tracer:
    """Give a tracer that records nothing, for a process without an exporter."""
    return trace.NoOpTracer()


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """Read the caller's trace context from request metadata."""
    carrier = {key: value for key, value in metadata if key in _KEYS and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier, context=Context())


def inject(context: Context) -> tuple[tuple[str, str], ...]:
    """Write a trace context as request metadata."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=context)
    return tuple(carrier.items())


def trace_id_of(context: Context) -> str:
    """Give the trace id as 32 hex, for the log; zeros when nothing is traced."""
    return format(trace.get_current_span(context).get_span_context().trace_id, "032x")


@contextlib.contextmanager
def span(
    tracer: Tracer,
    name: str,
    context: Context,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[Context]:
    """Open a span around a step and give the context that its own steps hang under.

    An exception marks the span as failed by its class name and passes.
    """
    opened = tracer.start_span(name, context=context, kind=kind, attributes=attributes)
    try:
        yield trace.set_span_in_context(opened, context)
    except BaseException as error:
        opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        opened.end()


def annotate(context: Context, attributes: Attributes) -> None:
    """Add facts to the span that a context carries."""
    trace.get_current_span(context).set_attributes(dict(attributes))
