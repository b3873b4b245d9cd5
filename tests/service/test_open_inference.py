"""The Open Inference Protocol's facade: the same integers, the same binding, the same refusals."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from opentelemetry.context import Context
from tests.inference_host import InferenceHost, request_of
from tests.unit.artifacts import artifact, artifact_in, model_inputs

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import Serving, open_serving
from detent.api.inference import grpc_service_pb2 as pb
from detent.contracts import events
from detent.contracts.calls.inference import InferenceRow, InferSignalsRequest
from detent.contracts.errors import (
    ArtifactInvalid,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    ModelNotReady,
    Overloaded,
)
from detent.contracts.reasons import Reason
from detent.rpc.call import Call
from detent.servers.inference.handler import Answered, InferenceHandler
from detent.servers.inference.open_inference import OpenInferenceHandler
from detent.servers.inference.run_queue import Floats, Ran

BINDING_HASH = artifact().pinned.binding_hash
MANIFEST = artifact().manifest
NAME = MANIFEST.model_name
WIDTH = len(MANIFEST.input_features)
# What published clients also know how to call, and we do not offer.
NOT_OFFERED = (
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryRegister",
    "CudaSharedMemoryRegister",
    "TraceSetting",
    "LogSettings",
)


@pytest.fixture(name="serving", scope="module")
def _serving() -> Serving:
    return open_serving(artifact())


@pytest.fixture(name="handler")
def _handler(serving: Serving) -> Any:
    handler = InferenceHandler(serving, max_inference_latency_ms=2_000, clock=time.monotonic)
    yield handler
    handler.close()


@pytest.fixture(name="host")
async def _host(handler: InferenceHandler) -> AsyncIterator[InferenceHost]:
    async with InferenceHost(handler) as host:
        yield host


@pytest.fixture(name="empty_host")
async def _empty_host(tmp_path: Path) -> AsyncIterator[InferenceHost]:
    """Serve nothing, because the artifact's calibration is gone."""
    path = artifact_in(tmp_path)
    (path / "calibration.json").unlink()
    with pytest.raises(ArtifactInvalid) as refused:
        read_artifact(path)
    handler = InferenceHandler(refused.value, clock=time.monotonic)
    async with InferenceHost(handler) as host:
        yield host
    handler.close()


def integers_of(response: pb.ModelInferResponse, name: str) -> list[int]:
    """Read an output in whichever form it came."""
    index = [output.name for output in response.outputs].index(name)
    output = response.outputs[index]
    assert output.datatype == "INT32"
    if response.raw_output_contents:
        assert not output.HasField("contents")
        found = np.frombuffer(response.raw_output_contents[index], "<i4").tolist()
    else:
        found = list(output.contents.int_contents)
    assert len(found) == np.prod(output.shape)
    return found


async def test_readiness_says_what_is_served(
    host: InferenceHost, empty_host: InferenceHost
) -> None:
    for served, expected in ((host, True), (empty_host, False)):
        live = await served.ask(pb.ServerLiveRequest())
        ready = await served.ask(pb.ServerReadyRequest())
        model = await served.ask(pb.ModelReadyRequest(name=NAME))

        assert (live.live, ready.ready, model.ready) == (True, expected, expected)


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        (NAME, "", True),
        (NAME, MANIFEST.model_version, True),
        (NAME, MANIFEST.model_version_hash, True),
        (NAME, "1", False),
        (NAME, "v9.9.9", False),
        (NAME, MANIFEST.model_version_hash[:16], False),
        ("another", "", False),
        ("", "", False),
    ],
)
async def test_model_is_ready_under_its_own_name_and_version(
    host: InferenceHost, name: str, version: str, ready: bool
) -> None:
    request = request_of()
    request.model_name, request.model_version = name, version
    response = await host.ask(pb.ModelReadyRequest(name=name, version=version))

    assert response.ready is ready
    for ask in (pb.ModelMetadataRequest(name=name, version=version), request):
        if ready:
            await host.ask(ask)
            continue
        with pytest.raises(InvalidField) as caught:
            await host.ask(ask)
        assert caught.value.metadata["field"].endswith("version" if name == NAME else "name")


