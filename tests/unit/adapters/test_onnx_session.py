"""The session: the graph that was pinned, on the provider that was asked for, or nothing."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper
from tests.unit.artifacts import artifact, model_inputs

from detent.adapters.onnx_session import (
    GraphContract,
    OnnxSession,
    open_session,
)
from detent.adapters.serving import Serving, open_serving
from detent.contracts.canonical import canonical_hash
from detent.contracts.errors import ArtifactInvalid, InternalError
from detent.contracts.json_codec import to_json
from detent.contracts.manifest import GoldenRow, GoldenSet
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal

GRAPH = GraphContract.of(artifact().manifest)


@pytest.fixture(name="serving", scope="module")
def _serving() -> Serving:
    return open_serving(artifact())


@pytest.fixture(name="rows", scope="module")
def _rows() -> list[bytes]:
    return [row.values for row in model_inputs()]


def digest(answers: list[DirectionSignal | Reason]) -> str:
    """Hash a list of answers."""
    listed = [to_json(answer) for answer in answers if isinstance(answer, DirectionSignal)]
    assert len(listed) == len(answers)
    return canonical_hash("answers", {"answers": [dict(item) for item in listed]})


def test_session_runs_on_one_thread_and_the_provider_asked_for(serving: Serving) -> None:
    options = serving.session.session.get_session_options()

    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1
    assert serving.session.execution_provider == "CPUExecutionProvider"
    assert serving.session.session.get_providers()[0] == "CPUExecutionProvider"


@pytest.mark.proves("R42", "R44")
def test_session_answers_a_row_the_same_in_any_company(serving: Serving, rows: list[bytes]) -> None:
    """Every size from alone to all, shuffled, and from many threads at once: one digest.

    The floats behind the integers are compared too: a last bit that moves shows in an
    integer only once in some thousand rows, and then in production.
    """
    expected = digest(serving.answers(rows))
    bits = serving.session.probabilities(rows).tobytes()

    for size in [*range(1, 35), 100, 1000]:
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        assert b"".join(serving.session.probabilities(part).tobytes() for part in parts) == bits
        answers = [answer for part in parts for answer in serving.answers(part)]
        assert digest(answers) == expected, size
    order = np.random.default_rng(3).permutation(len(rows))
    shuffled = serving.answers([rows[index] for index in order])
    back = [shuffled[place] for place in np.argsort(order)]
    assert digest(back) == expected
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(lambda _: digest(serving.answers(rows)), range(32)))
    assert set(found) == {expected}


@pytest.mark.proves("R49", "R152")
def test_session_loaded_twice_answers_the_same(rows: list[bytes]) -> None:
    first, second = open_serving(artifact()), open_serving(artifact())

    assert first.session.session is not second.session.session
    assert first.answers(rows) == second.answers(rows) == first.answers(rows)


@pytest.mark.proves("R81")
def test_session_without_the_runtime_is_refused_with_its_own_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(ArtifactInvalid, match="onnxruntime") as caught:
        open_serving(artifact())

    assert caught.value.gate_reason is Reason.ONNX_UNAVAILABLE


@pytest.mark.parametrize("provider", ["cuda", "tpu", ""])
def test_session_never_steps_down_to_another_provider(provider: str) -> None:
    """Another provider gives other bits: better no model than another one."""
    with pytest.raises(ArtifactInvalid) as caught:
        open_serving(artifact(), execution_provider=provider)

    assert caught.value.gate_reason is Reason.ONNX_UNAVAILABLE


def test_session_on_another_provider_than_it_claims_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = ModuleType("onnxruntime")
    real = sys.modules["onnxruntime"]
    for name in ("SessionOptions", "ExecutionMode", "InferenceSession"):
        setattr(runtime, name, getattr(real, name))
    available = ["CUDAExecutionProvider"]
    vars(runtime)["get_available_providers"] = lambda: available
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)

    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ArtifactInvalid) as caught,
    ):
        open_serving(artifact(), execution_provider="cuda")

    assert caught.value.gate_reason is Reason.ONNX_UNAVAILABLE
    assert caught.value.metadata["found"] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(structs.replace(GRAPH, input_name="x"), id="input name"),
        pytest.param(structs.replace(GRAPH, width=GRAPH.width + 1), id="width"),
        pytest.param(structs.replace(GRAPH, output_name="p"), id="output name"),
        pytest.param(structs.replace(GRAPH, classes=3), id="classes"),
    ],
)
def test_session_of_a_graph_with_other_inputs_or_outputs_is_refused(graph: GraphContract) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        open_session(artifact().model, graph, execution_provider="cpu")

    assert caught.value.gate_reason is Reason.MODEL_NOT_LOADED


def graph_of(
    *,
    rows: int | str = "n",
    dtype: int = TensorProto.FLOAT,
    second_input: bool = False,
    rank: int = 2,
) -> bytes:
    """Give a graph that hands its input on, in some shape."""
    shape = [rows, 2, 1][:rank]
    inputs = [helper.make_tensor_value_info("input", dtype, shape)]
    if second_input:
        inputs.append(helper.make_tensor_value_info("more", dtype, shape))
    output = helper.make_tensor_value_info("probabilities", dtype, shape)
    node = helper.make_node("Identity", ["input"], ["probabilities"])
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "loads"),
    [
        pytest.param(graph_of(), True, id="fitting"),
        pytest.param(graph_of(rows=1), False, id="fixed rows"),
        pytest.param(graph_of(dtype=TensorProto.DOUBLE), False, id="float64"),
        pytest.param(graph_of(dtype=TensorProto.FLOAT16), False, id="float16"),
        pytest.param(graph_of(second_input=True), False, id="second input"),
        pytest.param(graph_of(rank=3), False, id="rank"),
        pytest.param(b"no graph", False, id="garbage"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_session_takes_only_a_graph_of_the_agreed_shape(model: bytes, loads: bool) -> None:
    graph = GraphContract(input_name="input", width=2, output_name="probabilities", classes=2)

    if loads:
        assert open_session(model, graph, execution_provider="cpu").graph == graph
    else:
        with pytest.raises(ArtifactInvalid) as caught:
            open_session(model, graph, execution_provider="cpu")
        assert caught.value.gate_reason is Reason.MODEL_NOT_LOADED


@pytest.mark.parametrize("index", [0, -1])
def test_serving_that_misses_a_golden_row_by_one_unit_is_refused(index: int) -> None:
    golden = list(artifact().golden.rows)
    row = golden[index]
    moved = DirectionSignal(
        p_hat_raw_bps=row.direction.p_hat_raw_bps, p_hat_bps=row.direction.p_hat_bps + 1
    )
    golden[index] = GoldenRow(values=row.values, direction=moved)
    other = structs.replace(artifact(), golden=GoldenSet(rows=tuple(golden)))

    with pytest.raises(ArtifactInvalid, match="golden row") as caught:
        open_serving(other)

    assert caught.value.gate_reason is Reason.CERTIFICATE_FAILED


class FailingSession:
    """Stands for a runtime that fails, or answers in another shape than it declared."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome

    def run(self, *_: object) -> list[object]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return [self._outcome]


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(RuntimeError("device lost"), id="raises"),
        pytest.param(np.zeros((16, 3), dtype=np.float32), id="shape"),
        pytest.param(np.zeros((16, 2), dtype=np.float64), id="dtype"),
    ],
)
def test_session_that_fails_says_so_in_our_words(outcome: object) -> None:
    session = OnnxSession(
        execution_provider="CPUExecutionProvider",
        runtime="onnxruntime 0",
        threads=1,
        graph=GRAPH,
        session=FailingSession(outcome),
        errors=(RuntimeError,),
    )

    with pytest.raises(InternalError):
        session.probabilities([model_inputs()[0].values])


def test_session_translates_the_errors_of_the_real_runtime(serving: Serving) -> None:
    """The runtime's own classes derive from `Exception` alone, so each must be listed."""
    broken = structs.replace(serving.session, graph=structs.replace(GRAPH, output_name="none"))

    with pytest.raises(InternalError):
        broken.probabilities([model_inputs()[0].values])
