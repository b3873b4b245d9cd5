"""The same rows, however they are asked, give the same bytes: promise P6 over the wire."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from tests.inference_process import answers_digest, inference, requests_of, rows_around
from tests.unit.artifacts import artifact, artifact_in

from detent.api.v1 import inference_service_pb2, inference_service_pb2_grpc
from detent.rpc.probe import is_serving

SERVICE = "detent.api.v1.InferenceService"
COUNTS = [
    pytest.param(500, id="500 rows"),
    pytest.param(100_000, id="100,000 rows", marks=pytest.mark.long),
]


@pytest.mark.proves("R31", "R42", "R44")
@pytest.mark.parametrize("count", COUNTS)
def test_the_same_rows_give_the_same_bytes_however_they_are_asked(
    tmp_path: Path, count: int
) -> None:
    """Alone and in batches, from one caller and many, after a restart, with many threads."""
    folder = artifact_in(tmp_path)
    binding_hash = artifact().pinned.binding_hash
    rows = requests_of(artifact(), rows_around(artifact(), count))
    digests = {}
    for start in ("first start", "restart"):
        with inference(folder, tmp_path / start) as stack:
            for size in (1, 7, 64, 1_000):
                for callers in (1, 16):
                    how = f"{start}, batches of {size}, {callers} callers"
                    digests[how] = answers_digest(
                        stack.targets["inference"], binding_hash, rows, size=size, callers=callers
                    )
    with inference(folder, tmp_path / "threads", threads=16) as stack:
        # Either the certificate shows that threads do no harm, or nothing is served.
        if is_serving(stack.targets["inference"], SERVICE):
            digests["16 threads"] = answers_digest(
                stack.targets["inference"], binding_hash, rows, size=64, callers=16
            )

    first, refused = digests["first start, batches of 1, 1 callers"]
    assert refused == 0
    assert {how: found for how, found in digests.items() if found != (first, 0)} == {}


def test_a_digest_tells_one_changed_value(tmp_path: Path) -> None:
    """The control: the comparison above would see a single row that differs."""
    folder, binding_hash = artifact_in(tmp_path), artifact().pinned.binding_hash
    values = rows_around(artifact(), 64)
    other = [*values[:-1], values[0]]
    with inference(folder, tmp_path / "state") as stack:
        found = [
            answers_digest(
                stack.targets["inference"],
                binding_hash,
                requests_of(artifact(), given),
                size=64,
                callers=1,
            )[0]
            for given in (values, other)
        ]

    assert found[0] != found[1]


@pytest.mark.proves("R36", "R316")
def test_the_certificate_is_served_and_the_same_after_a_restart(tmp_path: Path) -> None:
    folder, binding_hash = artifact_in(tmp_path), artifact().pinned.binding_hash
    certificates = []
    for start in ("first", "second"):
        with (
            inference(folder, tmp_path / start) as stack,
            grpc.insecure_channel(stack.targets["inference"]) as channel,
        ):
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            request = inference_service_pb2.DescribeArtifactRequest(binding_hash=binding_hash)
            certificates.append(stub.DescribeArtifact(request, timeout=10).certificate)

    assert certificates[0] == certificates[1]
    assert certificates[0].model_hash == artifact().manifest.model_hash
    assert certificates[0].execution_provider == "CPUExecutionProvider"
    assert certificates[0].runtime.startswith("onnxruntime 1.")
    assert certificates[0].threads == 1
    assert certificates[0].batch_shapes[0] in {1, 16}
    assert certificates[0].golden_row_count == len(artifact().golden.rows)


def test_a_reload_beside_the_session_disturbs_no_call(tmp_path: Path) -> None:
    """Reloaded again and again under calls: none fails, and all answers are the same bytes."""
    folder, binding_hash = artifact_in(tmp_path), artifact().pinned.binding_hash
    rows = requests_of(artifact(), rows_around(artifact(), 256))
    found: list[tuple[str, int]] = []
    done = threading.Event()
    with inference(folder, tmp_path / "state") as stack:
        target = stack.targets["inference"]

        def ask() -> None:
            while not done.is_set():
                found.append(answers_digest(target, binding_hash, rows, size=16, callers=4))

        asking = threading.Thread(target=ask)
        asking.start()
        log = tmp_path / "state" / "inference.log"
        for reload in range(1, 4):
            os.kill(stack.pid("inference"), signal.SIGHUP)
            deadline_s = time.monotonic() + 30
            while log.read_text().count("CERTIFICATE_ISSUED") <= reload:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        done.set()
        asking.join()

    assert len(found) > 3
    assert len(set(found)) == 1
    assert found[0][1] == 0


def test_a_reload_of_a_damaged_artifact_changes_nothing(tmp_path: Path) -> None:
    folder, binding_hash = artifact_in(tmp_path), artifact().pinned.binding_hash
    rows = requests_of(artifact(), rows_around(artifact(), 16))
    with inference(folder, tmp_path / "state") as stack:
        target = stack.targets["inference"]
        before = answers_digest(target, binding_hash, rows, size=16, callers=1)
        (folder / "model.onnx").write_bytes(b"nothing")
        os.kill(stack.pid("inference"), signal.SIGHUP)
        deadline_s = time.monotonic() + 30
        while "ARTIFACT_REFUSED" not in (tmp_path / "state" / "inference.log").read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

        assert answers_digest(target, binding_hash, rows, size=16, callers=1) == before
        assert is_serving(target, SERVICE)
