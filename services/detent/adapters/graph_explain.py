"""Read what a graph computes, where it is a linear model or trees behind a scaler.

It follows the input through the graph in two forms. Before the model each value depends on one
input only: a row with steps. After it each value is a score, a weighted sum of what the model
gave; a last function, sigmoid or softmax, closes it. Whatever does not keep to one of these forms
is not followed, and a graph whose output was not reached is not one that this can explain.

Only the examiner calls this, after the audit: the serving process reads no graph.

Source: row R27; decision 0023.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from detent.adapters.graph_form import GraphForm, StepForm
from detent.adapters.graph_trees import Trees, read_trees, tree_form

Doubles = NDArray[np.float64]
Constant = NDArray[Any]

OPERATIONS = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide"}
LINKS = {b"NONE": "none", b"LOGISTIC": "sigmoid", b"SOFTMAX": "softmax"}
MATRIX = 2
PAIR = 2
COLUMN_AXES = (1, -1)


class Unread(Exception):
    """A node does something that neither form can hold."""


# What the lists of a graph that fits together nowhere make of us.
UNREADABLE = (Unread, ArithmeticError, LookupError, MemoryError, TypeError, ValueError)


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Is the graph's input after some steps, each input by itself."""

    steps: tuple[StepForm, ...] = ()


