"""Check every node of a graph: an operator that is listed, that draws nothing, that ends.

The list is what the public converters write for linear models, scalers and pipelines, trees and
forests of scikit-learn and LightGBM, perceptrons and temporal convolutions. Whatever is not on it
is refused, so an operator that a later runtime brings cannot enter unseen.

Source: RELIABILITY table D, rows D4 and D5; rows R37 and R39.
"""

from typing import Any

import numpy as np
from onnx import TensorProto

from detent.adapters.graph_limits import ATTRIBUTE_ITEMS_MAX, check_limit, graph_refused
from detent.adapters.graph_tensors import TYPES, TYPES_EXPECTED, type_name

ARITHMETIC = (
    "Abs Add Ceil Clip CumSum Div Erf Exp Floor Gemm Log MatMul Max Mean Min Mod Mul Neg Pow "
    "Reciprocal Round Sign Sqrt Sub Sum"
)
LOGIC = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor"
REDUCTIONS = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare TopK"
)
SHAPES = (
    "Cast CastLike Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND "
    "Identity Pad Reshape Shape Size Slice Split Squeeze Tile Transpose Unsqueeze"
)
LAYERS = (
    "AveragePool BatchNormalization Conv Dropout Elu Gelu GlobalAveragePool GlobalMaxPool "
    "HardSigmoid HardSwish LayerNormalization LeakyRelu LogSoftmax MaxPool Mish PRelu Relu Selu "
    "Sigmoid Softmax Softplus Softsign Tanh ThresholdedRelu"
)
CLASSIC = (
    "ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier "
    "LinearRegressor Normalizer OneHotEncoder Scaler TreeEnsembleClassifier TreeEnsembleRegressor"
)
OPS = {
    "ai.onnx": frozenset(f"{ARITHMETIC} {LOGIC} {REDUCTIONS} {SHAPES} {LAYERS}".split()),
    "ai.onnx.ml": frozenset(CLASSIC.split()),
}
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
BLOCKS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# Inputs that say how large an output becomes. None may depend on the values of a row, or one
# row could ask for all memory; on its shape it may.
SIZE_INPUTS = {"ConstantOfShape": 0, "Expand": 1, "Pad": 1, "Tile": 1}
SHAPE_ONLY = frozenset({"Shape", "Size"})
DROPOUT_TRAINING_INPUT = 2
TREES = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})


def domain_of(node: Any) -> str:
    """Name the domain of a node; the empty name is that of the standard's own."""
    return str(node.domain) or "ai.onnx"


def check_nodes(graph: Any) -> tuple[str, ...]:
    """Check every node of a graph, in order.

    Args:
        graph: An `onnx.GraphProto` whose tensors are checked.

    Returns:
        Names of its operators, sorted, each once.

    Raises:
        ArtifactInvalid: Names the node.
    """
    values = _Values(graph)
    for index, node in enumerate(graph.node):
        where = f"node[{index}] {node.op_type}"
        _check_op(where, node)
        for attribute in node.attribute:
            _check_attribute(where, node, attribute)
        values.follow(where, node)
        _check_training(where, node, values.constants)
        if node.op_type in TREES:
            _check_trees(where, node)
    return tuple(sorted({str(node.op_type) for node in graph.node}))


def _check_op(where: str, node: Any) -> None:
    domain = domain_of(node)
    if domain not in OPS:
        found = f"{where} of domain {domain}"
        raise graph_refused("domain", found, f"operators of {' and '.join(OPS)}")
    if node.overload:
        raise graph_refused("function", f"{where}, overload {node.overload}", "no functions")
    if node.op_type in RANDOM:
        raise graph_refused("random", where, "a graph that draws nothing at random")
    if node.op_type in BLOCKS:
        raise graph_refused("subgraph", where, "a graph without blocks that repeat or choose")
    if node.op_type == "ZipMap":
        expected = "a plain tensor of probabilities: export with zipmap=False"
        raise graph_refused("op", where, expected)
    if node.op_type not in OPS[domain]:
        raise graph_refused("op", f"{where} of {domain}", "an operator that is listed")


