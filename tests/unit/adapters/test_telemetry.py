"""Log lines and spans: their fields, when they are written, and what comes of them at the end."""

import io
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace import set_span_in_context as with_span

from detent.adapters import telemetry
from detent.adapters.telemetry import FollowCaller, JsonLines, JsonLog, Telemetry
from detent.contracts import events
from detent.rpc.tracing import annotate, span

log = logging.getLogger("detent.rpc.serve")


@pytest.fixture(name="stream")
def _stream() -> Iterator[io.StringIO]:
    """Sends our own log to a text, without what `set_up_logging` does to the whole process."""
    stream = io.StringIO()
    handler = JsonLog(stream)
    # Lines wait until a test asks for them.
    handler._lines._delay_s = 60.0
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    yield stream
    log.setLevel(level)
    log.removeHandler(handler)
    handler.close()


def said(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_event_and_every_fact_as_a_field(stream: io.StringIO) -> None:
    facts = {"method": "X/Y", "elapsed_ms": 0.5, "path": Path("a/b"), "symbols": ["EURUSD"]}
    log.info(events.SERVER_READY, extra=facts)
    (line,) = said(stream)

    assert line.pop("at_ms") > 1_600_000_000_000
    assert line == {
        "event": "SERVER_READY",
        "level": "INFO",
        "logger": "detent.rpc.serve",
        "method": "X/Y",
        "elapsed_ms": 0.5,
        "path": "a/b",
        "symbols": ["EURUSD"],
    }


def test_an_exception_is_in_its_line(stream: io.StringIO) -> None:
    try:
        {}["nothing"]
    except KeyError:
        log.exception(events.CALL_FAILED)
    (line,) = said(stream)

    assert line["level"] == "ERROR"
    assert line["exception"].endswith("KeyError: 'nothing'")
    assert "Traceback" in line["exception"]


def test_a_line_that_another_handler_formatted_first_is_the_same() -> None:
    record = log.makeRecord(
        log.name, logging.INFO, "", 0, "%s", ("RPC",), None, extra={"code": "OK"}
    )
    before = JsonLines().format(record)
    logging.Formatter("%(asctime)s %(message)s").format(record)

    assert JsonLines().format(record) == before
    assert json.loads(before)["event"] == "RPC"


@pytest.mark.parametrize("event", sorted(telemetry.PER_CALL))
def test_the_line_of_a_call_waits_and_any_other_takes_it_along(
    stream: io.StringIO, event: str
) -> None:
    log.info(event, extra={"trace_id": "a" * 32})

    assert said(stream) == []
    log.info(events.PLAN_OPENED)
    assert [line["event"] for line in said(stream)] == [event, "PLAN_OPENED"]
    assert said(stream)[0]["trace_id"] == "a" * 32


def test_a_failed_call_does_not_wait(stream: io.StringIO) -> None:
    log.error(events.ML_INFER_ERROR)
    log.error(events.RPC)

    assert [line["event"] for line in said(stream)] == ["ML_INFER_ERROR", "RPC"]


def test_lines_that_found_no_room_are_counted_in_the_log(stream: io.StringIO) -> None:
    lines = log.handlers[-1]._lines  # type: ignore[attr-defined]
    lines._lines_max = 2
    for _ in range(5):
        log.info(events.RPC)
    log.handlers[-1].flush()

    assert [line["event"] for line in said(stream)] == ["RPC", "RPC", "TELEMETRY_LOST"]
    assert (said(stream)[-1]["lines"], said(stream)[-1]["of"]) == (3, "log")
    assert said(stream)[-1]["level"] == "WARNING"


def test_a_fact_without_a_form_in_json_ends_no_call(stream: io.StringIO) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    logging.raiseExceptions, raises = False, logging.raiseExceptions
    log.info(events.SERVER_READY, extra={"fact": Unspeakable()})
    logging.raiseExceptions = raises

    assert said(stream) == []


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run some code in a process of its own, with the log on standard error."""
    text = textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, check=False, timeout=60
    )


PROCESS = """
import logging, os, signal, sys, time
from pathlib import Path
from opentelemetry.context import Context
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.rpc.tracing import span
set_up_logging("INFO")
telemetry = Telemetry("test", otlp_endpoint=None, trace_file=Path(sys.argv[1]))
with span(telemetry.tracer, "step", Context()):
    logging.getLogger("detent").info("RPC", extra={"code": "OK"})
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("telemetry.close()", 0, id="closed"),
        pytest.param("", 0, id="not-closed"),
        pytest.param("raise SystemExit(3)", 3, id="exit"),
        pytest.param("raise KeyError", 1, id="error"),
    ],
)
def test_nothing_is_lost_when_a_process_ends(tmp_path: Path, end: str, code: int) -> None:
    path = tmp_path / "x.spans.jsonl"
    ended = run(PROCESS + end, str(path))

    assert ended.returncode == code, ended.stderr
    assert b'{"event":"RPC"' in ended.stderr
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["step"]


