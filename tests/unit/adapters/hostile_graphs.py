"""Makes graphs that are sound, and graphs that would hurt whoever believed them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTH = 4
HIDDEN = 32
INPUT, OUTPUT = "input", "probabilities"
ML = "ai.onnx.ml"
ROWS = [row.tobytes() for row in np.linspace(-2, 2, 3 * WIDTH, dtype="<f4").reshape(3, WIDTH)]


def model_of(
    nodes: list[NodeProto], initializers: list[TensorProto] | None = None, *, opset: int = 17
) -> ModelProto:
    """Give a model of one float32 input and one float32 output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)],
        initializers or [],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Give a node; names are split at spaces, and `-` is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def constant(name: str, values: object, dtype: str = "f4") -> TensorProto:
    """Give an initializer."""
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def perceptron() -> ModelProto:
    """Give a small perceptron, most of whose bytes are weights, as in a real model."""
    chance = np.random.default_rng(5)
    weights = [
        constant(name, chance.normal(size=size) / 4)
        for name, size in (
            ("w1", (WIDTH, HIDDEN)),
            ("b1", HIDDEN),
            ("w2", (HIDDEN, HIDDEN)),
            ("b2", HIDDEN),
            ("w3", (HIDDEN, 2)),
            ("b3", 2),
        )
    ]
    nodes = [
        node("Gemm", f"{INPUT} w1 b1", "h1"),
        node("Relu", "h1", "r1"),
        node("Gemm", "r1 w2 b2", "h2"),
        node("Tanh", "h2", "r2"),
        node("Gemm", "r2 w3 b3", "h3"),
        node("Softmax", "h3", OUTPUT, axis=-1),
    ]
    return model_of(nodes, weights)


def forest(trees: int = 3, **changes: Any) -> ModelProto:
    """Give a forest of trees with two branches and three leaves each."""
    lists: dict[str, Any] = {
        "nodes_treeids": [tree for tree in range(trees) for _ in range(5)],
        "nodes_nodeids": [0, 1, 2, 3, 4] * trees,
        "nodes_featureids": [0, 1, 0, 0, 0] * trees,
        "nodes_values": [0.5, -0.5, 0.0, 0.0, 0.0] * trees,
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"] * trees,
        "nodes_truenodeids": [1, 3, 0, 0, 0] * trees,
        "nodes_falsenodeids": [2, 4, 0, 0, 0] * trees,
        "target_treeids": [tree for tree in range(trees) for _ in range(3)],
        "target_nodeids": [2, 3, 4] * trees,
        "target_ids": [0, 1, 0] * trees,
        "target_weights": [0.1, 0.2, 0.3] * trees,
        "n_targets": 2,
    }
    made = node("TreeEnsembleRegressor", INPUT, "sums", domain=ML, **{**lists, **changes})
    return model_of([made, node("Softmax", "sums", OUTPUT, axis=-1)])


def linear() -> ModelProto:
    """Give what the converter of a scaler and a logistic regression writes."""
    scaler = node("Scaler", INPUT, "scaled", domain=ML, offset=[0.1] * WIDTH, scale=[2.0] * WIDTH)
    classifier = node(
        "LinearClassifier",
        "scaled",
        f"label {OUTPUT}",
        domain=ML,
        coefficients=[0.5] * WIDTH + [-0.5] * WIDTH,
        intercepts=[0.1, -0.1],
        classlabels_ints=[0, 1],
        post_transform="LOGISTIC",
    )
    return model_of([scaler, classifier])


def convolution() -> ModelProto:
    """Give a temporal convolution that takes its shapes from its input."""
    nodes = [
        node("Unsqueeze", f"{INPUT} one", "x"),
        node("Pad", "x pads", "padded"),
        node("Conv", "padded kernel", "c", dilations=[2]),
        node("Shape", "c", "shape"),
        node("ConstantOfShape", "shape", "zeros"),
        node("Add", "c zeros", "d"),
        node("ReduceMean", "d", "mean", axes=[2], keepdims=0),
        node("Softmax", "mean", OUTPUT, axis=-1),
    ]
    weights = [
        constant("one", [1], "i8"),
        constant("pads", [0, 0, 2, 0, 0, 0], "i8"),
        constant("kernel", np.linspace(-1, 1, 4).reshape(2, 1, 2)),
    ]
    return model_of(nodes, weights)


