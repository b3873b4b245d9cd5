"""The artifact on an accelerator: certified there, the same in any company, near the processor."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.inference_process import answers_digest, inference, requests_of, rows_around
from tests.unit.artifacts import artifact, artifact_in
from tests.unit.head_artifacts import head_artifact

from detent.adapters.serving import Serving, open_serving
from detent.api.v1 import inference_service_pb2, inference_service_pb2_grpc
from detent.contracts.binding import Head

pytestmark = pytest.mark.gpu
ROWS = 5_000
# Another device adds in another order: floats may differ, and integers where they lie on an edge.
DIFFERENCE_MAX = 1e-6


@pytest.fixture(name="serving", scope="module")
def _serving() -> Serving:
    return open_serving(artifact(), execution_provider="cuda")


def inputs_of(serving: Serving, count: int = ROWS) -> np.ndarray:
    rows = rows_around(serving.artifact, count)
    return np.frombuffer(b"".join(rows), "<f4").reshape(count, -1)


def test_the_session_runs_where_it_was_asked_to(serving: Serving) -> None:
    assert serving.session.execution_provider == "CUDAExecutionProvider"
    assert serving.session.session.get_providers()[0] == "CUDAExecutionProvider"
    options = serving.session.session.get_provider_options()["CUDAExecutionProvider"]
    assert options["use_tf32"] == "0"


def test_the_certificate_names_the_accelerator_and_repeats(serving: Serving) -> None:
    again = open_serving(artifact(), execution_provider="cuda").certificate
    on_processor = open_serving(artifact()).certificate

    assert again == serving.certificate
    assert "capability" in serving.certificate.instruction_set
    assert serving.certificate.certificate_hash != on_processor.certificate_hash
    assert serving.certificate.answers_digest == on_processor.answers_digest


def test_a_row_is_answered_the_same_in_any_company(serving: Serving) -> None:
    inputs = inputs_of(serving)
    whole = serving.session.outputs(inputs)[0].tobytes()

    for size in (1, 7, 64, 1_000):
        parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        assert b"".join(serving.session.outputs(part)[0].tobytes() for part in parts) == whole


@pytest.mark.parametrize("head", Head)
def test_accelerator_and_processor_agree(head: Head) -> None:
    on_processor = open_serving(head_artifact(head))
    on_accelerator = open_serving(head_artifact(head), execution_provider="cuda")
    inputs = inputs_of(on_processor)

    pairs = zip(
        on_processor.session.outputs(inputs), on_accelerator.session.outputs(inputs), strict=True
    )
    for one, other in pairs:
        assert np.abs(one - other).max() <= DIFFERENCE_MAX


@pytest.mark.proves("R316")
def test_a_process_serves_from_the_accelerator(tmp_path: Path) -> None:
    binding_hash = artifact().pinned.binding_hash
    rows = requests_of(artifact(), rows_around(artifact(), 512))
    folder = artifact_in(tmp_path)
    with inference(folder, tmp_path / "state", execution_provider="cuda") as stack:
        target = stack.targets["inference"]
        found = {
            answers_digest(target, binding_hash, rows, size=size, callers=callers)
            for size in (1, 64)
            for callers in (1, 16)
        }
        with grpc.insecure_channel(target) as channel:
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            request = inference_service_pb2.DescribeArtifactRequest(binding_hash=binding_hash)
            certificate = stub.DescribeArtifact(request, timeout=10).certificate

    assert len(found) == 1
    assert certificate.execution_provider == "CUDAExecutionProvider"