class ScoresOf(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Is link(base @ matrix + bias).

    Attributes:
        base: The prepared row itself, or what trees gave.
        matrix: Shape (outputs of the base, columns).
        bias: Shape (columns,).
        link: `none`, `sigmoid` or `softmax`.
    """

    base: Rows | Trees
    matrix: Doubles
    bias: Doubles
    link: str = "none"


Value = Rows | ScoresOf | Constant


def read_graph(model: bytes, *, input_name: str, output_name: str, width: int) -> GraphForm | None:
    """Give what a graph computes, or None where it is neither linear nor trees.

    Args:
        model: An audited graph.
        input_name: Name of its input, rows of `width` values.
        output_name: Name of the output to explain.
        width: Number of inputs.
    """
    parsed = ModelProto()
    parsed.ParseFromString(model)
    values: dict[str, Value] = {input_name: Rows()}
    for tensor in parsed.graph.initializer:
        values[tensor.name] = numpy_helper.to_array(tensor)
    for node in parsed.graph.node:
        read = READERS.get(node.op_type)
        inputs = [values.get(name) for name in node.input if name]
        if read is None or any(value is None for value in inputs):
            continue
        try:
            value = read(_Node(node, width), inputs)
        except UNREADABLE:
            continue
        # A classifier gives its label first.
        place = 1 if node.op_type.endswith("Classifier") else 0
        if len(node.output) > place:
            values[node.output[place]] = value
    found = values.get(output_name)
    return _form(found) if isinstance(found, ScoresOf) else None


class _Node:
    """Reads the attributes of a node."""

    def __init__(self, node: Any, width: int) -> None:
        self.op_type = str(node.op_type)
        self.width = width
        self._held = {attribute.name: attribute for attribute in node.attribute}

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def one(self, name: str, default: Any) -> Any:
        """Give an attribute of one value."""
        held = self._held.get(name)
        return default if held is None else helper.get_attribute_value(held)

    def floats(self, name: str) -> NDArray[np.float32]:
        """Give a list of floats; empty where there is none."""
        held = self._held.get(name)
        return np.array(() if held is None else held.floats, dtype=np.float32)

    def whole(self, name: str) -> NDArray[np.int64]:
        """Give a list of integers; empty where there is none."""
        held = self._held.get(name)
        return np.array(() if held is None else held.ints, dtype=np.int64)

    def texts(self, name: str) -> list[bytes]:
        """Give a list of texts; empty where there is none."""
        held = self._held.get(name)
        return [] if held is None else list(held.strings)


def _form(found: ScoresOf) -> GraphForm | None:
    matrix, bias = found.matrix, found.bias
    if found.link == "softmax":
        # It does not see what is added to every class alike: without that, a share is of one.
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
        bias = bias - bias.mean()
    written = bias.astype("<f8").tobytes()
    if isinstance(found.base, Rows):
        weights = np.ascontiguousarray(matrix).astype("<f8").tobytes()
        return GraphForm(steps=found.base.steps, bias=written, link=found.link, weights=weights)
    form = tree_form(found.base, matrix)
    return GraphForm(steps=found.base.steps, bias=written, link=found.link, trees=form)


# Nodes


def _same(node: _Node, inputs: list[Any]) -> Value:
    """Pass a value on; at inference a dropout does nothing."""
    if node.op_type == "Cast" and node.one("to", 0) != TensorProto.FLOAT:
        raise Unread
    if node.op_type == "Flatten" and node.one("axis", 1) != 1:
        raise Unread
    value: Value = inputs[0]
    return value


def _constant(node: _Node, _: list[Any]) -> Value:
    if "value" not in node:
        raise Unread
    return numpy_helper.to_array(node.one("value", None))


def _scaler(node: _Node, inputs: list[Any]) -> Value:
    rows = _rows(inputs[0])
    for name, operation in (("offset", "subtract"), ("scale", "multiply")):
        rows = _stepped(rows, operation, node.floats(name), node.width)
    return rows


def _arithmetic(node: _Node, inputs: list[Any]) -> Value:
    left, right = inputs
    operation = OPERATIONS[node.op_type]
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        raise Unread
    if isinstance(left, np.ndarray):
        if operation == "divide":
            raise Unread
        if operation == "subtract":
            # c - v is -v + c, to the bit.
            return _negated(right, left, node.width)
        left, right = right, left
    if not isinstance(right, np.ndarray):
        raise Unread
    if isinstance(left, Rows):
        return _stepped(left, operation, right, node.width)
    return _changed(left, operation, right)


def _negated(value: Any, constant: Constant, width: int) -> Value:
    if isinstance(value, Rows):
        minus = _stepped(value, "multiply", np.array([-1.0], dtype=np.float32), width)
        return _stepped(minus, "add", constant, width)
    if value.link == "sigmoid" and np.all(_per_column(constant, value) == 1):
        # 1 - sigmoid(z) is sigmoid(-z).
        return _replaced(value, -value.matrix, -value.bias)
    if value.link != "none":
        raise Unread
    minus_one = _replaced(value, -value.matrix, -value.bias)
    return _changed(minus_one, "add", constant)


def _changed(value: ScoresOf, operation: str, constant: Constant) -> ScoresOf:
    amounts = _per_column(constant, value)
    if value.link != "none":
        # After the last function only what changes nothing may follow.
        if not np.all(amounts == (operation in {"multiply", "divide"})):
            raise Unread
        return value
    match operation:
        case "add":
            return _replaced(value, value.matrix, value.bias + amounts)
        case "subtract":
            return _replaced(value, value.matrix, value.bias - amounts)
        case "multiply":
            return _replaced(value, value.matrix * amounts, value.bias * amounts)
        case _:
            return _replaced(value, value.matrix / amounts, value.bias / amounts)


def _product(node: _Node, inputs: list[Any]) -> Value:
    """Read `MatMul` and `Gemm`."""
    left, right = inputs[:2]
    matrix = np.asarray(right, dtype=np.float64)
    if node.one("transA", 0) or matrix.ndim != MATRIX:
        raise Unread
    if node.one("transB", 0):
        matrix = matrix.T
    value = _multiplied(left, matrix * node.one("alpha", 1.0), node.width)
    if len(inputs) == PAIR:
        return value
    return _changed(value, "add", np.asarray(inputs[2]) * node.one("beta", 1.0))


def _linear_classifier(node: _Node, inputs: list[Any]) -> Value:
    rows, intercepts = _rows(inputs[0]), node.floats("intercepts").astype(np.float64)
    coefficients = node.floats("coefficients").astype(np.float64)
    classes = len(node.whole("classlabels_ints")) or len(node.texts("classlabels_strings"))
    if len(coefficients) != classes * node.width or len(intercepts) not in {0, classes}:
        raise Unread
    return ScoresOf(
        base=rows,
        matrix=coefficients.reshape(classes, node.width).T,
        bias=intercepts if len(intercepts) else np.zeros(classes),
        link=LINKS[node.one("post_transform", b"NONE")],
    )


def _tree_ensemble(node: _Node, inputs: list[Any]) -> Value:
    rows = _rows(inputs[0])
    is_classifier = node.op_type == "TreeEnsembleClassifier"
    if any(name.endswith("_as_tensor") for name in node._held):  # noqa: SLF001  Ours.
        raise Unread
    trees = read_trees(node, "class" if is_classifier else "target", steps=rows.steps)
    link = LINKS[node.one("post_transform", b"NONE")]
    base = node.floats("base_values").astype(np.float64)
    classes = node.one("n_targets", 1)
    if is_classifier:
        classes = len(node.whole("classlabels_int64s")) or len(node.texts("classlabels_strings"))
    if is_classifier and classes == PAIR and trees.is_of_one_column:
        # One score for two classes: the second's, and against it the first's.
        if len(base) > 1 or link == "softmax":
            raise Unread
        matrix = np.zeros((classes, classes))
        matrix[trees.column] = (-1.0, 1.0)
        amount = base[0] if len(base) else 0.0
        bias = np.array([-amount, amount])
        if link == "none":
            bias[0] += 1.0
    else:
        if len(base) not in {0, classes}:
            raise Unread
        matrix, bias = np.eye(classes), base if len(base) else np.zeros(classes)
    if trees.leaf_weights.shape[1] > len(matrix):
        raise Unread
    return ScoresOf(base=trees, matrix=matrix[: trees.leaf_weights.shape[1]], bias=bias, link=link)


def _link(node: _Node, inputs: list[Any]) -> Value:
    value = inputs[0]
    if not isinstance(value, ScoresOf) or value.link != "none":
        raise Unread
    if node.op_type == "Sigmoid":
        return msgspec.structs.replace(value, link="sigmoid")
    if node.one("axis", -1) not in COLUMN_AXES:
        raise Unread
    return msgspec.structs.replace(value, link="softmax")


def _normalizer(node: _Node, inputs: list[Any]) -> Value:
    """Pass on what sums to one already."""
    value = inputs[0]
    if not isinstance(value, ScoresOf) or node.one("norm", b"MAX") != b"L1":
        raise Unread
    matrix, bias = value.matrix, value.bias
    opposed = (
        value.link == "sigmoid"
        and len(bias) == PAIR
        and np.array_equal(matrix[:, 0], -matrix[:, 1])
        and np.array_equal(bias[:1], -bias[1:])
    )
    if value.link != "softmax" and not opposed:
        raise Unread
    return value


def _joined(node: _Node, inputs: list[Any]) -> Value:
    if node.one("axis", None) not in COLUMN_AXES:
        raise Unread
    first = inputs[0]
    for value in inputs:
        if not isinstance(value, ScoresOf) or not _is_alike(value, first):
            raise Unread
    return _replaced(
        first,
        np.hstack([value.matrix for value in inputs]),
        np.concatenate([value.bias for value in inputs]),
    )


def _is_alike(value: ScoresOf, first: ScoresOf) -> bool:
    return value.base is first.base and value.link == first.link != "softmax"


def _rows(value: Any) -> Rows:
    if not isinstance(value, Rows):
        raise Unread
    return value


def _stepped(rows: Rows, operation: str, constant: Constant, width: int) -> Rows:
    flat = np.asarray(constant)
    if flat.dtype != np.float32 or (flat.size != 1 and flat.shape[-1:] != (width,)):
        raise Unread
    if flat.size not in {1, width}:
        raise Unread
    step = StepForm(operation=operation, constant=flat.astype("<f4").tobytes())
    return Rows(steps=(*rows.steps, step))


def _per_column(constant: Constant, value: ScoresOf) -> Doubles:
    columns = len(value.bias)
    if constant.size != 1 and (constant.size != columns or constant.shape[-1] != columns):
        raise Unread
    return np.broadcast_to(np.asarray(constant, dtype=np.float64).ravel(), (columns,))


def _multiplied(value: Any, matrix: Doubles, width: int) -> ScoresOf:
    if isinstance(value, Rows) and len(matrix) == width:
        return ScoresOf(base=value, matrix=matrix, bias=np.zeros(matrix.shape[1]))
    if not isinstance(value, ScoresOf) or value.link != "none":
        raise Unread
    return _replaced(value, value.matrix @ matrix, value.bias @ matrix)


def _replaced(value: ScoresOf, matrix: Doubles, bias: Doubles) -> ScoresOf:
    return msgspec.structs.replace(value, matrix=matrix, bias=bias)


READERS: dict[str, Callable[[_Node, list[Any]], Value]] = (
    {
        "Constant": _constant,
        "Scaler": _scaler,
        "MatMul": _product,
        "Gemm": _product,
        "LinearClassifier": _linear_classifier,
        "TreeEnsembleClassifier": _tree_ensemble,
        "TreeEnsembleRegressor": _tree_ensemble,
        "Sigmoid": _link,
        "Softmax": _link,
        "Normalizer": _normalizer,
        "Concat": _joined,
    }
    | dict.fromkeys(("Cast", "Dropout", "Flatten", "Identity"), _same)
    | dict.fromkeys(OPERATIONS, _arithmetic)
)