SOUND: dict[str, Callable[[], ModelProto]] = {
    "perceptron": perceptron,
    "forest": forest,
    "linear": linear,
    "convolution": convolution,
}


def external(tensor: TensorProto, **entries: object) -> TensorProto:
    """Turn a tensor into one whose data are said to be elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def weights_file(folder: Path) -> Path:
    """Lay out weights beside the model, and every kind of link to them."""
    inside = folder / "artifact"
    outside = folder / "outside"
    inside.mkdir()
    outside.mkdir()
    for target in (inside / "weights.bin", outside / "weights.bin"):
        target.write_bytes(np.ones(WIDTH * HIDDEN, dtype="<f4").tobytes())
    (inside / "symbolic.bin").symlink_to(outside / "weights.bin")
    (inside / "linked").symlink_to(outside)
    (inside / "hard.bin").hardlink_to(outside / "weights.bin")
    return inside / "weights.bin"


def _first_weights(**entries: object) -> bytes:
    model = perceptron()
    external(model.graph.initializer[0], **entries)
    return bytes(model.SerializeToString())


def _sparse() -> bytes:
    model = perceptron()
    values = external(constant("values", [1.0, 2.0]), location="weights.bin")
    indices = constant("indices", [0, 1], "i8")
    sparse = helper.make_sparse_tensor(values, indices, [2])
    model.graph.sparse_initializer.append(sparse)
    return bytes(model.SerializeToString())


def _in_subgraph() -> bytes:
    tensor = external(constant("hidden", [1.0, 2.0]), location="weights.bin")
    made = node("Constant", "", "made", value=tensor)
    output = helper.make_tensor_value_info("made", TensorProto.FLOAT, [2])
    branch = helper.make_graph([made], "branch", [], [output])
    choice = node("If", "yes", OUTPUT, then_branch=branch, else_branch=branch)
    return bytes(model_of([choice], [constant("yes", True, "?")]).SerializeToString())


def path_tricks(folder: Path) -> dict[str, bytes]:
    """Give the fourteen ways of RELIABILITY D3 in which a tensor reaches out of its file."""
    weights = weights_file(folder)
    located = {"location": "weights.bin"}
    return {
        "..": _first_weights(location="../outside/weights.bin"),
        "absolute": _first_weights(location=weights),
        "symlink": _first_weights(location="symbolic.bin"),
        "parent symlink": _first_weights(location="linked/weights.bin"),
        "hard link": _first_weights(location="hard.bin"),
        "huge length": _first_weights(**located, length=2**62),
        "negative offset": _first_weights(**located, offset=-8),
        "offset past end": _first_weights(**located, offset=2**40),
        "unknown key": _first_weights(**located, compression="zip"),
        "dunder key": _first_weights(**located, __class__="os"),
        "in-memory marker": _first_weights(
            location="*/_ORT_MEM_ADDR_/*", offset=4096, length=WIDTH * HIDDEN * 4
        ),
        "CWD-relative": _first_weights(**located),
        "sparse sub-tensor": _sparse(),
        "subgraph tensor": _in_subgraph(),
    }


def _grown(op: str, inputs: str) -> bytes:
    """Ask for two thirds of a thousand millions of numbers, by a shape of sixteen bytes."""
    big = constant("big", [2**15, 2**14], "i8")
    nodes = [
        node(op, inputs, "huge"),
        node("ReduceSum", "huge", "sum", keepdims=0),
        node("Mul", f"{INPUT} sum", OUTPUT),
    ]
    tensors = [big, constant("small", [[1.0]])]
    return bytes(model_of(nodes, tensors).SerializeToString())


def _doubling(times: int) -> bytes:
    names = [INPUT, *(f"x{index}" for index in range(times)), OUTPUT]
    nodes = [
        node("Concat", f"{before} {before}", after, axis=1)
        for before, after in itertools.pairwise(names)
    ]
    return bytes(model_of(nodes).SerializeToString())


def _field(number: int, content: bytes) -> bytes:
    """Encode a protobuf field of bytes by hand, where the library would refuse to."""
    head, size = _varint(number << 3 | 2), _varint(len(content))
    return head + size + content


def _varint(number: int) -> bytes:
    more, last = b"", number
    while last > 127:
        more += bytes([last & 127 | 128])
        last >>= 7
    return more + bytes([last])


def _many_nodes(count: int) -> bytes:
    model = model_of([node("Identity", INPUT, OUTPUT)])
    nodes = _field(1, model.graph.node[0].SerializeToString()) * count
    graph = model.graph.SerializeToString() + nodes
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + _field(7, graph)


def _nested(depth: int) -> bytes:
    """Put a choice into a choice into a choice; the numbers are those of the ONNX protobuf."""
    made = _field(2, b"made")
    graph = _field(1, made + _field(4, b"Constant")) + _field(2, b"g")
    for _ in range(depth):
        branch = _field(1, b"then_branch") + _field(6, graph) + _varint(20 << 3) + b"\x05"
        choice = _field(1, b"yes") + made + _field(4, b"If") + _field(5, branch)
        graph = _field(1, choice) + _field(2, b"g")
    model = model_of([], [constant("yes", True, "?")])
    return bytes(model.SerializeToString()) + _field(7, graph)


def _slow() -> bytes:
    square = constant("square", [3_000, 3_000], "i8")
    nodes = [node("ConstantOfShape", "square", "m0", value=constant("v", [1e-4]))]
    # From the input, so that nothing is computed while it loads.
    nodes += [node("ReduceSum", INPUT, "s", keepdims=0), node("Mul", "m0 s", "m")]
    nodes += [node("MatMul", "m m" if i == 0 else f"p{i - 1} m", f"p{i}") for i in range(2_000)]
    nodes += [node("ReduceSum", "p1999", "t", keepdims=0), node("Mul", f"{INPUT} t", OUTPUT)]
    return bytes(model_of(nodes, [square]).SerializeToString())


def _declared() -> bytes:
    model = perceptron()
    model.graph.initializer[0].dims[:] = [2**15, 2**14]
    return bytes(model.SerializeToString())


def _by_row() -> bytes:
    nodes = [
        node("Cast", INPUT, "whole", to=TensorProto.INT64),
        node("ReduceMax", "whole", "most", keepdims=0),
        node("Reshape", "most one", "size"),
        node("ConstantOfShape", "size", "huge"),
        node("ReduceSum", "huge", "sum", keepdims=0),
        node("Mul", f"{INPUT} sum", OUTPUT),
    ]
    return bytes(model_of(nodes, [constant("one", [1], "i8")]).SerializeToString())


# Name: the model, and the rule by which it is refused.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "constant of 2 GiB": (lambda: _grown("ConstantOfShape", "big"), "runtime"),
    "expanded to 2 GiB": (lambda: _grown("Expand", "small big"), "runtime"),
    "tiled to 2 GiB": (lambda: _grown("Tile", "small big"), "runtime"),
    "doubled forty times": (lambda: _doubling(40), "runtime"),
    "declared 2 GiB": (_declared, "elements"),
    "as large as a row says": (_by_row, "size"),
    "a million nodes": (lambda: _many_nodes(1_000_000), "nodes"),
    "ten graphs deep": (lambda: _nested(10), "subgraph"),
    "two hundred graphs deep": (lambda: _nested(200), "format"),
    "runs for minutes": (_slow, "examined"),
}


def mutant(seed: int) -> bytes:
    """Give a sound model with one to three changes that keep it a protobuf of a model."""
    chance = random.Random(seed)
    model = chance.choice(list(SOUND.values()))()
    for _ in range(chance.randint(1, 3)):
        chance.choice(_CHANGES)(model, chance)
    return bytes(model.SerializeToString())


_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 1_000, 2**31 - 1, 2**40, 2**63 - 1)
_FLOATS = (float("nan"), float("inf"), -1e38, -1.0, 0.0, 1e-45, 1e38)
_SCHEMAS = sorted({(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()})


def _any_node(model: ModelProto, chance: random.Random) -> Any:
    return chance.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _other_op(model: ModelProto, chance: random.Random) -> None:
    made = _any_node(model, chance)
    made.domain, made.op_type = chance.choice(_SCHEMAS)


def _other_input(model: ModelProto, chance: random.Random) -> None:
    made = _any_node(model, chance)
    names = [name for one in model.graph.node for name in (*one.input, *one.output)] or [INPUT]
    if made.input:
        made.input[chance.randrange(len(made.input))] = chance.choice(names)


def _other_attribute(model: ModelProto, chance: random.Random) -> None:
    made = _any_node(model, chance)
    if not made.attribute:
        made.attribute.add(name="axis", type=onnx.AttributeProto.INT, i=chance.choice(_NUMBERS))
        return
    attribute = chance.choice(made.attribute)
    lists = [items for items in (attribute.ints, attribute.floats) if len(items)]
    if lists and chance.random() < 0.7:
        items: Any = lists[0]
        place = chance.randrange(len(items))
        items[place] = chance.choice(_FLOATS if items is attribute.floats else _NUMBERS)
    elif lists:
        del lists[0][chance.randrange(len(lists[0])) :]
    else:
        attribute.i = chance.choice(_NUMBERS)


def _other_dims(model: ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        tensor = chance.choice(model.graph.initializer)
        tensor.dims[:] = [chance.choice(_NUMBERS) for _ in range(chance.randint(0, 4))]


def _other_weights(model: ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        tensor = chance.choice(model.graph.initializer)
        raw = bytearray(tensor.raw_data or b"\0")
        raw[chance.randrange(len(raw))] = chance.randrange(256)
        tensor.raw_data = bytes(raw)


def _other_type(model: ModelProto, chance: random.Random) -> None:
    values = [*model.graph.input, *model.graph.output]
    kind = chance.choice(list(TensorProto.DataType.values()))
    if model.graph.initializer and chance.random() < 0.5:
        chance.choice(model.graph.initializer).data_type = kind
    elif values:
        chance.choice(values).type.tensor_type.elem_type = kind


def _other_order(model: ModelProto, chance: random.Random) -> None:
    nodes = list(model.graph.node)
    chance.shuffle(nodes)
    del model.graph.node[chance.randrange(2) :]
    model.graph.node.extend(nodes)


def _without(model: ModelProto, chance: random.Random) -> None:
    parts: Any = chance.choice([model.graph.node, model.graph.initializer, model.graph.output])
    if len(parts):
        del parts[chance.randrange(len(parts))]


def _other_version(model: ModelProto, chance: random.Random) -> None:
    chance.choice(model.opset_import).version = chance.choice([*range(25), *_NUMBERS])


def _other_shape(model: ModelProto, chance: random.Random) -> None:
    value: Any = chance.choice([*model.graph.input, *model.graph.output] or [INPUT])
    if value != INPUT:
        value.type.tensor_type.shape.dim.add().dim_value = chance.choice(_NUMBERS)


def _more_branches(model: ModelProto, chance: random.Random) -> None:
    made = _any_node(model, chance)
    attribute = made.attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
    attribute.g.CopyFrom(linear().graph)


def _reaching_out(model: ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        tensor = chance.choice(model.graph.initializer)
        tensor.external_data.add(key="location", value=chance.choice(["/dev/zero", "..", "a"]))


_CHANGES = (
    _other_op,
    _other_input,
    _other_attribute,
    _other_attribute,
    _other_dims,
    _other_weights,
    _other_weights,
    _other_type,
    _other_order,
    _without,
    _other_version,
    _other_shape,
    _more_branches,
    _reaching_out,
)
