"""Trace context on the wire: the short way reads and writes what opentelemetry itself does."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from detent.rpc.tracing import annotate, extract, inject, no_tracer, span, trace_id_of

THEIRS = TraceContextTextMapPropagator()
GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    """Mostly right, sometimes all zeros, a digit short, or in capitals."""
    right = st.text("0123456789abcdef", min_size=length, max_size=length)
    near = st.text("0123456789abcdefABCDEFg ", min_size=length - 1, max_size=length + 1)
    return st.one_of(right, right, right, st.just("0" * length), near)


PARENTS = st.one_of(
    st.builds(
        "{}{}-{}-{}-{}{}".format,
        st.sampled_from(["", "", "", " ", "\t", "x"]),
        st.sampled_from(["00", "00", "00", "01", "cc", "ff", "0"]),
        hexadecimal(32),
        hexadecimal(16),
        hexadecimal(2),
        st.sampled_from(["", "", "", " ", "\n", "-", "-01", "-what-else", "0"]),
    ),
    st.text(max_size=80),
)
STATES = st.one_of(
    st.none(), st.just("a=1,b=2"), st.text(string.printable, max_size=40), st.just("x" * 600)
)


@given(parent=PARENTS, state=STATES)
@example(parent=GOOD, state=None)
@example(parent=GOOD + "\n", state=None)
@example(parent=GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), state=None)
@example(parent=GOOD.replace("00f067aa0ba902b7", "0" * 16), state=None)
@example(parent=GOOD.upper(), state=None)
@example(parent=GOOD + "-", state=None)
@example(parent=GOOD.replace("01", "ff"), state="vendor=1")
@example(parent="\N{ARABIC-INDIC DIGIT ZERO}" + GOOD[1:], state=None)
def test_a_context_is_read_as_the_library_reads_it(parent: str, state: str | None) -> None:
    """Any text in the header: ours and theirs agree on the ids, the flags, the state, or none."""
    carrier = {"traceparent": parent} | ({} if state is None else {"tracestate": state})
    metadata = (("user-agent", "test"), *carrier.items(), ("blob-bin", b"\x00"))
    ours = trace.get_current_span(extract(metadata)).get_span_context()
    theirs = trace.get_current_span(THEIRS.extract(carrier, Context())).get_span_context()

    assert tuple(ours) == tuple(theirs)
    assert ours.trace_state.to_header() == theirs.trace_state.to_header()


@given(
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    flags=st.integers(0, 255),
    state=st.sampled_from([None, TraceState([("vendor", "1")])]),
)
@example(trace_id=0, span_id=0, flags=0, state=None)
@example(trace_id=7, span_id=0, flags=1, state=None)
def test_a_context_is_written_as_the_library_writes_it(
    trace_id: int, span_id: int, flags: int, state: TraceState | None
) -> None:
    here = SpanContext(trace_id, span_id, False, TraceFlags(flags), state)
    context = trace.set_span_in_context(NonRecordingSpan(here), Context())
    carrier: dict[str, str] = {}
    THEIRS.inject(carrier, context)

    assert inject(context) == tuple(carrier.items())


def test_without_a_context_there_is_none() -> None:
    assert extract(()) == Context()
    assert extract([("traceparent", b"\xff")]) == Context()
    assert inject(Context()) == ()
    assert trace_id_of(Context()) == "0" * 32
    annotate(Context(), {"plan_id": "p"})


def test_a_span_hangs_under_its_caller_and_its_steps_under_it() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("test")
    caller = extract([("traceparent", GOOD)])
    with (
        span(tracer, "outer", caller, kind=SpanKind.SERVER, attributes={"ts_ms": 1}) as outer,
        span(tracer, "inner", outer) as inner,
    ):
        annotate(outer, {"plan_id": "p"})
        sent = inject(inner)
    last, first = kept.get_finished_spans()

    assert trace_id_of(inner) == trace_id_of(caller) == GOOD[3:35]
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == GOOD[36:52]
    assert last.parent == first.context
    assert dict(first.attributes or {}) == {"ts_ms": 1, "plan_id": "p"}
    assert sent[0][1][36:52] == f"{last.context.span_id:016x}"


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_error_marks_its_span_and_passes(error: type[BaseException]) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with pytest.raises(error), span(provider.get_tracer("test"), "step", Context()):
        raise error("with a text that may hold anything")
    (found,) = kept.get_finished_spans()

    assert (found.status.status_code.name, found.status.description) == ("ERROR", error.__name__)


def test_a_process_without_an_exporter_passes_its_callers_context_on() -> None:
    caller = extract([("traceparent", GOOD)])
    with span(no_tracer(), "step", caller) as inner:
        sent = inject(inner)

    assert sent == (("traceparent", GOOD),)
