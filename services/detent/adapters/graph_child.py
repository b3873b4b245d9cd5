"""Let a hostile model hurt a process that has nothing: audit, load and run it, then report.

Started by `graph_gate` as `python -I -m detent.adapters.graph_child`, with an empty environment
in an empty folder. It imports and warms up what it needs, gives up memory, files and time that
it does not need any more, says that it is ready, and only then takes the first byte of a model.

Source: RELIABILITY table D, row D5.
"""

import importlib
import mmap
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

import msgspec
import numpy as np
from msgspec.structs import replace
from onnx import TensorProto, helper

from detent.adapters.graph_audit import audit_graph
from detent.adapters.graph_explain import read_graph
from detent.adapters.graph_form import form_bytes
from detent.adapters.graph_limits import graph_refused
from detent.adapters.graph_questions import (
    READY,
    GraphQuestion,
    GraphReport,
    Refusal,
    Stage,
    TensorFacts,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

# What a model may take beyond what the imports took; its own bytes are held several times.
MEMORY_BYTES = 2**30
MEMORY_PER_MODEL_BYTE = 8
CPU_S = 5
# The graph is run on this many rows too, so that memory that grows with rows shows here.
BATCH_ROWS = 1_024
PROVIDERS = ["CPUExecutionProvider"]
STATM = "/proc/self/statm"


def main() -> None:
    """Answer one question on standard input with a line, and a form, on standard output."""
    runtime = import_runtime()
    out = sys.stdout.buffer
    if isinstance(runtime, ArtifactInvalid):
        _write(out, _report_of(runtime, Stage.START))
        return
    _warm_up(runtime)
    mapped = _mapped_bytes()
    missing = _limit_memory(mapped, MEMORY_BYTES) + _give_up()
    out.write(READY)
    out.flush()
    question, model, rows = _read_question(sys.stdin.buffer)
    _limit_memory(mapped, MEMORY_BYTES + MEMORY_PER_MODEL_BYTE * len(model))
    report = examine(model, question, rows, open_graph=opener(runtime))
    form = form_of(model, question, report)
    _write(out, replace(report, limits_missing=missing, form_bytes=len(form)))
    out.write(form)
    out.flush()


def import_runtime() -> ModuleType | ArtifactInvalid:
    """Give the runtime, or why there is none."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        return graph_refused(
            "runtime", str(error), "onnxruntime", gate_reason=Reason.ONNX_UNAVAILABLE
        )


def opener(runtime: ModuleType) -> Callable[[bytes], Any]:
    """Give what opens a session on bytes: one thread, and no other format than ONNX."""

    def open_graph(model: bytes) -> Any:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return runtime.InferenceSession(
            model, sess_options=options, providers=PROVIDERS, enable_fallback=0
        )

    return open_graph


def examine(
    model: bytes, question: GraphQuestion, rows: bytes, *, open_graph: Callable[[bytes], Any]
) -> GraphReport:
    """Audit a model, and load and run it if it passes.

    Args:
        model: The bytes that were hashed.
        question: How it is to be run.
        rows: Its golden rows, little-endian float32, one after the other.
        open_graph: Opens a session; never called for what the audit refuses.
    """
    stage, started_s = Stage.AUDIT, time.monotonic()
    try:
        facts = audit_graph(model)
        stage = Stage.LOAD
        session = open_graph(model)
        stage = Stage.RUN
        outputs = _run(session, question, rows)
    except ArtifactInvalid as error:
        return _report_of(error, stage)
    except Exception as error:  # noqa: BLE001  The runtime's classes derive from it directly.
        found = f"{type(error).__name__}: {error}"
        return _report_of(graph_refused("runtime", found, "a graph that runs"), stage)
    return GraphReport(
        stage=Stage.DONE,
        facts=facts,
        outputs=outputs,
        elapsed_ms=round((time.monotonic() - started_s) * 1000),
    )


def form_of(model: bytes, question: GraphQuestion, report: GraphReport) -> bytes:
    """Give the form of a graph that was examined; nothing where it has none that we know."""
    if report.stage is not Stage.DONE or not question.output_name or len(question.row_shape) != 1:
        return b""
    return form_bytes(
        read_graph(
            model,
            input_name=question.input_name,
            output_name=question.output_name,
            width=question.row_shape[0],
        )
    )


def _run(session: Any, question: GraphQuestion, rows: bytes) -> tuple[TensorFacts, ...]:
    values = np.frombuffer(rows, dtype="<f4").reshape(question.row_count, *question.row_shape)
    found = session.run(None, {question.input_name: values})
    times = -(-BATCH_ROWS // question.row_count)
    session.run(None, {question.input_name: np.concatenate([values] * times)[:BATCH_ROWS]})
    names = [output.name for output in session.get_outputs()]
    return tuple(
        TensorFacts(name=name, dtype=str(value.dtype), shape=tuple(value.shape))
        for name, value in zip(names, found, strict=True)
    )


def _warm_up(runtime: ModuleType) -> None:
    """Audit and run a small tree of our own, so that nothing is imported or opened later."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1]) for n in "xy"]
    leaf: dict[str, Any] = {"nodes_treeids": [0], "nodes_nodeids": [0], "nodes_modes": ["LEAF"]}
    leaf |= {"nodes_truenodeids": [0], "nodes_falsenodeids": [0], "nodes_featureids": [0]}
    leaf |= {"nodes_values": [0.0], "n_targets": 1}
    leaf |= {f"target_{name}": [0] for name in ("ids", "nodeids", "treeids")}
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **leaf, target_weights=[1.0]
    )
    graph = helper.make_graph([node], "warm", value[:1], value[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    question = GraphQuestion(
        model_bytes=len(model), input_name="x", row_shape=(1,), row_count=1, row_bytes=4
    )
    open_graph = opener(runtime)
    # Likewise for what is refused: by the audit, and by the runtime.
    refused = [examine(b"no graph", question, bytes(4), open_graph=open_graph)]
    other = replace(question, input_name="z")
    refused.append(examine(model, other, bytes(4), open_graph=open_graph))
    report = examine(model, question, bytes(4), open_graph=open_graph)
    form_of(model, replace(question, output_name="y"), report)
    if report.refusal is not None or any(one.refusal is None for one in refused):
        message = f"the runtime does not run: {report}"
        raise SystemExit(message)


def _mapped_bytes() -> int | None:
    """Give how much memory is mapped now; None where nothing says so."""
    try:
        with open(STATM, encoding="ascii") as file:  # noqa: PTH123  Without another import.
            return int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return None


def _limit_memory(mapped: int | None, more: int) -> tuple[str, ...]:
    """Limit memory beyond what is mapped, so that the size of the libraries does not count."""
    if mapped is None:
        return ("RLIMIT_AS",)
    return _limited({"RLIMIT_AS": mapped + more})


def _give_up() -> tuple[str, ...]:
    """Give up what an examination does not need.

    No further file or socket can be opened, no byte written to a file, and no second of
    processor time used beyond a few.

    Returns:
        Names of the limits that this platform does not have.
    """
    # What is open stays open; nothing is opened any more.
    limits = {"RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 0}
    return _limited({"RLIMIT_CPU": int(time.process_time()) + 1 + CPU_S} | limits)


def _limited(limits: dict[str, int]) -> tuple[str, ...]:
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return tuple(limits)
    missing = []
    for name, limit in limits.items():
        try:
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (limit, hard))
        except (AttributeError, ValueError, OSError):
            missing.append(name)
    return tuple(missing)


def _read_question(source: BinaryIO) -> tuple[GraphQuestion, bytes, bytes]:
    question = msgspec.json.decode(source.readline(), type=GraphQuestion)
    model = source.read(question.model_bytes)
    return question, model, source.read(question.row_count * question.row_bytes)


def _report_of(error: ArtifactInvalid, stage: Stage) -> GraphReport:
    return GraphReport(
        stage=stage,
        refusal=Refusal(
            gate_reason=error.gate_reason.value,
            rule=error.metadata["rule"],
            found=error.metadata["found"],
            expected=error.metadata["expected"],
            message=error.message,
        ),
    )


def _write(out: BinaryIO, report: GraphReport) -> None:
    out.write(msgspec.json.encode(report) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
