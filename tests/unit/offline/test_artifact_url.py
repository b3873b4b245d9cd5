"""Artifacts at any URL: verified here, written once, and never believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from tests.unit.artifacts import artifact_in, contents_of, manifest_of, other_artifact_in

from detent.adapters.artifact_store import read_artifact
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.reasons import Reason
from detent.offline.registry.artifact_url import (
    load_artifact,
    read_artifact_at,
    store_artifact,
    url_of,
)

STORE = "memory://models"


@pytest.fixture(name="memory")
def _memory() -> Iterator[fsspec.AbstractFileSystem]:
    """Give a store that is empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture(name="url")
def _url(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> str:
    (tmp_path / "source").mkdir()
    return store_artifact(url_of(str(artifact_in(tmp_path / "source"))), STORE)


@pytest.mark.proves("R127")
def test_a_stored_artifact_loads_to_the_same_bytes(url: str, tmp_path: Path) -> None:
    digest = manifest_of().model_version_hash
    folder = load_artifact(url, tmp_path / "served", model_version_hash=digest)

    assert url == f"{STORE}/{folder.name}"
    assert contents_of(folder) == contents_of(artifact_in(tmp_path))
    assert read_artifact(folder, model_version_hash=digest).manifest == manifest_of()
    assert load_artifact(url, tmp_path / "served", model_version_hash=digest) == folder


@pytest.mark.proves("R127")
@pytest.mark.parametrize("name", ["model.onnx", "calibration.json", "manifest.json"])
def test_a_flipped_byte_anywhere_is_refused_on_load(
    memory: fsspec.AbstractFileSystem, url: str, tmp_path: Path, name: str
) -> None:
    path = f"{url.removeprefix('memory:/')}/{name}"
    content = bytearray(memory.cat_file(path))
    content[len(content) // 2] ^= 1
    memory.pipe_file(path, bytes(content))

    with pytest.raises(ArtifactInvalid):
        load_artifact(url, tmp_path / "served", model_version_hash=manifest_of().model_version_hash)
    assert not (tmp_path / "served").exists()


@pytest.mark.proves("R127")
@pytest.mark.parametrize("name", ["model.pkl", "scaler.joblib"])
def test_what_runs_code_is_refused_by_name(
    memory: fsspec.AbstractFileSystem, url: str, name: str
) -> None:
    memory.pipe_file(f"{url.removeprefix('memory:/')}/{name}", b"\x80\x04.")

    with pytest.raises(ArtifactInvalid, match="runs code when it is read"):
        read_artifact_at(url)


def test_another_digest_than_the_registered_one_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="model_version_hash"):
        load_artifact(url, tmp_path / "served", model_version_hash="0" * 64)
    with pytest.raises(ArtifactInvalid):
        read_artifact_at(url_of(str(artifact_in(tmp_path))), model_version_hash="0" * 64)


def test_a_copy_that_was_changed_is_not_served(url: str, tmp_path: Path) -> None:
    digest = manifest_of().model_version_hash
    folder = load_artifact(url, tmp_path / "served", model_version_hash=digest)
    (folder / "model.onnx").write_bytes(b"another")

    with pytest.raises(ArtifactInvalid):
        load_artifact(url, tmp_path / "served", model_version_hash=digest)


def test_a_store_keeps_what_it_has(
    memory: fsspec.AbstractFileSystem, url: str, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    source = url_of(str(artifact_in(tmp_path / "again")))
    assert store_artifact(source, STORE) == url
    (tmp_path / "other").mkdir()
    other = store_artifact(url_of(str(other_artifact_in(tmp_path / "other"))), STORE)
    assert other != url

    path = f"{url.removeprefix('memory:/')}/train_report.json"
    memory.pipe_file(path, b"{}")
    with pytest.raises(ArtifactInvalid):
        store_artifact(source, STORE)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("memory://models/absent_v1.0.0", ArtifactInvalid, id="absent"),
        pytest.param("nowhere://models/absent_v1.0.0", InvalidField, id="unknown-protocol"),
        pytest.param("memory://models", InvalidField, id="no-folder-of-an-artifact"),
    ],
)
def test_a_place_without_an_artifact_is_a_typed_error(
    memory: fsspec.AbstractFileSystem, url: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        read_artifact_at(url)
    if isinstance(refused.value, ArtifactInvalid):
        assert refused.value.gate_reason is Reason.ARTIFACT_DIR_MISSING
