"""Read the one input tensor of the Open Inference Protocol, and write its outputs.

Before it stands the protocol, after it the session: rows of little-endian float32 go in, the
integers of the artifact's head come out. Elements travel in either of the protocol's two forms,
and the answer has the form of the question.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.api.inference import grpc_service_pb2 as pb
from detent.contracts.binding import Head
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import Manifest
from detent.contracts.signals import (
    REGIME_NUMBERS,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    Regime,
    RegimeSignal,
    ToxicitySignal,
)
from detent.contracts.units import ROWS_MAX

FP32 = "FP32"
INT32 = "INT32"
# Written where a value is absent, which only the coupled share of a bracket can be.
ABSENT = -1

_SIGNALS: dict[Head, type[HeadSignal]] = {
    Head.DIRECTION: DirectionSignal,
    Head.REGIME: RegimeSignal,
    Head.TOXICITY: ToxicitySignal,
    Head.FILL: FillSignal,
}
_UNITS = {"_bps": "basis points, 0 to 10000", "_x1000": "thousandths"}
_REGIME_UNIT = ", ".join(f"{number} {regime}" for regime, number in REGIME_NUMBERS.items())


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """States one output of a head.

    Attributes:
        name: Its name: that of the signal's field.
        width: Elements per row.
        unit: What the integers mean.
        elements: Gives the elements of some signals, row by row.
    """

    name: str
    width: int
    unit: str
    elements: Callable[[Sequence[Any]], list[int]]


@functools.cache
def outputs_of(head: Head, classes: int) -> tuple[OutputTensor, ...]:
    """List the outputs of a head: the fields of its signal, in their order.

    Args:
        head: The artifact's head.
        classes: Columns of the graph's output: the width of the brackets.
    """
    if head is Head.BRACKETS:
        return (_bracket_output("p_hat_bps", classes), _bracket_output("p_unified_bps", classes))
    kind = _SIGNALS[head]
    hints = get_type_hints(kind)
    return tuple(_field_output(name, hints[name]) for name in kind.__struct_fields__)


def row_shape_of(manifest: Manifest) -> tuple[int, ...]:
    """Give the shape of one row of the model's input."""
    return manifest.input_shape or (len(manifest.input_features),)


def read_rows(request: Any, manifest: Manifest) -> NDArray[np.float32]:
    """Read the rows of a request, whole and finite.

    Returns:
        Shape (n, width) of little-endian float32, n from 1 to 5000.

    Raises:
        InvalidField: The input is not the model's, its sizes contradict one another, or a
            row holds something that is no number: the protocol has no place for the
            refusal of one row, so the call is refused and the row named.
    """
    if len(request.inputs) != 1:
        raise InvalidField("inputs", f"{len(request.inputs)} tensors", "1")
    tensor, width = request.inputs[0], len(manifest.input_features)
    _check_tensor(tensor, manifest.input_name, row_shape_of(manifest))
    count = tensor.shape[0]
    if request.raw_input_contents:
        values = _raw_values(request, count * width)
    else:
        values = _typed_values(tensor.contents, count * width)
    rows = values.reshape(count, width)
    # One question for all rows: it is nearly always the only one.
    if not np.isfinite(values).all():
        finite = np.isfinite(rows).all(axis=1)
        row = int(np.argmin(finite))
        found = next(value for value in rows[row].tolist() if not np.isfinite(value))
        raise InvalidField(f"inputs[0] row {row}", found, "finite numbers")
    return rows


def wanted_outputs(request: Any, manifest: Manifest) -> tuple[OutputTensor, ...]:
    """List the outputs that a request wants, in its order; all of them if it names none.

    Raises:
        InvalidField: An output is unknown, named twice, or wanted in a way not offered.
    """
    every = outputs_of(manifest.head, len(manifest.output_classes))
    if not request.outputs:
        return every
    known = {output.name: output for output in every}
    wanted: dict[str, OutputTensor] = {}
    for index, asked in enumerate(request.outputs):
        if asked.name not in known or asked.name in wanted:
            expected = f"each once of {', '.join(known)}"
            raise InvalidField(f"outputs[{index}].name", asked.name, expected)
        _check_no_parameters(f"outputs[{index}].parameters", asked)
        wanted[asked.name] = known[asked.name]
    return tuple(wanted.values())


def columns_of(
    outputs: Sequence[OutputTensor], signals: Sequence[HeadSignal]
) -> dict[str, NDArray[np.int32]]:
    """Give the elements of each output, row by row."""
    return {output.name: np.array(output.elements(signals), dtype="<i4") for output in outputs}


