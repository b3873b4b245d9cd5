"""Audit the bytes of a model before a runtime sees them.

A pure function: it opens no file and runs nothing of the model. It belongs into a process of
its own nevertheless (`graph_child`), because what parses a hostile file may be hurt by it.

Source: RELIABILITY table D, rows D3 to D5; rows R36, R37, R39, R61.
"""

from typing import Any

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from detent.adapters.graph_limits import (
    INITIALIZERS_MAX,
    IR_VERSIONS,
    MODEL_BYTES_MAX,
    NODES_MAX,
    OPSET_RANGES,
    OUTPUTS_MAX,
    GraphFacts,
    check_limit,
    graph_refused,
)
from detent.adapters.graph_ops import check_nodes
from detent.adapters.graph_tensors import (
    MEMORY_MARKER,
    TYPES,
    TYPES_EXPECTED,
    check_no_external_data,
    check_tensors,
    type_name,
)

# The runtime takes bytes with this at this place for its own format, and not for ONNX.
OTHER_FORMAT, OTHER_FORMAT_AT = b"ORTM", 4
# The runtime can be told to take its settings from the model.
SETTINGS_KEYS = frozenset({"ort_config"})


def audit_graph(model: bytes) -> GraphFacts:
    """Refuse a model that is anything but a plain, bounded, deterministic graph.

    Args:
        model: Content of `model.onnx`.

    Raises:
        ArtifactInvalid: Names the rule, what was found and what was expected.
    """
    parsed = _parse(model)
    graph = parsed.graph
    # (1) Counts first: what follows takes time in proportion to them.
    check_limit("nodes", len(graph.node), NODES_MAX, "nodes")
    check_limit("initializers", len(graph.initializer), INITIALIZERS_MAX, "initializers")
    # (2) Nothing refers outside, wherever it hides.
    if MEMORY_MARKER in model:
        found = "a marker of an address in memory"
        raise graph_refused("external_data", found, "every tensor's data in the file itself")
    check_no_external_data(parsed)
    # (3) One plain graph, in versions that are known.
    _check_shape_of_model(parsed)
    # (4) What it computes with, and what it computes.
    elements = check_tensors(parsed)
    _check_values(graph)
    ops = check_nodes(graph)
    return GraphFacts(
        nodes=len(graph.node),
        elements=elements,
        ops=ops,
        outputs=tuple(value.name for value in graph.output),
    )


def _parse(model: bytes) -> Any:
    check_limit("bytes", len(model), MODEL_BYTES_MAX, "bytes")
    if model[OTHER_FORMAT_AT:].startswith(OTHER_FORMAT):
        raise graph_refused("format", "a graph in the runtime's own format", "ONNX")
    parsed = ModelProto()
    try:
        parsed.ParseFromString(model)
    except (DecodeError, RecursionError) as error:
        raise graph_refused("format", f"no ONNX: {error}", "a graph in ONNX") from error
    # What our parser does not know, the runtime's may.
    size = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    if parsed.ByteSize() != size:
        raise graph_refused("format", "fields that ONNX does not have", "only those it has")
    if not parsed.HasField("graph"):
        raise graph_refused("format", "no graph", "a graph in ONNX")
    return parsed


def _check_shape_of_model(model: Any) -> None:
    if model.training_info:
        raise graph_refused("training", "instructions for training", "a graph for inference")
    if model.functions:
        raise graph_refused("function", f"{len(model.functions)} functions", "operators only")
    if model.graph.sparse_initializer:
        raise graph_refused("sparse", "sparse initializers", "dense tensors")
    for item in model.metadata_props:
        if item.key in SETTINGS_KEYS:
            raise graph_refused("settings", f"settings under {item.key!r}", "a graph only")
    first, last = IR_VERSIONS
    if not first <= model.ir_version <= last:
        raise graph_refused("version", f"IR version {model.ir_version}", f"[{first}, {last}]")
    for opset in model.opset_import:
        domain = opset.domain or "ai.onnx"
        # A domain that no node uses means nothing; the nodes are checked one by one.
        first, last = OPSET_RANGES.get(domain, (opset.version, opset.version))
        if not first <= opset.version <= last:
            found = f"opset {opset.version} of {domain}"
            raise graph_refused("version", found, f"[{first}, {last}]")


def _check_values(graph: Any) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    if len(constants) != len(graph.initializer) or "" in constants:
        raise graph_refused("order", "initializers of one name, or of none", "a name for each")
    inputs = [value for value in graph.input if value.name not in constants]
    shown = ", ".join(f"{value.name!r} of {_type_of(value)}" for value in inputs) or "none"
    is_float = len(inputs) == 1 and inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
    if not is_float:
        raise graph_refused("input", f"inputs: {shown}", "one input, of float32")
    if not graph.output:
        raise graph_refused("output", "no outputs", "at least one")
    check_limit("output", len(graph.output), OUTPUTS_MAX, "outputs")
    for value in (*graph.input, *graph.output):
        _check_type(value)
    for value in graph.value_info:
        # What a converter left open is inferred, from types that are checked.
        if value.HasField("type"):
            _check_type(value)


def _check_type(value: Any) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise graph_refused("type", f"{value.name!r} of {_type_of(value)}", "a plain tensor")
    if value.type.tensor_type.elem_type not in TYPES:
        raise graph_refused("dtype", f"{value.name!r} of {_type_of(value)}", TYPES_EXPECTED)


def _type_of(value: Any) -> str:
    kind = value.type.WhichOneof("value")
    return type_name(value.type.tensor_type.elem_type) if kind == "tensor_type" else str(kind)
