"""The audit of a model's bytes: plain graphs pass, everything else is refused by name (D3, D4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from msgspec import structs
from onnx import ModelProto, TensorProto, helper
from tests.unit.adapters.hostile_graphs import (
    INPUT,
    ML,
    OUTPUT,
    ROWS,
    SOUND,
    WIDTH,
    constant,
    forest,
    model_of,
    node,
    path_tricks,
    perceptron,
)
from tests.unit.artifacts import artifact

from detent.adapters import onnx_session
from detent.adapters.graph_audit import audit_graph
from detent.adapters.graph_child import examine
from detent.adapters.graph_questions import GraphQuestion, Stage
from detent.adapters.serving import open_serving
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

TRICKS = (
    "..",
    "absolute",
    "symlink",
    "parent symlink",
    "hard link",
    "huge length",
    "negative offset",
    "offset past end",
    "unknown key",
    "dunder key",
    "in-memory marker",
    "CWD-relative",
    "sparse sub-tensor",
    "subgraph tensor",
)
QUESTION = GraphQuestion(
    model_bytes=0, input_name=INPUT, row_shape=(WIDTH,), row_count=len(ROWS), row_bytes=4 * WIDTH
)


@pytest.fixture(name="tricks", scope="module")
def _tricks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return path_tricks(tmp_path_factory.mktemp("tricks"))


@pytest.mark.parametrize("name", SOUND)
def test_audit_accepts_what_the_converters_write(name: str) -> None:
    model = SOUND[name]()

    facts = audit_graph(model.SerializeToString())

    assert facts.nodes == len(model.graph.node)
    assert facts.outputs == (OUTPUT,)
    assert set(facts.ops) == {one.op_type for one in model.graph.node}


def test_audit_accepts_the_artifact_that_is_built() -> None:
    assert audit_graph(artifact().model).ops == ("LinearClassifier", "Scaler")


@pytest.mark.proves("R61")
@pytest.mark.parametrize("name", TRICKS)
def test_path_trick_is_refused_before_the_runtime_sees_a_byte(
    tricks: dict[str, bytes], name: str
) -> None:
    seen: list[bytes] = []

    report = examine(tricks[name], QUESTION, b"".join(ROWS), open_graph=seen.append)

    assert set(tricks) == set(TRICKS)
    assert report.stage is Stage.AUDIT
    assert report.refusal is not None
    assert report.refusal.rule == "external_data"
    assert report.refusal.gate_reason == Reason.MODEL_NOT_LOADED
    assert seen == []


@pytest.mark.proves("R61")
def test_path_tricks_never_reach_the_runtime_of_the_serving_process(
    tricks: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: the artifact, the process that examines, and the spy behind it."""
    opened: list[bytes] = []
    monkeypatch.setattr(onnx_session, "open_session", lambda model, *_, **__: opened.append(model))

    for name, model in tricks.items():
        with pytest.raises(ArtifactInvalid) as caught:
            open_serving(structs.replace(artifact(), model=model))
        assert caught.value.metadata["rule"] == "external_data", name

    assert opened == []


def test_runtime_would_have_followed_a_name_into_the_working_directory(tmp_path: Path) -> None:
    """Control: the trick works where nothing stands in front of the runtime."""
    model = path_tricks(tmp_path)["CWD-relative"]
    before = Path.cwd()
    os.chdir(tmp_path / "artifact")
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    finally:
        os.chdir(before)

    assert session.get_inputs()[0].name == INPUT


def changed(model: ModelProto, change: Callable[[Any], object]) -> ModelProto:
    """Give a model after a change."""
    change(model)
    return model


def of_type(kind: int) -> Callable[[Any], object]:
    """Give the change that makes the first weights of another type."""
    return lambda m: setattr(m.graph.initializer[0], "data_type", kind)


def _as_training(m: Any) -> None:
    m.training_info.add().initialization.name = "i"


def _as_function(m: Any) -> None:
    m.functions.add(name="f", domain="own")


def _unknown_field(m: Any) -> None:
    m.MergeFromString(bytes([0xF2, 0x3F, 1, 0]))  # Field 1022, which ONNX does not have.


