"""The process that examines a model: what hurts it hurts nobody else (D5)."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.unit.adapters.hostile_graphs import (
    BOMBS,
    INPUT,
    ROWS,
    SOUND,
    WIDTH,
    mutant,
    perceptron,
)

from detent.adapters import graph_gate
from detent.adapters.graph_audit import audit_graph
from detent.adapters.graph_gate import check_graph
from detent.adapters.graph_limits import GraphFacts
from detent.contracts import events
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

STATM = Path("/proc/self/statm")
# What the bytes of the largest bomb and the allocator's slack may leave behind.
GROWTH_BYTES_MAX = 16 * 2**20
# Over its five seconds: what a busy machine needs to start it, and to notice its end.
MARGIN_S = graph_gate.READY_S_MAX


def checked(model: bytes) -> GraphFacts | ArtifactInvalid:
    """Examine a model; give what is known of it, or why it is refused."""
    try:
        return check_graph(model, input_name=INPUT, row_shape=(WIDTH,), rows=ROWS)
    except ArtifactInvalid as error:
        return error


def resident_bytes() -> int:
    """Give how much memory this process holds."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("name", SOUND)
def test_gate_lets_a_sound_model_pass_and_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger=graph_gate.__name__):
        facts = checked(SOUND[name]().SerializeToString())

    assert isinstance(facts, GraphFacts)
    record = next(one for one in caplog.records if one.message == events.GRAPH_EXAMINED)
    assert record.__dict__["nodes"] == facts.nodes
    if sys.platform == "linux":
        assert record.__dict__["limits_missing"] == ()


@pytest.mark.skipif(not STATM.exists(), reason="reads memory from /proc")
def test_bombs_hurt_nobody_but_the_examiner() -> None:
    """Each is refused in time, for its own reason, and this process holds no more than before."""
    checked(perceptron().SerializeToString())
    for name, (make, rule) in BOMBS.items():
        model = make()
        before = resident_bytes()
        began_s = time.monotonic()
        error = checked(model)
        took_s = time.monotonic() - began_s

        assert isinstance(error, ArtifactInvalid), name
        assert error.metadata["rule"] == rule, (name, error.message)
        assert took_s < graph_gate.EXAMINE_S_MAX + MARGIN_S, name
        assert resident_bytes() - before <= GROWTH_BYTES_MAX, name
        del model


def test_bomb_does_go_off_where_nothing_limits_it() -> None:
    """Control, at a thousandth of the size: the bytes are asked for when the graph runs."""
    model = BOMBS["constant of 2 GiB"][0]().replace(
        np.array([2**15, 2**14], dtype="<i8").tobytes(), np.array([2**10, 2**9], "<i8").tobytes()
    )

    assert isinstance(checked(model), GraphFacts)


def _stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let other code stand where the examiner stands."""
    command = (sys.executable, "-I", "-c", textwrap.dedent(code))
    monkeypatch.setattr(graph_gate, "COMMAND", command)


READY = "import os, sys, time; os.write(1, b'ready\\n'); os.read(0, 1);"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param(READY + "os.abort()", "SIGABRT", id="aborts"),
        pytest.param(READY + "os.kill(os.getpid(), 11)", "SIGSEGV", id="faults"),
        pytest.param(READY + "sys.exit(3)", "code 3", id="leaves"),
        pytest.param(READY + "time.sleep(60)", "killed after", id="hangs"),
        pytest.param(READY + "os.write(1, b'{}\\n')", "code 0", id="says nothing"),
        pytest.param(READY + "os.write(1, b'[' * 60000 + b'\\n')", "code 0", id="nests"),
        pytest.param(READY + "\nwhile True: os.write(1, b'x' * 4096)", "", id="floods"),
        pytest.param(READY + """os.write(1, b'{"stage":"done"}\\n')""", "", id="has no facts"),
        pytest.param(
            READY
            + """os.write(1, b'{"stage":"run","facts":{"nodes":1,"elements":1,'
            + b'"ops":[],"outputs":[]}}\\n')""",
            "",
            id="has not run",
        ),
    ],
)
def test_examiner_that_fails_or_lies_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    """However it ends, nobody waits for it and nothing that it says is believed beyond a yes."""
    monkeypatch.setattr(graph_gate, "EXAMINE_S_MAX", 1.0)
    _stand_in(monkeypatch, code)
    before = resident_bytes() if STATM.exists() else 0

    error = checked(perceptron().SerializeToString())

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.MODEL_NOT_LOADED
    assert found in error.message
    assert not STATM.exists() or resident_bytes() - before <= GROWTH_BYTES_MAX


@pytest.mark.parametrize("code", ["import sys; sys.exit(1)", "import time; time.sleep(60)"])
def test_examiner_that_does_not_start_is_no_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(graph_gate, "READY_S_MAX", 0.5)
    _stand_in(monkeypatch, code)

    error = checked(perceptron().SerializeToString())

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.ONNX_UNAVAILABLE


def test_examiner_that_cannot_be_started_is_no_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(graph_gate, "COMMAND", (str(tmp_path / "nothing"),))

    error = checked(perceptron().SerializeToString())

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.ONNX_UNAVAILABLE


def test_examiner_without_the_runtime_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import sys
        sys.modules["onnxruntime"] = None
        from detent.adapters import graph_child
        graph_child.main()
    """
    _stand_in(monkeypatch, code)

    error = checked(perceptron().SerializeToString())

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.ONNX_UNAVAILABLE
    assert "onnxruntime" in error.message


