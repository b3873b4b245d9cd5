"""Have a model examined in a process of its own before this one lets a runtime see it.

The examiner starts anew for each model: no fork, which would carry threads and memory along;
an empty environment, so that it holds no secret; an empty folder to work in. It is killed when
its time is up, whatever it does, and of what it says one short line is read.

Source: RELIABILITY table D, row D5.
"""

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

import msgspec

from detent.adapters.graph_form import FORM_BYTES_MAX
from detent.adapters.graph_limits import (
    MODEL_BYTES_MAX,
    GraphFacts,
    check_limit,
    graph_refused,
)
from detent.adapters.graph_questions import (
    READY,
    REPORT_BYTES_MAX,
    GraphQuestion,
    GraphReport,
    Refusal,
    Stage,
)
from detent.contracts import events
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

COMMAND = (sys.executable, "-I", "-m", "detent.adapters.graph_child")
# Until it is ready it has seen nothing hostile: slow disks and busy machines may take their time.
READY_S_MAX = 30.0
EXAMINE_S_MAX = 5.0
CHUNK_BYTES = 2**20

log = logging.getLogger(__name__)


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what an examiner says of a model that may be loaded.

    Attributes:
        facts: What the graph is.
        form: What it computes, for `read_form`; empty where that has no form that we know.
    """

    facts: GraphFacts
    form: bytes


def check_graph(
    model: bytes, *, input_name: str, row_shape: tuple[int, ...], rows: Sequence[bytes]
) -> GraphFacts:
    """Examine a model as `examined` does, and give what the graph is."""
    return examined(model, input_name=input_name, row_shape=row_shape, rows=rows).facts


def examined(
    model: bytes,
    *,
    input_name: str,
    row_shape: tuple[int, ...],
    rows: Sequence[bytes],
    output_name: str = "",
) -> Examined:
    """Examine a model in another process: audit, load, and run its golden rows.

    Args:
        model: The bytes that were hashed, and that the session will get.
        input_name: Name of the graph's input.
        row_shape: Shape of one row, without the first dimension.
        rows: The golden rows, little-endian float32.
        output_name: Name of the output whose form is wanted; empty for none.

    Raises:
        ArtifactInvalid: The model is refused, broke its limits, or brought the examiner
            down; or no examiner could be started.
    """
    check_limit("bytes", len(model), MODEL_BYTES_MAX, "bytes")
    question = GraphQuestion(
        model_bytes=len(model),
        input_name=input_name,
        row_shape=row_shape,
        row_count=len(rows),
        row_bytes=len(rows[0]),
        output_name=output_name,
    )
    report, form = _examined([msgspec.json.encode(question) + b"\n", model, b"".join(rows)])
    facts = report.facts
    if report.refusal is not None or facts is None or report.stage is not Stage.DONE:
        raise _refused(report)
    log.log(
        logging.WARNING if report.limits_missing else logging.INFO,
        events.GRAPH_EXAMINED,
        extra={
            "nodes": facts.nodes,
            "ops": facts.ops,
            "elapsed_ms": report.elapsed_ms,
            "limits_missing": report.limits_missing,
        },
    )
    return Examined(facts=facts, form=form)


def _examined(parts: Sequence[bytes]) -> tuple[GraphReport, bytes]:
    with tempfile.TemporaryDirectory(prefix="detent-graph-") as folder:
        try:
            process = subprocess.Popen(  # noqa: S603  Our own module.
                COMMAND,
                env={},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            raise _unavailable(str(error)) from error
        with process:
            try:
                return _ask(process, parts)
            finally:
                process.kill()


def _ask(process: subprocess.Popen[bytes], parts: Sequence[bytes]) -> tuple[GraphReport, bytes]:
    source, sink = process.stdout, process.stdin
    assert source is not None
    assert sink is not None
    said, rest = _read_line(source, READY_S_MAX, size_max=REPORT_BYTES_MAX)
    if said != READY or rest:
        # It may still say why: a runtime that is not there is no fault of the model.
        report = None if said is None else _parse(said)
        if report is not None and report.stage is Stage.START:
            return report, b""
        raise _unavailable(f"an examiner that does not start ({_end_of(process)})")
    sender = threading.Thread(target=_send, args=(sink, parts), daemon=True)
    sender.start()
    said, rest = _read_line(source, EXAMINE_S_MAX, size_max=REPORT_BYTES_MAX)
    report = None if said is None else _parse(said)
    form = None if report is None else _read_form(source, rest, size=report.form_bytes)
    if report is None or form is None:
        how = _end_of(process)
        # The reader is gone with the process, and the sender ends with it.
        process.kill()
        sender.join()
        raise graph_refused("examined", f"an examiner that gave no answer: {how}", "an answer")
    process.kill()
    sender.join()
    return report, form


def _send(sink: IO[bytes], parts: Sequence[bytes]) -> None:
    # A reader that died is found out by its missing answer.
    with contextlib.suppress(OSError):
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[sink.write(rest) :]


def _read_line(source: IO[bytes], limit_s: float, *, size_max: int) -> tuple[bytes | None, bytes]:
    """Read up to the end of a line, and give what came behind it.

    The line is None if it does not come, in time or at all.
    """
    ends_s = time.monotonic() + limit_s
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while b"\n" not in line:
            left_s = ends_s - time.monotonic()
            if len(line) >= size_max or left_s <= 0 or not selector.select(left_s):
                return None, b""
            chunk = os.read(source.fileno(), size_max - len(line))
            if not chunk:
                return None, b""
            line += chunk
    said, end, rest = line.partition(b"\n")
    return said + end, rest


def _read_form(source: IO[bytes], begun: bytes, *, size: int) -> bytes | None:
    """Read as many bytes as were announced; None if more came, or fewer in time."""
    if not len(begun) <= size <= FORM_BYTES_MAX:
        return None
    ends_s = time.monotonic() + EXAMINE_S_MAX
    form = bytearray(begun)
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while len(form) < size:
            left_s = ends_s - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                return None
            chunk = os.read(source.fileno(), min(size - len(form), CHUNK_BYTES))
            if not chunk:
                return None
            form += chunk
    return bytes(form)


def _parse(line: bytes) -> GraphReport | None:
    try:
        return msgspec.json.decode(line, type=GraphReport)
    except (msgspec.DecodeError, RecursionError):
        return None


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended by itself; only what does not answer in time still runs."""
    try:
        code = process.wait(0.2)
    except subprocess.TimeoutExpired:
        return f"killed after {EXAMINE_S_MAX:g} s"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _refused(report: GraphReport) -> ArtifactInvalid:
    refusal = report.refusal or Refusal(
        gate_reason=Reason.MODEL_NOT_LOADED.value,
        rule="examined",
        found="an answer that says nothing",
        expected="an answer",
        message="",
    )
    known = refusal.gate_reason in list(Reason)
    return graph_refused(
        refusal.rule,
        refusal.found,
        refusal.expected,
        gate_reason=Reason(refusal.gate_reason) if known else Reason.MODEL_NOT_LOADED,
    )


def _unavailable(found: str) -> ArtifactInvalid:
    return graph_refused(
        "examiner", found, "a process that examines", gate_reason=Reason.ONNX_UNAVAILABLE
    )