def test_a_process_that_is_killed_after_the_delay_has_written_everything(tmp_path: Path) -> None:
    path = tmp_path / "x.spans.jsonl"
    end = "time.sleep(2.0); os.kill(os.getpid(), signal.SIGKILL)"
    ended = run(PROCESS + end, str(path))

    assert ended.returncode == -9
    assert json.loads(ended.stderr)["event"] == "RPC"
    assert len(path.read_text().splitlines()) == 1


def test_a_span_has_its_fields_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.spans.jsonl"
    watched = Telemetry("test", otlp_endpoint=None, trace_file=path)
    odd = 'a "quoted"\nname \\ \u20ac'
    with span(watched.tracer, odd, Context(), kind=SpanKind.SERVER) as outer:
        annotate(outer, {"plan_id": 'p"1', "ts_ms": 5})
        with pytest.raises(KeyError), span(watched.tracer, "inner", outer):
            raise KeyError
    watched.close()
    watched.close()
    with span(watched.tracer, "too late", Context()):
        pass
    inner, whole = [json.loads(line) for line in path.read_text().splitlines()]

    assert list(whole) == [
        "name",
        "trace_id",
        "span_id",
        "parent_id",
        "kind",
        "start_unix_nano",
        "end_unix_nano",
        "status",
        "attributes",
    ]
    assert (whole["name"], whole["kind"], whole["status"]) == (odd, "SERVER", "UNSET")
    assert whole["attributes"] == {"plan_id": 'p"1', "ts_ms": 5}
    assert (inner["kind"], inner["status"], inner["attributes"]) == ("INTERNAL", "ERROR", {})
    assert inner["parent_id"] == whole["span_id"]
    assert whole["parent_id"] is None
    assert inner["trace_id"] == whole["trace_id"]
    assert (len(whole["trace_id"]), len(whole["span_id"])) == (32, 16)
    assert whole["start_unix_nano"] <= inner["start_unix_nano"] <= inner["end_unix_nano"]
    assert inner["end_unix_nano"] <= whole["end_unix_nano"]


def test_spans_that_could_not_be_written_are_counted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.spans.jsonl"
    file = telemetry.SpanFile(path)
    file._lines._lines_max = 0
    watched = telemetry.TracerProvider(shutdown_on_exit=False)
    watched.add_span_processor(file)
    for _ in range(3):
        with span(watched.get_tracer("test"), "step", Context()):
            pass
    assert watched.force_flush()
    watched.shutdown()
    (record,) = [r for r in caplog.records if r.msg == events.TELEMETRY_LOST]

    assert (vars(record)["lines"], vars(record)["of"]) == (3, "spans")
    assert path.read_text() == ""


@pytest.mark.parametrize("root", [ALWAYS_ON, ALWAYS_OFF], ids=["on", "off"])
@pytest.mark.parametrize("attributes", [None, {"plan_id": "p"}])
@pytest.mark.parametrize("state", [None, TraceState([("vendor", "1")])])
@pytest.mark.parametrize("flags", [0, 1, 3])
@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("trace_id", [0, 7])
def test_the_sampler_decides_as_the_librarys_own(  # noqa: PLR0917  A matrix.
    trace_id: int,
    remote: bool,
    flags: int,
    state: TraceState | None,
    attributes: dict[str, str] | None,
    root: Sampler,
) -> None:
    parent = SpanContext(trace_id, 5, is_remote=remote, trace_flags=TraceFlags(flags))
    if state is not None:
        parent = SpanContext(trace_id, 5, remote, TraceFlags(flags), state)
    asked = (with_span(NonRecordingSpan(parent), Context()), 9, "x", SpanKind.SERVER, attributes)
    ours, theirs = FollowCaller(root).should_sample(*asked), ParentBased(root).should_sample(*asked)

    assert ours.decision is theirs.decision
    assert dict(ours.attributes) == dict(theirs.attributes)
    assert (ours.trace_state or None) == (theirs.trace_state or None)


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        pytest.param({}, 1.0, id="nothing-said"),
        pytest.param({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, 1.0, id="everything"),
        pytest.param(
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            0.25,
            id="a-share",
        ),
    ],
)
def test_a_share_of_traces_is_taken_whole(environment: dict[str, str], share: float) -> None:
    sampler = telemetry.sampler_of(environment)
    assert sampler is not None
    step = 2**64 // 1_000
    taken = sum(
        sampler.should_sample(Context(), number * step, "x").decision.is_sampled()
        for number in range(1, 1_001)
    )

    assert taken == pytest.approx(share * 1_000, abs=1)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "much"},
    ],
)
def test_any_other_sampler_is_the_librarys(environment: dict[str, str]) -> None:
    assert telemetry.sampler_of(environment) is None
