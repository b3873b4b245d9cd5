"""Check every tensor of a graph: its bytes are inside, its type is allowed, its size is honest.

The runtime would follow a tensor's reference to a file: relative to the working directory when
it was given bytes, and through a hard link even when it was given a path. It would also take a
number in the file for an address of its own memory. No tensor of ours refers to anything.

Source: RELIABILITY table D, row D3; rows R36 and R61.
"""

import math
from collections.abc import Iterator
from typing import Any

from onnx import TensorProto

from detent.adapters.graph_limits import (
    ALL_ELEMENTS_MAX,
    DIMENSIONS_MAX,
    TENSOR_ELEMENTS_MAX,
    check_limit,
    graph_refused,
)

# What the runtime writes where a tensor's file would be named, to mean its own memory.
MEMORY_MARKER = b"_ORT_MEM_ADDR_"

# The field that holds the values, and the bytes of one value in `raw_data`.
_HOLDERS = {
    TensorProto.FLOAT: ("float_data", 4),
    TensorProto.DOUBLE: ("double_data", 8),
    TensorProto.BOOL: ("int32_data", 1),
    TensorProto.INT8: ("int32_data", 1),
    TensorProto.INT16: ("int32_data", 2),
    TensorProto.INT32: ("int32_data", 4),
    TensorProto.INT64: ("int64_data", 8),
    TensorProto.UINT8: ("int32_data", 1),
    TensorProto.UINT16: ("int32_data", 2),
    TensorProto.UINT32: ("uint64_data", 4),
    TensorProto.UINT64: ("uint64_data", 8),
    TensorProto.STRING: ("string_data", None),
}
# float32 and float64 compute; the others count, choose and name.
TYPES = frozenset(_HOLDERS)
TYPES_EXPECTED = "float32 or float64, beside integers, booleans and strings"

# Where a tensor stands, and the tensor.
Placed = tuple[str, Any]


def type_name(data_type: int) -> str:
    """Name a type of tensors."""
    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)) if known else f"type {data_type}"


def check_no_external_data(model: Any) -> None:
    """Refuse a model any of whose tensors, wherever it hides, refers outside of itself.

    Args:
        model: An `onnx.ModelProto`.

    Raises:
        ArtifactInvalid: Names the tensor.
    """
    for where, tensor in iter_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            entries = ", ".join(f"{item.key}={item.value!r}" for item in tensor.external_data)
            found = f"{where} {tensor.name!r} with data outside ({entries})"
            raise graph_refused("external_data", found, "every tensor's data in the file itself")


def check_tensors(model: Any) -> int:
    """Refuse tensors of other types, too large ones, and ones that claim what they lack.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        Elements of all tensors.

    Raises:
        ArtifactInvalid: Names the tensor.
    """
    elements = 0
    for where, tensor in iter_tensors(model):
        elements += _check_tensor(f"{where} {tensor.name!r}", tensor)
        check_limit("elements", elements, ALL_ELEMENTS_MAX, "elements in all tensors")
    return elements


def _check_tensor(where: str, tensor: Any) -> int:
    if tensor.data_type not in _HOLDERS:
        found = f"{where} of {type_name(tensor.data_type)}"
        raise graph_refused("dtype", found, TYPES_EXPECTED)
    check_limit("dimensions", len(tensor.dims), DIMENSIONS_MAX, f"dimensions of {where}")
    if any(size < 0 for size in tensor.dims):
        raise graph_refused("dimensions", f"{where} {list(tensor.dims)}", "sizes of 0 or more")
    elements: int = math.prod(tensor.dims)
    check_limit("elements", elements, TENSOR_ELEMENTS_MAX, f"elements of {where}")
    field, item_bytes = _HOLDERS[tensor.data_type]
    if tensor.HasField("raw_data") and item_bytes is not None:
        held, what = len(tensor.raw_data), elements * item_bytes
    else:
        held, what = len(getattr(tensor, field)), elements
    if held != what:
        found = f"{where} {list(tensor.dims)} that holds {held} instead of {what}"
        raise graph_refused("elements", found, "as much data as the shape says")
    return elements


def iter_tensors(model: Any) -> Iterator[Placed]:
    """Give every tensor of a model with the place where it stands.

    The parser refuses messages nested deeper than a hundred, which bounds the recursion.
    """
    yield from _of_graph("graph", model.graph)
    for index, info in enumerate(model.training_info):
        yield from _of_graph(f"training_info[{index}].initialization", info.initialization)
        yield from _of_graph(f"training_info[{index}].algorithm", info.algorithm)
    for index, function in enumerate(model.functions):
        where = f"functions[{index}]"
        yield from _of_nodes(where, function.node)
        yield from _of_attributes(where, function.attribute_proto)


def _of_graph(where: str, graph: Any) -> Iterator[Placed]:
    for index, tensor in enumerate(graph.initializer):
        yield f"{where}.initializer[{index}]", tensor
    for index, sparse in enumerate(graph.sparse_initializer):
        yield from _of_sparse(f"{where}.sparse_initializer[{index}]", sparse)
    yield from _of_nodes(where, graph.node)


def _of_nodes(where: str, nodes: Any) -> Iterator[Placed]:
    for index, node in enumerate(nodes):
        yield from _of_attributes(f"{where}.node[{index}]", node.attribute)


def _of_attributes(where: str, attributes: Any) -> Iterator[Placed]:
    # By what is there and not by the declared type, which a hostile file may set at will.
    for attribute in attributes:
        here = f"{where}.{attribute.name}"
        if attribute.HasField("t"):
            yield here, attribute.t
        for tensor in attribute.tensors:
            yield here, tensor
        if attribute.HasField("sparse_tensor"):
            yield from _of_sparse(here, attribute.sparse_tensor)
        for sparse in attribute.sparse_tensors:
            yield from _of_sparse(here, sparse)
        if attribute.HasField("g"):
            yield from _of_graph(here, attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(here, graph)


def _of_sparse(where: str, sparse: Any) -> Iterator[Placed]:
    yield f"{where}.values", sparse.values
    yield f"{where}.indices", sparse.indices
