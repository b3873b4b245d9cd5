"""The published client of the Open Inference Protocol works against a real process, unchanged."""

from __future__ import annotations

import base64
import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from opentelemetry.context import Context
from tests.conftest import Artifacts
from tests.fakes import remote

from detent.adapters.artifact_store import Artifact, read_artifact
from detent.api.inference import grpc_service_pb2 as pb
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.core.features.model_input import features_hash
from detent_cli.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ".venv-tritonclient"
CALLER = Path(__file__).with_name("triton_caller.py")
INSTALL_S_MAX = 120
TS_MS = 1_700_000_000_000
SYMBOL = "BTCUSDT"
# Of the published file; ours adds what another server of the protocol publishes.
ADDED = {"parameters"}


@pytest.fixture(name="python", scope="session")
def _python() -> Path:
    """Give the interpreter beside which the client is installed; whoever is first installs it."""
    if shutil.which("make") is None:
        pytest.skip("no `make` to install tritonclient with")
    (ROOT / "out").mkdir(exist_ok=True)
    with (ROOT / "out" / "tritonclient.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = subprocess.run(
            ["make", f"{ENVIRONMENT}/.installed"],
            capture_output=True,
            check=False,
            cwd=ROOT,
            text=True,
            timeout=INSTALL_S_MAX,
        )
    if installed.returncode != 0:
        said = installed.stderr.strip().splitlines()[:1]
        pytest.skip(f"tritonclient could not be installed into {ENVIRONMENT}: {said}")
    return ROOT / ENVIRONMENT / "bin" / "python"


@pytest.fixture(name="artifact", scope="session")
def _artifact(artifacts: Artifacts) -> Artifact:
    return read_artifact(artifacts.stable)


@pytest.fixture(name="report")
def _report(python: Path, stack: Stack, artifact: Artifact) -> Any:
    """Let the client ask the running inference process everything."""
    rows = b"".join(row.values for row in artifact.golden.rows)
    manifest = artifact.manifest
    question = {
        "target": stack.targets["inference"],
        "name": manifest.model_name,
        "version": manifest.model_version,
        "binding_hash": artifact.pinned.binding_hash,
        "input": manifest.input_name,
        "width": len(manifest.input_features),
        "rows": base64.b64encode(rows).decode("ascii"),
    }
    asked = subprocess.run(
        [python, CALLER],
        capture_output=True,
        check=False,
        input=json.dumps(question),
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


async def _ours(stack: Stack, artifact: Artifact) -> InferSignalsResponse:
    """Ask the same process for the same rows by our own call."""
    rows: list[InferenceRow] = []
    for row in artifact.golden.rows:
        given: Any = {"ts_ms": TS_MS, "snapshot_hashes": ("1" * 64,), "values": row.values}
        hashed = features_hash(artifact.manifest.feature_version, symbol=SYMBOL, **given)
        model_input = ModelInput(features_hash=hashed, **given)
        rows.append(InferenceRow(symbol=SYMBOL, model_input=model_input))
    query = InferSignalsRequest(binding_hash=artifact.pinned.binding_hash, rows=tuple(rows))
    async with remote(stack.targets["inference"], "InferenceService") as service:
        return await service.call(query, InferSignalsResponse, timeout_s=5.0, trace=Context())


async def test_published_client_reads_metadata_and_infers(
    report: Any, stack: Stack, artifact: Artifact
) -> None:
    manifest = artifact.manifest
    width = len(manifest.input_features)
    ours = [row.signal.direction for row in (await _ours(stack, artifact)).rows if row.signal]
    p_hat_bps = [[signal.p_hat_bps] for signal in ours if signal]

    assert (report["live"], report["ready"], report["model_ready"]) == (True, True, True)
    assert report["other_ready"] is False
    assert report["server"]["name"] == "detent"
    assert report["model"]["versions"] == [manifest.model_version]
    assert report["model"]["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": ["-1", str(width)]}
    ]
    assert [output["name"] for output in report["model"]["outputs"]] == [
        "p_hat_raw_bps",
        "p_hat_bps",
    ]
    answer = report["answer"]
    assert (answer["id"], answer["version"]) == ("7", manifest.model_version)
    assert answer["parameters"]["binding_hash"] == artifact.pinned.binding_hash
    assert answer["dtypes"] == ["int32", "int32"]
    assert len(p_hat_bps) == len(artifact.golden.rows)
    assert answer["outputs"] == {
        "p_hat_raw_bps": [[signal.p_hat_raw_bps] for signal in ours if signal],
        "p_hat_bps": p_hat_bps,
    }
    assert report["versioned"]["outputs"] == {"p_hat_bps": p_hat_bps}
    assert report["asynchronous"]["outputs"] == answer["outputs"]


def test_published_client_is_refused_without_the_binding(report: Any, artifact: Artifact) -> None:
    for name, found in (("unbound", "(missing)"), ("misbound", "0" * 64)):
        refused = report[name]
        assert refused["status"] == f"StatusCode.{grpc.StatusCode.FAILED_PRECONDITION.name}"
        assert found in refused["message"]
        assert artifact.pinned.binding_hash in refused["message"]


def test_published_client_can_load_and_unload_nothing(report: Any) -> None:
    refusals = {report["load"], report["unload"], report["index"]}

    assert refusals == {"StatusCode.UNIMPLEMENTED"}


def test_our_fields_are_those_of_the_published_client(report: Any) -> None:
    """Numbers, names, types and labels, read off the client's own descriptors."""

    def fields_of(message: Descriptor) -> dict[str, list[list[Any]]]:
        rows = {field.number: field for field in message.fields}
        found = {
            message.full_name: [
                [number, field.name, field.type, 3 if field.is_repeated else 1]
                for number, field in sorted(rows.items())
            ]
        }
        for nested in message.nested_types:
            if not nested.GetOptions().map_entry:
                found |= fields_of(nested)
        return found

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for name, fields in fields_of(message).items():
            published = report["fields"][name]
            added = [field for field in fields if field not in published]

            assert [field for field in published if field not in fields] == []
            assert {field[1] for field in added} <= ADDED
            assert added == [] or name.startswith("inference.ModelMetadataResponse")


def test_example_of_the_document_runs(python: Path, stack: Stack, artifact: Artifact) -> None:
    document = (ROOT / "docs" / "open_inference.md").read_text(encoding="utf-8")
    code = document.split("```python\n")[1].split("```")[0]
    told = {
        '"direction"': f'"{artifact.manifest.model_name}"',
        '"..."': f'"{artifact.pinned.binding_hash}"',
        "127.0.0.1:7302": stack.targets["inference"],
    }
    for written, ours in told.items():
        assert written in code
        code = code.replace(written, ours)
    ran = subprocess.run([python, "-c", code], capture_output=True, check=False, text=True)

    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"\d+", ran.stdout)) == 2