def test_platform_without_limits_is_told_and_not_hidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
        import sys
        sys.modules["resource"] = None
        from detent.adapters import graph_child
        graph_child.STATM = "nowhere"
        graph_child.main()
    """
    _stand_in(monkeypatch, code)

    assert isinstance(checked(perceptron().SerializeToString()), GraphFacts)
    record = next(one for one in caplog.records if one.message == events.GRAPH_EXAMINED)
    assert record.levelname == "WARNING"
    assert "RLIMIT_AS" in record.__dict__["limits_missing"]
    assert "RLIMIT_CPU" in record.__dict__["limits_missing"]


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_examiner_has_nothing_that_a_model_could_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked from inside, where the model would be: what can be opened, written, read, started."""
    monkeypatch.setenv("DETENT_SECRET", "known")
    code = """
        import os, socket, sys
        from detent.adapters import graph_child
        def spy(*_, **__):
            found = []
            for what, attempt in {
                "open": lambda: open("/etc/hostname"),
                "list": lambda: os.listdir("."),
                "socket": lambda: socket.socket(),
                "memory": lambda: bytearray(3 * 2**30),
            }.items():
                try:
                    attempt()
                except (OSError, MemoryError):
                    continue
                found.append(what)
            found += [name for name in os.environ if name != "LC_CTYPE"]
            raise ValueError("found " + ",".join(found) + ".")
        graph_child.audit_graph, kept = spy, graph_child.audit_graph
        graph_child._warm_up = lambda runtime: None
        graph_child.main()
    """
    _stand_in(monkeypatch, code)

    error = checked(perceptron().SerializeToString())

    assert isinstance(error, ArtifactInvalid)
    assert "found ." in error.message


def survive(seeds: range, *, examined_max: int) -> tuple[int, int]:
    """Give mutants to the audit, the examiner and, if both agree, to this very process.

    Args:
        seeds: One per mutant.
        examined_max: How many of those that the audit lets pass are examined and run.

    Returns:
        How many the audit let pass, and how many of those examined were accepted.
    """
    passed: list[bytes] = []
    for seed in seeds:
        model = mutant(seed)
        try:
            audit_graph(model)
        except ArtifactInvalid:
            continue
        passed.append(model)
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = list(pool.map(checked, passed[:examined_max]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    values = np.frombuffer(b"".join(ROWS), "<f4").reshape(-1, WIDTH)
    odd = np.array([[np.nan, np.inf, -np.inf, 1e38]], dtype=np.float32)
    accepted = 0
    for model, answer in zip(passed, answers, strict=False):
        if isinstance(answer, GraphFacts):
            accepted += 1
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            session.run(None, {session.get_inputs()[0].name: values})
            session.run(None, {session.get_inputs()[0].name: odd})
    return len(passed), accepted


def test_mutants_never_bring_the_serving_process_down() -> None:
    """Whatever passes both gates is loaded and run here: a crash would end this very test."""
    passed, accepted = survive(range(300), examined_max=16)

    assert 4 <= accepted <= passed < 300


@pytest.mark.long
def test_ten_thousand_mutants_never_bring_the_serving_process_down() -> None:
    passed, accepted = survive(range(10_000), examined_max=10_000)

    assert 500 <= accepted <= passed < 10_000
