"""Start the servers that are compared, each on the same core, and say how to ask them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec

from benchmarks.inference import plain_server
from benchmarks.inference.graph import INPUT_NAME, WIDTH, drawn_rows
from benchmarks.inference.load import Target
from benchmarks.inference.peers import PEERS, Launch, Peer
from detent.adapters.artifact_store import Artifact, read_artifact
from detent.api.inference import grpc_service_pb2 as oip
from detent.api.v1 import inference_service_pb2
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import InferenceRow, InferSignalsRequest
from detent.contracts.calls.signal_columns import HASH_BYTES, TS_BYTES, InferenceColumns
from detent.contracts.manifest import MODEL_FILE
from detent.contracts.wire import to_wire
from detent.core.features.model_input import features_hash
from detent_cli.stack import HOST, free_port

ROOT = Path(__file__).resolve().parents[2]
OURS, FACADE = "detent InferSignals", "detent, open inference"
PLAIN = "plain grpcio, 10 threads"
OPEN_SERVICE = "/inference.GRPCInferenceService"
READY_S_MAX = 40.0
READY_EVERY_S = 0.2
STOP_S_MAX = 10.0
SYMBOL = "BENCH"
TS_MS = 1_700_000_000_000
# The budget of a run is not what is measured: sixteen calls of 256 rows wait for one session.
PATIENCE_MS = 10_000


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what runs, and what could not.

    Attributes:
        targets: Whom to ask, in the order of the tables.
        missing: Why a server of the comparison is not there, by its name.
    """

    targets: tuple[Target, ...]
    missing: dict[str, str]


@contextlib.contextmanager
def running(artifact_dir: Path, state_dir: Path, *, core: int) -> Iterator[Servers]:
    """Start everything that serves one artifact's graph, and end it afterwards."""
    state_dir.mkdir(parents=True)
    artifact = read_artifact(artifact_dir)
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(_ours(artifact_dir, state_dir, core))
        plain = stack.enter_context(_plain(artifact_dir, state_dir, core))
        targets = [
            _target(OURS, ours, "/detent.api.v1.InferenceService/InferSignals", artifact),
            _target(FACADE, ours, "/inference.GRPCInferenceService/ModelInfer", artifact),
            _target(PLAIN, plain, f"/{plain_server.SERVICE}/{plain_server.METHOD}", artifact),
        ]
        for peer in PEERS:
            try:
                started = stack.enter_context(_peer(peer, artifact_dir, state_dir, core))
            except NotStartedError as error:
                missing |= dict.fromkeys(peer.models, str(error))
                continue
            path = f"{OPEN_SERVICE}/ModelInfer"
            for name, suffix in peer.models.items():
                targets.append(_target(name, started, path, artifact, suffix=suffix))
        yield Servers(targets=tuple(targets), missing=missing)


class NotStartedError(Exception):
    """A server of the comparison cannot be asked; the message says why."""


