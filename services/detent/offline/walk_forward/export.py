"""Export a fitted model as a graph with one input and one output, the same bytes every time."""

import warnings
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

Floats = NDArray[np.float64]
Inputs = NDArray[np.float32]

GRAPH_NAME = "detent_direction"
INPUT_NAME = "input"
OUTPUT_NAME = "probabilities"
ONNX_OPSET = 17
ONNX_ML_OPSET = 3
# The converter of LightGBM knows the operators up to this one.
LIGHTGBM_OPSET = 15


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a graph and what wrote it.

    Attributes:
        graph: Content of `model.onnx`.
        input_shape: Shape of a row where it is a window; empty for a flat row.
        opset: Version of the operators that it uses.
    """

    graph: bytes
    input_shape: tuple[int, ...] = ()
    opset: int = ONNX_OPSET


def export_sklearn(
    model: Any, *, width: int, name: str = GRAPH_NAME, output: str = OUTPUT_NAME
) -> Exported:
    """Export a classifier of scikit-learn, a pipeline that ends in one, or a regressor."""
    classifies = output == OUTPUT_NAME
    exported: ModelProto = to_onnx(
        model,
        initial_types=[(INPUT_NAME, FloatTensorType([None, width]))],
        options={id(model): {"zipmap": False}} if classifies else None,
        target_opset={"": ONNX_OPSET, "ai.onnx.ml": ONNX_ML_OPSET},
        name=name,
    )
    return Exported(graph=only_outputs(exported, (output,)))


def export_lightgbm(booster: Any, *, width: int, name: str = GRAPH_NAME) -> Exported:
    """Export a booster of LightGBM that gives probabilities."""
    # Loading it takes a second, which other candidates need not wait for.
    from onnxmltools.convert import convert_lightgbm  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import (  # noqa: PLC0415
        FloatTensorType as LightGbmFloats,
    )

    with warnings.catch_warnings():
        # Of the libraries that the converter uses.
        warnings.simplefilter("ignore")
        exported = convert_lightgbm(
            booster,
            name=name,
            initial_types=[(INPUT_NAME, LightGbmFloats([None, width]))],
            zipmap=False,
            target_opset=LIGHTGBM_OPSET,
        )
    return Exported(graph=only_outputs(exported, (OUTPUT_NAME,)), opset=LIGHTGBM_OPSET)


def export_line(weights: Floats, intercept: float, *, edge: float) -> Exported:
    """Write p = clip(intercept + x . weights, edge, 1 - edge) as a graph.

    Args:
        weights: Shape (features,), of inputs as they come.
        intercept: What is added.
        edge: How near to 0 and 1 a probability may come.
    """
    tensors = {
        "weights": weights[:, np.newaxis].astype(np.float32),
        "intercept": np.array([intercept], np.float32),
        "low": np.array(edge, np.float32),
        "high": np.array(1.0 - edge, np.float32),
        "one": np.array([1.0], np.float32),
    }
    nodes = [
        helper.make_node("Gemm", [INPUT_NAME, "weights", "intercept"], ["line"]),
        helper.make_node("Clip", ["line", "low", "high"], ["up"]),
        helper.make_node("Sub", ["one", "up"], ["down"]),
        helper.make_node("Concat", ["down", "up"], [OUTPUT_NAME], axis=1),
    ]
    return _written(nodes, tensors, width=len(weights), classes=2)


def export_logits(mean: Floats, scale: Floats, weights: Floats, intercepts: Floats) -> Exported:
    """Write p = sigmoid(((x - mean) / scale) . weights + intercepts) as a graph.

    Args:
        mean: Shape (features,).
        scale: Shape (features,), above 0.
        weights: Shape (outcomes, features).
        intercepts: Shape (outcomes,).
    """
    tensors = {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weights": np.ascontiguousarray(weights.T).astype(np.float32),
        "intercepts": intercepts.astype(np.float32),
    }
    nodes = [
        helper.make_node("Sub", [INPUT_NAME, "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weights", "intercepts"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], [OUTPUT_NAME]),
    ]
    return _written(nodes, tensors, width=len(mean), classes=len(intercepts))


def _written(
    nodes: list[NodeProto], tensors: dict[str, NDArray[np.float32]], *, width: int, classes: int
) -> Exported:
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        GRAPH_NAME,
        [helper.make_tensor_value_info(INPUT_NAME, float_, [None, width])],
        [helper.make_tensor_value_info(OUTPUT_NAME, float_, [None, classes])],
        initializer=[numpy_helper.from_array(value, key) for key, value in tensors.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", ONNX_OPSET)], ir_version=8
    )
    return Exported(graph=model.SerializeToString(deterministic=True))


def only_outputs(model: ModelProto, names: tuple[str, ...]) -> bytes:
    """Keep some outputs and what they are made of, in the order of the names."""
    graph = model.graph
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    outputs = {output.name: output for output in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    parts: tuple[tuple[Any, list[Any]], ...] = (
        (graph.node, kept[::-1]),
        (graph.output, [outputs[name] for name in names]),
        (graph.initializer, tensors),
    )
    for field, items in parts:
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(copies)
    del graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def floor_float32(values: Floats) -> Floats:
    """Round down to what a float32 can hold.

    A threshold t parts float32 inputs in x <= t and the rest. Rounded down it parts them in
    the same way; rounded to the nearest it might not.
    """
    nearest = values.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest).astype(np.float64)


def named_graph(text: bytes) -> bytes:
    """Give a graph our name and leave out where its nodes came from."""
    model = ModelProto.FromString(text)
    model.graph.name = GRAPH_NAME
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    return only_outputs(model, (OUTPUT_NAME,))