def name_outputs(response: Any, outputs: Sequence[OutputTensor], *, count: int) -> None:
    """Add the outputs of so many rows to a response, without their elements."""
    for output in outputs:
        response.outputs.add(name=output.name, datatype=INT32, shape=(count, output.width))


def write_elements(
    response: Any,
    outputs: Sequence[OutputTensor],
    columns: Mapping[str, NDArray[np.int32]],
    *,
    raw: bool,
) -> None:
    """Add the elements of the outputs that a response names, as bytes if the question came so."""
    if raw:
        response.raw_output_contents.extend(
            [columns[output.name].astype("<i4", copy=False).tobytes() for output in outputs]
        )
        return
    for tensor, output in zip(response.outputs, outputs, strict=True):
        tensor.contents.int_contents.extend(columns[output.name].tolist())


def describe_tensors(response: Any, manifest: Manifest) -> None:
    """Add the model's input and outputs to its metadata."""
    shape = (-1, *row_shape_of(manifest))
    response.inputs.add(name=manifest.input_name, datatype=FP32, shape=shape)
    for output in outputs_of(manifest.head, len(manifest.output_classes)):
        tensor = response.outputs.add(name=output.name, datatype=INT32, shape=(-1, output.width))
        tensor.parameters["unit"].string_param = output.unit


def _field_output(name: str, hint: Any) -> OutputTensor:
    value_of = attrgetter(name)

    def numbers(signals: Sequence[Any]) -> list[int]:
        return [_number(value_of(signal)) for signal in signals]

    def integers(signals: Sequence[Any]) -> list[int]:
        return [value_of(signal) for signal in signals]

    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), _REGIME_UNIT)
    elements = integers if hint is int else numbers
    return OutputTensor(name=name, width=1, unit=unit, elements=elements)


def _bracket_output(name: str, width: int) -> OutputTensor:
    value_of = attrgetter(name)

    def elements(signals: Sequence[Any]) -> list[int]:
        return [_number(value_of(bracket)) for signal in signals for bracket in signal.brackets]

    unit = f"{_UNITS['_bps']}; {ABSENT} where there is none"
    return OutputTensor(name=name, width=width, unit=unit, elements=elements)


def _number(value: int | Regime | None) -> int:
    """Give what stands for a value: itself, the number of a regime, or of what is absent."""
    if isinstance(value, Regime):
        return REGIME_NUMBERS[value]
    return ABSENT if value is None else value


def _check_tensor(tensor: Any, name: str, row_shape: tuple[int, ...]) -> None:
    if tensor.name != name:
        raise InvalidField("inputs[0].name", tensor.name, name)
    if tensor.datatype != FP32:
        raise InvalidField("inputs[0].datatype", tensor.datatype, FP32)
    shape = list(tensor.shape)
    if not shape or not 1 <= shape[0] <= ROWS_MAX or tuple(shape[1:]) != row_shape:
        columns = ", ".join(map(str, row_shape))
        raise InvalidField("inputs[0].shape", shape, f"[1 to {ROWS_MAX}, {columns}]")
    _check_no_parameters("inputs[0].parameters", tensor)


def _check_no_parameters(field: str, tensor: Any) -> None:
    if tensor.parameters:
        # Shared memory and classification are asked for in this way.
        raise InvalidField(field, ", ".join(sorted(tensor.parameters)), "none")


def _raw_values(request: Any, count: int) -> NDArray[np.float32]:
    if request.inputs[0].HasField("contents"):
        raise InvalidField("raw_input_contents", "contents too", "one of the two forms")
    if len(request.raw_input_contents) != 1:
        found = f"{len(request.raw_input_contents)} entries"
        raise InvalidField("raw_input_contents", found, "one for each input: 1")
    content = request.raw_input_contents[0]
    if len(content) != 4 * count:
        raise InvalidField("raw_input_contents[0]", f"{len(content)} bytes", f"{4 * count} bytes")
    return np.frombuffer(content, "<f4")


def _typed_values(contents: pb.InferTensorContents, count: int) -> NDArray[np.float32]:
    field = "inputs[0].contents"
    given = [descriptor.name for descriptor, _ in contents.ListFields()]
    if given != ["fp32_contents"]:
        expected = "fp32_contents alone, or raw_input_contents"
        raise InvalidField(field, ", ".join(given) or "(missing)", expected)
    values = np.array(contents.fp32_contents, "<f4")
    if len(values) != count:
        raise InvalidField(f"{field}.fp32_contents", f"{len(values)} elements", f"{count} elements")
    return values
