"""What the facade of the Open Inference Protocol refuses, and by which name."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tests.inference_host import InferenceHost, infer_request, request_of
from tests.unit.artifacts import artifact, model_inputs

from detent.adapters.serving import Serving, open_serving
from detent.api.inference import grpc_service_pb2 as pb
from detent.contracts.errors import BindingMismatch, InvalidField
from detent.servers.inference.handler import InferenceHandler

BINDING_HASH = artifact().pinned.binding_hash
MANIFEST = artifact().manifest
WIDTH = len(MANIFEST.input_features)


@pytest.fixture(name="serving", scope="module")
def _serving() -> Serving:
    return open_serving(artifact())


@pytest.fixture(name="host")
async def _host(serving: Serving) -> AsyncIterator[InferenceHost]:
    handler = InferenceHandler(serving, max_inference_latency_ms=2_000, clock=time.monotonic)
    async with InferenceHost(handler) as host:
        yield host
    handler.close()


def _without_binding(request: pb.ModelInferRequest) -> None:
    del request.parameters["binding_hash"]


def _binding(value: str) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        request.parameters["binding_hash"].string_param = value

    return change


def _binding_as_number(request: pb.ModelInferRequest) -> None:
    request.parameters["binding_hash"].int64_param = 1


def _binding_and_more(request: pb.ModelInferRequest) -> None:
    _without_binding(request)
    request.parameters["timeout"].int64_param = 1


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_without_binding, id="missing"),
        pytest.param(_binding(""), id="empty"),
        pytest.param(_binding("0" * 64), id="another"),
        pytest.param(_binding(BINDING_HASH.upper()), id="upper-case"),
        pytest.param(_binding(f"{BINDING_HASH} "), id="space"),
        pytest.param(_binding(MANIFEST.model_version_hash), id="manifest-hash"),
        pytest.param(_binding_as_number, id="number"),
        pytest.param(_binding_and_more, id="missing-beside-another"),
    ],
)
async def test_call_without_the_binding_is_refused(
    host: InferenceHost, spoil: Callable[[pb.ModelInferRequest], None]
) -> None:
    request = request_of()
    spoil(request)
    with pytest.raises(BindingMismatch) as caught:
        await host.ask(request)

    assert caught.value.metadata["expected"] == BINDING_HASH
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert caught.value.__cause__.code() is grpc.StatusCode.FAILED_PRECONDITION


def _set(path: str, value: object) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        setattr(request.inputs[0], path, value)

    return change


def _shape(*dimensions: int) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = dimensions

    return change


def _contents(**lists: list[Any]) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].contents.CopyFrom(pb.InferTensorContents(**lists))

    return change


def _raw(*contents: bytes) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        request.raw_input_contents[:] = contents

    return change


def _both(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.0] * 3 * WIDTH)


def _two_inputs(request: pb.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])


def _no_inputs(request: pb.ModelInferRequest) -> None:
    del request.inputs[:]


def _parameter(request: pb.ModelInferRequest) -> None:
    request.parameters["priority"].uint64_param = 1


def _shared_memory(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"


def _outputs(*names: str) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        for name in names:
            request.outputs.add(name=name)

    return change


def _classification(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="p_hat_bps").parameters["classification"].int64_param = 2


def _long_id(request: pb.ModelInferRequest) -> None:
    request.id = "x" * 257


ROW = b"\0" * 4 * WIDTH


@pytest.mark.parametrize(
    ("spoil", "field", "found"),
    [
        pytest.param(_set("name", "x"), "inputs[0].name", "x", id="name"),
        pytest.param(_set("datatype", "FP64"), "inputs[0].datatype", "FP64", id="datatype"),
        pytest.param(_shape(3, WIDTH - 1), "inputs[0].shape", f"[3, {WIDTH - 1}]", id="width"),
        pytest.param(_shape(3 * WIDTH), "inputs[0].shape", f"[{3 * WIDTH}]", id="flat"),
        pytest.param(_shape(1, 3, WIDTH), "inputs[0].shape", f"[1, 3, {WIDTH}]", id="deep"),
        pytest.param(_shape(), "inputs[0].shape", "[]", id="no-shape"),
        pytest.param(_shape(0, WIDTH), "inputs[0].shape", f"[0, {WIDTH}]", id="no-rows"),
        pytest.param(_shape(-1, WIDTH), "inputs[0].shape", f"[-1, {WIDTH}]", id="minus-rows"),
        pytest.param(_shape(5001, WIDTH), "inputs[0].shape", f"[5001, {WIDTH}]", id="rows"),
        pytest.param(_shape(2, WIDTH), "raw_input_contents[0]", f"{12 * WIDTH} bytes", id="size"),
        pytest.param(_raw(ROW * 3, ROW), "raw_input_contents", "2 entries", id="raw-entries"),
        pytest.param(_raw(ROW), "raw_input_contents[0]", f"{4 * WIDTH} bytes", id="raw-short"),
        pytest.param(_raw(), "inputs[0].contents", "(missing)", id="neither-form"),
        pytest.param(_both, "raw_input_contents", "contents too", id="both-forms"),
        pytest.param(
            _contents(int_contents=[1] * 3 * WIDTH),
            "inputs[0].contents",
            "int_contents",
            id="integers",
        ),
        pytest.param(
            _contents(fp32_contents=[0.0], fp64_contents=[0.0]),
            "inputs[0].contents",
            "fp32_contents, fp64_contents",
            id="two-lists",
        ),
        pytest.param(
            _contents(fp32_contents=[0.0]),
            "inputs[0].contents.fp32_contents",
            "1 elements",
            id="typed-short",
        ),
        pytest.param(_two_inputs, "inputs", "2 tensors", id="two-inputs"),
        pytest.param(_no_inputs, "inputs", "0 tensors", id="no-inputs"),
        pytest.param(_parameter, "parameters", "priority", id="parameter"),
        pytest.param(
            _shared_memory, "inputs[0].parameters", "shared_memory_region", id="shared-memory"
        ),
        pytest.param(_outputs("p_up"), "outputs[0].name", "p_up", id="unknown-output"),
        pytest.param(
            _outputs("p_hat_bps", "p_hat_bps"), "outputs[1].name", "p_hat_bps", id="output-twice"
        ),
        pytest.param(_classification, "outputs[0].parameters", "classification", id="classes"),
        pytest.param(_long_id, "id", "257 characters", id="id"),
    ],
)
async def test_request_that_does_not_fit_is_refused_by_name(
    host: InferenceHost,
    spoil: Callable[[pb.ModelInferRequest], None],
    field: str,
    found: str,
) -> None:
    request = request_of(3)
    spoil(request)
    with pytest.raises(InvalidField) as caught:
        await host.ask(request)

    assert caught.value.metadata["field"] == field
    assert caught.value.metadata["found"] == found
    assert caught.value.metadata["expected"]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
async def test_bad_row_refuses_the_call_and_is_named(
    host: InferenceHost, value: str, raw: bool
) -> None:
    """The protocol cannot refuse one row, and a number in its stead would be believed."""
    rows = [row.values for row in model_inputs()[:3]]
    rows[1] = rows[1][:8] + struct.pack("<f", float(value)) + rows[1][12:]
    request = infer_request(rows, name=MANIFEST.model_name, binding_hash=BINDING_HASH, raw=raw)
    with pytest.raises(InvalidField) as caught:
        await host.ask(request)

    assert caught.value.metadata["field"] == "inputs[0] row 1"
    assert caught.value.metadata["found"] == value
