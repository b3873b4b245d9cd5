"""Artifacts on disk: written once and whole, read once, and nothing else beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.artifacts import artifact, artifact_in, contents_of, other_artifact_in, repinned

from detent.adapters.artifact_store import (
    ARTIFACT_FILES,
    BYTES_MAX,
    read_artifact,
    read_manifest_folder,
    read_pinned_manifest,
    verify_artifact,
    write_artifact,
)
from detent.contracts.calibration import CalibrationMethod, CalibrationSpec, calibration_bytes
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import LISTED_FILES, binding_of
from detent.contracts.reasons import Reason


@pytest.mark.proves("R52", "R59", "R144")
def test_artifact_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = artifact_in(tmp_path)
    found = read_artifact(path)

    assert {file.name for file in path.iterdir()} == set(ARTIFACT_FILES)
    assert found == artifact()
    assert found.model == (path / "model.onnx").read_bytes()
    assert found.pinned.binding == binding_of(found.manifest)
    assert found.manifest.model_version_hash == sha256_hex((path / "manifest.json").read_bytes())


@pytest.mark.proves("R52", "R59")
@pytest.mark.parametrize(
    "name", ["notes.txt", "scaler.joblib", "model.pkl", "weights.pt", "MODEL.ONNX", ".hidden"]
)
def test_artifact_with_a_file_too_many_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    path = artifact_in(tmp_path)
    (path / name).write_bytes(b"x")

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path)

    assert caught.value.metadata["file"] == name
    assert caught.value.gate_reason is Reason.MANIFEST_INVALID


@pytest.mark.proves("R59", "R140")
@pytest.mark.parametrize("name", ARTIFACT_FILES)
def test_artifact_without_a_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    path = artifact_in(tmp_path)
    (path / name).unlink()

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path)

    assert caught.value.metadata["file"] == name
    is_calibration = name == "calibration.json"
    assert caught.value.gate_reason is (
        Reason.CALIBRATION_MISSING if is_calibration else Reason.MANIFEST_INVALID
    )


def _symlink(file: Path) -> None:
    target = file.parent.parent / "elsewhere"
    target.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(target)


def _hard_link(file: Path) -> None:
    os.link(file, file.parent.parent / "second-name")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [_symlink, _hard_link, _pipe, _directory, _device])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_artifact_file_that_is_no_plain_file_is_refused(
    tmp_path: Path, name: str, replace: Callable[[Path], None]
) -> None:
    path = artifact_in(tmp_path)
    replace(path / name)

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path)

    assert caught.value.metadata["file"] == name


def test_artifact_folder_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    path = artifact_in(tmp_path / "real")
    link = tmp_path / path.name
    link.symlink_to(path)

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(link)

    assert caught.value.gate_reason is Reason.ARTIFACT_DIR_MISSING


def test_artifact_that_is_not_there_is_refused_with_its_own_reason(tmp_path: Path) -> None:
    for path in (tmp_path / "model_v1.0.0", Path("/dev/null/model_v1.0.0")):
        with pytest.raises(ArtifactInvalid) as caught:
            read_artifact(path)
        assert caught.value.gate_reason is Reason.ARTIFACT_DIR_MISSING


@pytest.mark.proves("R57")
@pytest.mark.parametrize("name", ["momentum_direction_v1.2.4", "other_v1.2.3", "momentum", "v1"])
def test_artifact_under_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path = artifact_in(tmp_path)
    path.rename(tmp_path / name)

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(tmp_path / name)

    assert caught.value.metadata["found"] == name


@pytest.mark.parametrize("name", ARTIFACT_FILES)
def test_artifact_file_beyond_its_limit_is_refused(tmp_path: Path, name: str) -> None:
    path = artifact_in(tmp_path)
    with (path / name).open("r+b") as file:
        file.truncate(BYTES_MAX[name] + 1)

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path)

    assert str(BYTES_MAX[name]) in caught.value.message


@pytest.mark.proves("R55")
def test_artifact_files_are_opened_once_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were checked and bytes that are loaded must be the same bytes."""
    path = artifact_in(tmp_path)
    opened: list[str] = []
    real_open = os.open

    def counted(file: str | Path, flags: int, **options: int) -> int:
        opened.append(Path(file).name)
        return real_open(file, flags, **options)

    monkeypatch.setattr(os, "open", counted)
    found = read_artifact(path)
    monkeypatch.undo()
    swapped = path / "model.onnx"
    swapped.write_bytes(b"swapped after the check")

    assert sorted(opened) == sorted([path.name, *ARTIFACT_FILES])
    assert found.model == artifact().model


def test_manifest_folder_gives_sound_artifacts_and_names_the_others(tmp_path: Path) -> None:
    """One unsound artifact must not take the others with it."""
    sound, broken = artifact_in(tmp_path), other_artifact_in(tmp_path)
    (broken / "feature_set.json").write_bytes(b"{}")
    (tmp_path / "report.html").write_text("beside, not inside")
    (tmp_path / ".being_written_v1.0.0.partial-1").mkdir()
    (tmp_path / "no-artifact").mkdir()
    folder = read_manifest_folder(tmp_path)

    assert set(folder.accepted) == {read_pinned_manifest(sound).binding_hash}
    assert set(folder.refused) == {broken.name, "no-artifact"}
    assert folder.refused[broken.name].metadata["file"] == "feature_set.json"