def _external_in_function(m: Any) -> None:
    made = m.functions.add(name="f", domain="own").node.add(op_type="Constant")
    made.attribute.add(name="v").t.external_data.add(key="location", value="x")


def _external_in_training(m: Any) -> None:
    tensor = m.training_info.add().algorithm.initializer.add()
    tensor.data_location = TensorProto.EXTERNAL


NORM = [constant(name, [1.0] * WIDTH) for name in "abcd"]
ONE = [constant("one", [1.0])]
CASES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "in a function": (lambda: changed(perceptron(), _external_in_function), "external_data"),
    "in training": (lambda: changed(perceptron(), _external_in_training), "external_data"),
    "own domain": (lambda: model_of([node("Relu", INPUT, OUTPUT, domain="own")]), "domain"),
    "runtime's own domain": (
        lambda: model_of([node("Gelu", INPUT, OUTPUT, domain="com.microsoft")]),
        "domain",
    ),
    "function": (lambda: changed(perceptron(), _as_function), "function"),
    "training info": (lambda: changed(perceptron(), _as_training), "training"),
    "unlisted": (lambda: model_of([node("NonZero", INPUT, OUTPUT)]), "op"),
    "zip map": (lambda: model_of([node("ZipMap", INPUT, OUTPUT, domain=ML)]), "op"),
    "normal": (lambda: model_of([node("RandomNormalLike", INPUT, OUTPUT)]), "random"),
    "seeded": (lambda: model_of([node("RandomUniformLike", INPUT, OUTPUT, seed=1.0)]), "random"),
    "bernoulli": (lambda: model_of([node("Bernoulli", INPUT, OUTPUT)]), "random"),
    "multinomial": (lambda: model_of([node("Multinomial", INPUT, OUTPUT)]), "random"),
    "loop": (lambda: model_of([node("Loop", INPUT, OUTPUT)]), "subgraph"),
    "batch norm that learns": (
        lambda: model_of(
            [node("BatchNormalization", f"{INPUT} a b c d", OUTPUT, training_mode=1)], NORM
        ),
        "training",
    ),
    "batch norm with statistics": (
        lambda: model_of([node("BatchNormalization", f"{INPUT} a b c d", f"{OUTPUT} m v")], NORM),
        "training",
    ),
    "dropout that drops": (
        lambda: model_of([node("Dropout", f"{INPUT} - yes", OUTPUT)], [constant("yes", True, "?")]),
        "training",
    ),
    "dropout that might": (
        lambda: model_of(
            [node("Cast", INPUT, "maybe", to=9), node("Dropout", f"{INPUT} - maybe", OUTPUT)]
        ),
        "training",
    ),
    "float16": (lambda: changed(perceptron(), of_type(TensorProto.FLOAT16)), "dtype"),
    "bfloat16": (lambda: changed(perceptron(), of_type(TensorProto.BFLOAT16)), "dtype"),
    "float8": (lambda: changed(perceptron(), of_type(TensorProto.FLOAT8E4M3FN)), "dtype"),
    "complex": (lambda: changed(perceptron(), of_type(TensorProto.COMPLEX64)), "dtype"),
    "cast to float16": (lambda: model_of([node("Cast", INPUT, OUTPUT, to=10)]), "dtype"),
    "output of float16": (
        lambda: changed(
            perceptron(),
            lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 10),
        ),
        "dtype",
    ),
    "input of float64": (
        lambda: changed(
            perceptron(),
            lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 11),
        ),
        "input",
    ),
    "two inputs": (
        lambda: changed(
            perceptron(),
            lambda m: m.graph.input.append(
                helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])
            ),
        ),
        "input",
    ),
    "no input": (lambda: changed(perceptron(), lambda m: m.graph.ClearField("input")), "input"),
    "no output": (
        lambda: changed(perceptron(), lambda m: m.graph.ClearField("output")),
        "output",
    ),
    "sequence": (
        lambda: changed(
            perceptron(),
            lambda m: m.graph.output[0].type.sequence_type.elem_type.tensor_type.SetInParent(),
        ),
        "type",
    ),
    "old opset": (
        lambda: changed(perceptron(), lambda m: setattr(m.opset_import[0], "version", 6)),
        "version",
    ),
    "future opset": (
        lambda: changed(perceptron(), lambda m: setattr(m.opset_import[0], "version", 99)),
        "version",
    ),
    "future IR": (lambda: changed(perceptron(), lambda m: setattr(m, "ir_version", 99)), "version"),
    "runtime settings": (
        lambda: changed(perceptron(), lambda m: m.metadata_props.add(key="ort_config", value="{}")),
        "settings",
    ),
    "unknown field": (lambda: changed(perceptron(), _unknown_field), "format"),
    "runtime's own format": (
        lambda: changed(perceptron(), lambda m: m.ParseFromString(b"\x12\x06ORTM..")),
        "format",
    ),
    "no graph": (lambda: changed(perceptron(), lambda m: m.ClearField("graph")), "format"),
    "missing value": (lambda: model_of([node("Relu", "nothing", OUTPUT)]), "order"),
    "made twice": (
        lambda: model_of([node("Relu", INPUT, OUTPUT), node("Relu", INPUT, OUTPUT)]),
        "order",
    ),
    "negative dimension": (
        lambda: changed(perceptron(), lambda m: m.graph.initializer[0].dims.__setitem__(0, -WIDTH)),
        "dimensions",
    ),
    "less data than said": (
        lambda: changed(perceptron(), lambda m: m.graph.initializer[0].ClearField("raw_data")),
        "elements",
    ),
    "tree with a loop": (lambda: forest(1, nodes_truenodeids=[1, 0, 0, 0, 0]), "trees"),
    "tree with a shared leaf": (lambda: forest(1, nodes_falsenodeids=[2, 3, 0, 0, 0]), "trees"),
    "tree with a lost part": (
        lambda: forest(1, nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "LEAF"]),
        "trees",
    ),
    "tree with two of a name": (lambda: forest(1, nodes_nodeids=[0, 1, 2, 3, 3]), "trees"),
    "tree with a short list": (lambda: forest(1, nodes_truenodeids=[1]), "trees"),
}


