"""An alias of a real MLflow tracking server is resolved once, to an artifact and its digest."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib import request

import msgspec
import pytest
from tests.unit.artifacts import artifact_in, contents_of, manifest_of
from typer.testing import CliRunner

from detent.contracts.errors import ArtifactInvalid, InvalidField, ModelNotRegistered
from detent.offline.registry.mlflow_alias import MlflowRegistry
from detent_cli.main import app
from detent_cli.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ".venv-mlflow"
WRITER = Path(__file__).with_name("mlflow_writer.py")
INSTALL_S_MAX = 300
READY_S_MAX = 300
WRONG = "0" * 64


class Server(msgspec.Struct, frozen=True):
    """Holds a running server and the interpreter that has mlflow."""

    url: str
    python: Path

    def put(self, name: str, folder: Path, digest: str = "") -> dict[str, str]:
        found = subprocess.run(
            [self.python, WRITER, self.url, name, str(folder), digest],
            capture_output=True,
            check=True,
            text=True,
            env=_environment(),
        )
        said: dict[str, str] = json.loads(found.stdout.splitlines()[-1])
        return said


def _environment() -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, **quiet, "DO_NOT_TRACK": "true"}


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("make") is None:
        pytest.skip("no `make` to install mlflow with")
    (ROOT / "out").mkdir(exist_ok=True)
    with (ROOT / "out" / "mlflow.lock").open("w") as lock:
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
        pytest.skip(f"mlflow could not be installed into {ENVIRONMENT}: {said}")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    python = ROOT / ENVIRONMENT / "bin" / "python"
    url = f"http://127.0.0.1:{port}"
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.sqlite"]
    arguments += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "mlflow", *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    try:
        _wait(url, process, folder / "server.log")
        yield Server(url, python)
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_s = time.monotonic() + READY_S_MAX
    while time.monotonic() < ends_s and process.poll() is None:
        try:
            with request.urlopen(f"{url}/health", timeout=1.0) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.mark.long
def test_an_alias_becomes_a_verified_artifact_and_its_digest(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    artifact = artifact_in(tmp_path / "source")
    digest = manifest_of().model_version_hash
    put = server.put("momentum", artifact, digest)
    registry = MlflowRegistry(server.url)

    resolved = registry.resolve("momentum", "champion")
    assert (resolved.version, resolved.digest) == (put["version"], digest)
    folder = registry.load(resolved, tmp_path / "loaded")
    assert contents_of(folder) == contents_of(artifact)
    with pytest.raises(ModelNotRegistered):
        registry.resolve("momentum", "nobody")
    with pytest.raises(ModelNotRegistered):
        registry.resolve("unknown", "champion")

    url = f"sqlite:///{tmp_path}/control.sqlite"
    arguments = ["registry", "import-mlflow", "momentum", "--alias", "champion"]
    arguments += ["--tracking", server.url, "--registry", url, "--into", str(tmp_path / "held")]
    arguments += ["--actor", "quant", "--reason", "a test", "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["pointer"]["model_version_hash"] == digest


@pytest.mark.long
def test_a_tag_that_names_another_digest_is_refused(server: Server, tmp_path: Path) -> None:
    server.put("mislabelled", artifact_in(tmp_path), WRONG)
    registry = MlflowRegistry(server.url)

    with pytest.raises(ArtifactInvalid, match=r"detent\.model_version_hash"):
        registry.load(registry.resolve("mislabelled", "champion"), tmp_path / "loaded")


@pytest.mark.long
def test_a_model_that_is_none_of_ours_is_refused(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(b"\x80\x04.")
    server.put("theirs", folder)
    registry = MlflowRegistry(server.url)

    with pytest.raises(ArtifactInvalid, match="expected one"):
        registry.load(registry.resolve("theirs", "champion"), tmp_path / "loaded")


def test_a_server_that_is_away_is_a_typed_error() -> None:
    with pytest.raises(ArtifactInvalid, match="expected an answer of its REST interface"):
        MlflowRegistry("http://127.0.0.1:9").resolve("momentum", "champion")
    with pytest.raises(InvalidField, match="http"):
        MlflowRegistry("ftp://127.0.0.1")