def _check_attribute(where: str, node: Any, attribute: Any) -> None:
    here = f"{where}, attribute {attribute.name!r}"
    if attribute.HasField("g") or attribute.graphs:
        raise graph_refused("subgraph", here, "a graph without graphs inside")
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise graph_refused("sparse", here, "dense tensors")
    if attribute.HasField("tp") or attribute.type_protos or attribute.ref_attr_name:
        raise graph_refused("function", here, "values and no references")
    for items in (attribute.floats, attribute.ints, attribute.strings, attribute.tensors):
        check_limit("attribute", len(items), ATTRIBUTE_ITEMS_MAX, f"items of {here}")
    if node.op_type == "Cast" and attribute.name == "to" and attribute.i not in TYPES:
        raise graph_refused("dtype", f"{here} to {type_name(attribute.i)}", TYPES_EXPECTED)


class _Values:
    """Follows which values a graph has, and which of them depend on the values of a row."""

    def __init__(self, graph: Any) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in self.constants]
        self._known = {"", *self.constants, *inputs}
        self._of_rows = set(inputs)

    def follow(self, where: str, node: Any) -> None:
        """Take up the outputs of a node."""
        for name in node.input:
            if name not in self._known:
                raise graph_refused("order", f"{where} that reads {name!r}", "a value made before")
        size = SIZE_INPUTS.get(node.op_type)
        if size is not None and len(node.input) > size and node.input[size] in self._of_rows:
            found = f"{where} whose size depends on the values of a row"
            raise graph_refused("size", found, "sizes that only shapes and constants give")
        of_rows = node.op_type not in SHAPE_ONLY and any(n in self._of_rows for n in node.input)
        for name in node.output:
            if name and name in self._known:
                raise graph_refused("order", f"{where} that makes {name!r} again", "a new name")
            if name:
                self._known.add(name)
            if of_rows:
                self._of_rows.add(name)


def _check_training(where: str, node: Any, constants: dict[str, Any]) -> None:
    expected = "the mode of inference"
    if node.op_type == "BatchNormalization":
        mode = any(item.name == "training_mode" and item.i != 0 for item in node.attribute)
        if mode or len(node.output) > 1:
            raise graph_refused("training", f"{where} in the mode of training", expected)
    if node.op_type == "Dropout" and len(node.input) > DROPOUT_TRAINING_INPUT:
        name = node.input[DROPOUT_TRAINING_INPUT]
        if name and not _is_false(constants.get(name)):
            raise graph_refused("training", f"{where} in the mode of training", expected)


def _is_false(tensor: Any) -> bool:
    if tensor is None or tensor.data_type != TensorProto.BOOL:
        return False
    return not any(tensor.raw_data) and not any(tensor.int32_data)


def _check_trees(where: str, node: Any) -> None:
    """Refuse trees in which a walk from the root might not end.

    A node that has two parents, or a root that has one, is what a loop needs.
    """
    held = {attribute.name: attribute for attribute in node.attribute}
    names = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids")
    trees, ids, true_ids, false_ids = (
        np.array(held[name].ints if name in held else (), dtype=np.int64) for name in names
    )
    modes = list(held["nodes_modes"].strings) if "nodes_modes" in held else []
    sizes = {len(trees), len(ids), len(true_ids), len(false_ids), len(modes)}
    if len(sizes) != 1 or not modes:
        raise graph_refused("trees", f"{where} with lists of {sorted(sizes)}", "lists of one size")
    # One number per (tree, node), however wild the numbers of the file are.
    _, tree_ranks = np.unique(trees, return_inverse=True)
    id_names, id_ranks = np.unique(np.concatenate([ids, true_ids, false_ids]), return_inverse=True)
    nodes, *sides = (tree_ranks * len(id_names) + ranks for ranks in np.split(id_ranks, 3))
    if len(np.unique(nodes)) != len(nodes):
        raise graph_refused("trees", f"{where} with two nodes of one name", "one of each")
    branches = np.array([mode != b"LEAF" for mode in modes], dtype=np.bool_)
    # The first node listed of a tree is its root, as the runtime has it.
    _, roots = np.unique(trees, return_index=True)
    reached = np.concatenate([nodes[roots], *(side[branches] for side in sides)])
    if len(np.unique(reached)) != len(reached):
        raise graph_refused("trees", f"{where} with a node of two parents", "trees")
    if not np.array_equal(np.sort(reached), np.sort(nodes)):
        raise graph_refused("trees", f"{where} with nodes that no root reaches", "whole trees")