@pytest.mark.proves("R36", "R37", "R39")
@pytest.mark.parametrize("name", CASES)
def test_audit_refuses_what_is_no_plain_graph(name: str) -> None:
    make, rule = CASES[name]

    with pytest.raises(ArtifactInvalid, match="expected") as caught:
        audit_graph(make().SerializeToString())

    assert caught.value.metadata["rule"] == rule
    assert caught.value.metadata["file"] == "model.onnx"
    assert caught.value.metadata["found"]
    assert caught.value.metadata["expected"]
    assert caught.value.gate_reason is Reason.MODEL_NOT_LOADED


def harmless() -> Iterator[ModelProto]:
    """Give graphs that stand next to refused ones, on the other side of the line."""
    yield model_of([node("Dropout", INPUT, OUTPUT)])
    yield model_of([node("Dropout", f"{INPUT} - no", OUTPUT)], [constant("no", False, "?")])
    yield model_of([node("BatchNormalization", f"{INPUT} a b c d", OUTPUT)], NORM)
    yield model_of([node("Cast", INPUT, "d", to=11), node("Cast", "d", OUTPUT, to=1)])
    yield model_of([node("Relu", INPUT, OUTPUT, domain="ai.onnx")])
    # A domain that nothing uses is what some exporters leave behind.
    own = model_of([node("Relu", INPUT, OUTPUT)])
    own.opset_import.add(domain="own", version=1)
    yield own
    # Before IR version 4 initializers had to be listed among the inputs.
    listed = model_of([node("Mul", f"{INPUT} one", OUTPUT)], ONE)
    listed.graph.input.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, [1]))
    yield listed


@pytest.mark.parametrize("model", list(harmless()))
def test_audit_accepts_the_harmless_neighbour(model: ModelProto) -> None:
    assert audit_graph(model.SerializeToString()).nodes >= 1


@pytest.mark.parametrize(
    "model", [b"", b"no graph", b"\0" * 100, b"\xff" * 100], ids=["none", "text", "zeros", "ones"]
)
def test_audit_refuses_what_is_no_model(model: bytes) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        audit_graph(model)

    assert caught.value.metadata["rule"] == "format"