class _Started(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    pid: int


def _target(
    name: str, server: _Started, path: str, artifact: Artifact, *, suffix: str = ""
) -> Target:
    def request(rows: int) -> bytes:
        if name == OURS:
            # One row as a decision's caller sends it, many as policy sends them.
            ask = _our_request if rows == 1 else _our_columns
            return ask(artifact, rows)
        if name == PLAIN:
            return bytes(drawn_rows(rows).tobytes())
        return _open_request(artifact, rows, bound=name == FACADE, suffix=suffix)

    answered = {OURS: _our_rows, PLAIN: _plain_rows}.get(name, _open_rows)
    return Target(
        name=name,
        address=server.address,
        path=path,
        pid=server.pid,
        request=request,
        answered=answered,
    )


def _our_request(artifact: Artifact, count: int) -> bytes:
    rows = []
    for index, values in enumerate(drawn_rows(count)):
        symbol, content = f"{SYMBOL}{index}", values.tobytes()
        hashed = features_hash(
            artifact.manifest.feature_version,
            symbol=symbol,
            ts_ms=TS_MS,
            snapshot_hashes=("1" * 64,),
            values=content,
        )
        model_input = ModelInput(
            features_hash=hashed, ts_ms=TS_MS, snapshot_hashes=("1" * 64,), values=content
        )
        rows.append(InferenceRow(symbol=symbol, model_input=model_input))
    query = InferSignalsRequest(binding_hash=artifact.pinned.binding_hash, rows=tuple(rows))
    return bytes(to_wire(query).SerializeToString())


def _our_columns(artifact: Artifact, count: int) -> bytes:
    columns = InferenceColumns(
        symbols=tuple(f"{SYMBOL}{index}" for index in range(count)),
        ts_ms=TS_MS.to_bytes(TS_BYTES, "little", signed=True) * count,
        values=drawn_rows(count).tobytes(),
        # Echoed, and computed again by nobody but policy.
        features_hashes=bytes(HASH_BYTES * count),
    )
    query = InferSignalsRequest(binding_hash=artifact.pinned.binding_hash, columns=columns)
    return bytes(to_wire(query).SerializeToString())


def _open_request(artifact: Artifact, count: int, *, bound: bool, suffix: str) -> bytes:
    request = oip.ModelInferRequest(model_name=artifact.manifest.model_name + suffix)
    request.inputs.add(name=INPUT_NAME, datatype="FP32", shape=(count, WIDTH))
    request.raw_input_contents.append(drawn_rows(count).tobytes())
    if bound:
        request.parameters["binding_hash"].string_param = artifact.pinned.binding_hash
    return request.SerializeToString()


def _our_rows(reply: bytes) -> int:
    response = inference_service_pb2.InferSignalsResponse.FromString(reply)
    if response.HasField("columns"):
        answered = len(response.columns.features_hashes) // HASH_BYTES
        return answered - sum(bool(reason) for reason in response.columns.refusals)
    return sum(row.HasField("signal") for row in response.rows)


def _open_rows(reply: bytes) -> int:
    response = oip.ModelInferResponse.FromString(reply)
    return int(response.outputs[0].shape[0])


def _plain_rows(reply: bytes) -> int:
    return len(reply) // 4


@contextlib.contextmanager
def _ours(artifact_dir: Path, state_dir: Path, core: int) -> Iterator[_Started]:
    address = f"{HOST}:{free_port()}"
    environment = {
        "DETENT_INFERENCE_LISTEN": address,
        "DETENT_INFERENCE_ARTIFACT_DIR": str(artifact_dir),
        "DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS": str(PATIENCE_MS),
    }
    command = [sys.executable, "-m", "detent.servers.inference.main"]
    with _process(command, state_dir / "detent.log", core, environment) as pid:
        yield _ready(address, pid)


@contextlib.contextmanager
def _plain(artifact_dir: Path, state_dir: Path, core: int) -> Iterator[_Started]:
    port = free_port()
    command = [sys.executable, "-m", plain_server.__name__, str(port)]
    command.append(str(artifact_dir / MODEL_FILE))
    with _process(command, state_dir / "plain.log", core, {}) as pid:
        yield _ready(f"{HOST}:{port}", pid)


@contextlib.contextmanager
def _peer(peer: Peer, artifact_dir: Path, state_dir: Path, core: int) -> Iterator[_Started]:
    if not peer.python.exists():
        raise NotStartedError(peer.how_to_install)
    folder = state_dir / peer.environment
    folder.mkdir()
    launch = Launch(
        python=peer.python,
        model_name=read_artifact(artifact_dir).manifest.model_name,
        model_file=artifact_dir / MODEL_FILE,
        port=free_port(),
        folder=folder,
    )
    log_file = state_dir / f"{peer.environment}.log"
    with _process(peer.command(launch), log_file, core, peer.variables) as pid:
        address = f"{HOST}:{launch.port}"
        for suffix in peer.models.values():
            if not _model_ready(address, launch.model_name + suffix, pid):
                raise NotStartedError(f"did not start: see {state_dir.name}/{log_file.name}")
        yield _Started(address=address, pid=pid)


@contextlib.contextmanager
def _process(
    command: list[str], log_file: Path, core: int, environment: dict[str, str]
) -> Iterator[int]:
    """Run a server on one core; its log lies beside the artifacts."""
    pinned = [sys.executable, str(Path(__file__).with_name("pinned.py")), str(core)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  The servers of this benchmark.
            [*pinned, *command],
            cwd=ROOT,
            env=os.environ | {"GRPC_VERBOSITY": "ERROR"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(address: str, pid: int) -> _Started:
    """Wait until a server takes connections."""
    ends_s = time.monotonic() + READY_S_MAX
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=ends_s - time.monotonic())
    return _Started(address=address, pid=pid)


def _model_ready(address: str, model_name: str, pid: int) -> bool:
    """Wait until a server says that a model is ready, or has ended, or took too long."""
    asked = oip.ModelReadyRequest(name=model_name).SerializeToString()
    ends_s = time.monotonic() + READY_S_MAX
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with grpc.insecure_channel(address) as channel:
        ask: Any = channel.unary_unary(f"{OPEN_SERVICE}/ModelReady")
        while time.monotonic() < ends_s and os.waitid(os.P_PID, pid, ended) is None:
            with contextlib.suppress(grpc.RpcError):
                if oip.ModelReadyResponse.FromString(ask(asked, timeout=1.0)).ready:
                    return True
            time.sleep(READY_EVERY_S)
    return False