async def test_metadata_describes_tensors_and_what_they_are_pinned_to(host: InferenceHost) -> None:
    server = await host.ask(pb.ServerMetadataRequest())
    model = await host.ask(pb.ModelMetadataRequest(name=NAME))

    assert (server.name, list(server.extensions)) == ("detent", ["binding_hash"])
    assert server.version
    assert (model.name, list(model.versions)) == (NAME, [MANIFEST.model_version])
    assert model.platform == "onnxruntime_onnx"
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [
        ("input", "FP32", [-1, WIDTH])
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [
        ("p_hat_raw_bps", "INT32", [-1, 1]),
        ("p_hat_bps", "INT32", [-1, 1]),
    ]
    assert model.outputs[1].parameters["unit"].string_param == "basis points, 0 to 10000"
    assert {name: value.string_param for name, value in model.parameters.items()} == {
        "binding_hash": BINDING_HASH,
        "model_version_hash": MANIFEST.model_version_hash,
        "calibration_version": MANIFEST.calibration_version,
        "feature_version": MANIFEST.feature_version,
        "head": "direction",
        "answers": "integers; no float leaves the service",
    }


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("count", [1, 40])
async def test_integers_are_those_of_infer_signals(
    host: InferenceHost, handler: InferenceHandler, count: int, raw: bool
) -> None:
    rows = tuple(InferenceRow(symbol="BTCUSDT", model_input=row) for row in model_inputs()[:count])
    call = Call(deadline_s=time.monotonic() + 5, clock=time.monotonic, identity="", trace=Context())
    ours = await handler.infer_signals(
        InferSignalsRequest(binding_hash=BINDING_HASH, rows=rows), call
    )
    response = await host.ask(request_of(count, raw=raw))

    wanted = [row.signal.direction for row in ours.rows if row.signal is not None]
    assert integers_of(response, "p_hat_raw_bps") == [one.p_hat_raw_bps for one in wanted if one]
    assert integers_of(response, "p_hat_bps") == [one.p_hat_bps for one in wanted if one]
    assert len(set(integers_of(response, "p_hat_bps"))) > count // 2
    assert len(response.raw_output_contents) == (2 if raw else 0)
    assert (response.id, response.model_name) == ("bar 7", NAME)
    assert response.model_version == MANIFEST.model_version
    assert response.parameters["binding_hash"].string_param == BINDING_HASH
    assert response.parameters["model_version_hash"].string_param == MANIFEST.model_version_hash


async def test_outputs_come_as_they_were_asked_for(host: InferenceHost) -> None:
    everything = await host.ask(request_of())
    request = request_of()
    request.outputs.add(name="p_hat_bps")
    one = await host.ask(request)
    request.outputs.add(name="p_hat_raw_bps")
    both = await host.ask(request)

    assert [output.name for output in one.outputs] == ["p_hat_bps"]
    assert [output.name for output in both.outputs] == ["p_hat_bps", "p_hat_raw_bps"]
    for response in (one, both):
        assert integers_of(response, "p_hat_bps") == integers_of(everything, "p_hat_bps")


async def test_process_without_an_artifact_says_which_gate_is_shut(
    empty_host: InferenceHost,
) -> None:
    for ask in (request_of(), pb.ModelMetadataRequest(name=NAME)):
        with pytest.raises(ModelNotReady) as caught:
            await empty_host.ask(ask)
        assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


class ScriptedSignals:
    """Is the inference handler's part in the facade, answering what it is told to."""

    def __init__(self, serving: Serving, *refusals: Reason) -> None:
        self.serving = serving
        self._refusals = refusals

    def bound(self, binding_hash: str) -> Serving:
        del binding_hash
        return self.serving

    async def run(self, inputs: Floats, call: Call) -> Ran:
        del call
        # No distribution: each row is looked at by itself.
        return Ran(outputs=(np.full((len(inputs), 2), np.nan, np.float32),), latency_us=5)

    async def answers_of(self, serving: Serving, ran: Ran, *, count: int) -> Answered:
        good = [row.direction for row in serving.artifact.golden.rows[:1]]
        answers = [*good, *self._refusals, *good][:count]
        return Answered(answers=answers, latency_us=ran.latency_us)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.INFERENCE_DEADLINE, DeadlineExceeded),
        (Reason.INFERENCE_OVERLOADED, Overloaded),
        (Reason.INFERENCE_ERROR, InternalError),
        (Reason.OUTPUT_INVALID, InternalError),
        (Reason.CALIBRATION_FAILED, InternalError),
    ],
)
async def test_row_that_the_model_fails_on_refuses_the_call_with_its_reason(
    serving: Serving,
    reason: Reason,
    kind: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    signals = ScriptedSignals(serving, reason)
    handler = OpenInferenceHandler(signals, server_version="0")
    call = Call(deadline_s=time.monotonic() + 5, clock=time.monotonic, identity="", trace=Context())
    request = request_of(3)
    with caplog.at_level(logging.INFO), pytest.raises(kind) as caught:
        await handler.model_infer(request, call)

    assert vars(caught.value)["metadata"] == {
        "row": "1",
        "reason": reason.value,
        "refused_count": "1",
    }
    facts = vars(caplog.records[-1])
    assert facts["message"] == events.ML_INFER_ERROR
    assert facts["inputs_sha256"] == sha256(request.raw_input_contents[0]).hexdigest()


async def test_deadline_that_has_passed_is_refused(host: InferenceHost) -> None:
    with pytest.raises(DeadlineExceeded):
        await host.ask(request_of(), timeout_s=0.0)


@pytest.mark.proves("R38")
async def test_each_call_logs_one_line_with_the_hash_of_its_input(
    host: InferenceHost, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_of()
    with caplog.at_level(logging.INFO):
        await host.ask(request)

    lines = [vars(record) for record in caplog.records if record.name.startswith("detent")]
    answered = [line for line in lines if line["message"] == events.ML_INFER_OK]
    assert len(answered) == 1
    assert answered[0]["inputs_sha256"] == sha256(request.raw_input_contents[0]).hexdigest()
    assert answered[0]["binding_hash"] == BINDING_HASH
    assert answered[0]["model_hash"] == MANIFEST.model_hash
    assert answered[0]["request_id"] == "bar 7"


@pytest.mark.parametrize("method", NOT_OFFERED)
async def test_nothing_can_be_loaded_or_changed_over_the_wire(
    host: InferenceHost, method: str
) -> None:
    call = host.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=5.0)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_do_not_parse_are_refused_in_our_words(host: InferenceHost) -> None:
    call = host.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff", timeout=5.0)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a ModelInferRequest" in (caught.value.details() or "")


async def test_health_is_told_per_service_artifact_and_model(
    host: InferenceHost, empty_host: InferenceHost
) -> None:
    names = (
        "inference.GRPCInferenceService",
        f"artifact/{MANIFEST.model_version_hash}",
        f"model/{NAME}",
    )
    status = health_pb2.HealthCheckResponse
    for name in names:
        request = health_pb2.HealthCheckRequest(service=name)
        stub: Any = health_pb2_grpc.HealthStub(host.channel)
        assert (await stub.Check(request)).status == status.SERVING
        empty: Any = health_pb2_grpc.HealthStub(empty_host.channel)
        if name == names[0]:
            assert (await empty.Check(request)).status == status.NOT_SERVING
            continue
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await empty.Check(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_protocol(host: InferenceHost) -> None:
    import asyncio

    def listed() -> list[str]:
        with grpc.insecure_channel(host.target) as channel:
            return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {"inference.GRPCInferenceService", "detent.api.v1.InferenceService"} <= set(
        await asyncio.to_thread(listed)
    )