def test_manifest_folder_derives_the_same_binding_as_the_whole_artifact(tmp_path: Path) -> None:
    """Services that never load the model accept the same hash as the one that does."""
    path = artifact_in(tmp_path)

    assert read_pinned_manifest(path) == read_artifact(path).pinned
    assert list(read_manifest_folder(tmp_path).accepted) == [artifact().pinned.binding_hash]


def test_manifest_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        read_manifest_folder(tmp_path / "none")

    assert caught.value.gate_reason is Reason.ARTIFACT_DIR_MISSING


@pytest.mark.proves("R65")
def test_artifact_is_never_overwritten(tmp_path: Path) -> None:
    path = artifact_in(tmp_path)
    contents = contents_of(path)

    with pytest.raises(ArtifactInvalid, match="never changes"):
        write_artifact(tmp_path, artifact().manifest, contents)

    assert contents_of(path) == contents


def test_artifact_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = contents_of(artifact_in(tmp_path / "source"))
    out = tmp_path / "out"

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        write_artifact(out, artifact().manifest, contents)
    monkeypatch.undo()

    assert list(out.iterdir()) == []
    written = write_artifact(out, artifact().manifest, contents)
    assert contents_of(written) == contents
    assert [path.name for path in out.iterdir()] == [artifact().manifest.model_id]


def test_artifact_that_would_be_refused_is_not_written(tmp_path: Path) -> None:
    contents = dict.fromkeys(LISTED_FILES, b"{}")

    with pytest.raises(ArtifactInvalid):
        write_artifact(tmp_path, artifact().manifest, contents)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.proves("R25")
def test_artifact_other_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    path = artifact_in(tmp_path)
    mine = artifact().manifest.model_version_hash

    assert read_artifact(path, model_version_hash=mine) == artifact()
    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path, model_version_hash="0" * 64)
    assert caught.value.metadata == caught.value.metadata | {"found": mine, "expected": "0" * 64}


@pytest.mark.proves("R140", "R206")
def test_artifact_that_was_never_calibrated_is_refused(tmp_path: Path) -> None:
    """An identity map with a sound manifest all around it is still no calibration."""
    contents = contents_of(artifact_in(tmp_path))
    spec = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)
    contents = repinned(contents, "calibration.json", calibration_bytes(spec))
    manifest = contents["manifest.json"].replace(b'_method":"platt"', b'_method":"identity"')

    with pytest.raises(ArtifactInvalid, match="a calibrator") as caught:
        verify_artifact(artifact().manifest.model_id, {**contents, "manifest.json": manifest})

    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


def _swap_features(contents: dict[str, bytes]) -> dict[str, bytes]:
    first, second = artifact().manifest.input_features[:2]
    ordered = f'"{first}","{second}"'.encode()
    swapped = f'"{second}","{first}"'.encode()
    assert ordered in contents["manifest.json"]
    return {**contents, "manifest.json": contents["manifest.json"].replace(ordered, swapped)}


def _swap_feature_set(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Permute the features themselves; the file is pinned anew, the version is the old one."""
    fields = json.loads(contents["feature_set.json"])
    fields["features"].reverse()
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return _with_version_kept(contents, "feature_set.json", text, field="feature_version")


def _other_interval(contents: dict[str, bytes]) -> dict[str, bytes]:
    text = contents["manifest.json"].replace(b'interval_ms":3600000', b'interval_ms":900000')
    return {**contents, "manifest.json": text}


def _other_feature_set(contents: dict[str, bytes]) -> dict[str, bytes]:
    text = contents["feature_set.json"].replace(b'"atr_period":14', b'"atr_period":13')
    return _with_version_kept(contents, "feature_set.json", text, field="feature_version")


def _other_calibration(contents: dict[str, bytes]) -> dict[str, bytes]:
    text = contents["calibration.json"].replace(b'"a":"-', b'"a":"-1')
    return _with_version_kept(contents, "calibration.json", text, field="calibration_version")


def _with_version_kept(
    contents: dict[str, bytes], name: str, text: bytes, *, field: str
) -> dict[str, bytes]:
    """Make the file's own entry right again, and leave the version that the binding names."""
    changed = repinned(contents, name, text)
    manifest = changed["manifest.json"].replace(
        f'"{field}":"{sha256_hex(text)}"'.encode(),
        f'"{field}":"{sha256_hex(contents[name])}"'.encode(),
    )
    assert manifest != changed["manifest.json"]
    return {**changed, "manifest.json": manifest}


def _narrow_golden(contents: dict[str, bytes]) -> dict[str, bytes]:
    text = (
        b'{"rows":[{"direction":{"p_hat_bps":1,"p_hat_raw_bps":1},"values":"00000000"}],'
        b'"schema":"detent.golden.v1"}'
    )
    return repinned(contents, "golden.json", text)


def _float_in_report(contents: dict[str, bytes]) -> dict[str, bytes]:
    return repinned(contents, "train_report.json", b'{"accuracy":0.5}')


def _endless_number(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {**contents, "manifest.json": b'{"a":' + b"9" * 5_000 + b"}"}


@pytest.mark.proves("R34")
@pytest.mark.parametrize(
    "damage",
    [
        _swap_features,
        _swap_feature_set,
        _other_interval,
        _other_feature_set,
        _other_calibration,
        _narrow_golden,
        _float_in_report,
        _endless_number,
    ],
)
def test_artifact_that_contradicts_itself_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    """Each file is what its entry says; together they are not one artifact."""
    contents = contents_of(artifact_in(tmp_path))
    name = artifact().manifest.model_id
    verify_artifact(name, contents)

    with pytest.raises(ArtifactInvalid):
        verify_artifact(name, damage(contents))
