"""Read and write artifacts: directories whose every byte is pinned by their manifest.

Reading opens each file once, hashes the bytes that it got, and hands on those same bytes;
nothing is opened again later, so what is served is what was checked.

Source: seed 003, section 12.4; decisions D2 and D14.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from detent.adapters.artifact_signature import (
    SIGNATURE_BYTES_MAX,
    SIGNATURE_FILE,
    UNSIGNED_ALLOWED,
    SignatureTrust,
    verify_signature,
)
from detent.contracts.binding import ModelBinding
from detent.contracts.calibration import Calibration, parse_calibration
from detent.contracts.canonical import parse_json, sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    LISTED_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    MODEL_ID_FORM,
    TRAIN_REPORT_FILE,
    GoldenSet,
    Manifest,
    ManifestFile,
    binding_of,
    is_model_id,
    manifest_bytes,
    parse_golden,
    parse_manifest,
)
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet, parse_feature_set
from detent.core.signals.heads import head_map

T = TypeVar("T")

ARTIFACT_FILES = (MANIFEST_FILE, *LISTED_FILES)
BYTES_MAX = {
    MANIFEST_FILE: 4 * 2**20,
    MODEL_FILE: 256 * 2**20,
    CALIBRATION_FILE: 64 * 2**10,
    FEATURE_SET_FILE: 4 * 2**20,
    GOLDEN_FILE: 64 * 2**20,
    TRAIN_REPORT_FILE: 4 * 2**20,
    SIGNATURE_FILE: SIGNATURE_BYTES_MAX,
}
# Formats that run code when they are read; named in the error, because somebody will try.
PICKLE_SUFFIXES = (
    ".pkl",
    ".pickle",
    ".cloudpickle",
    ".dill",
    ".joblib",
    ".pt",
    ".pth",
    ".ckpt",
    ".npy",
    ".npz",
    ".skops",
)
PICKLE_ADVICE = (
    "only JSON and ONNX; a scaler belongs into the graph: fit make_pipeline(scaler, model) and"
    " export the whole pipeline with skl2onnx.to_onnx, zipmap off"
)
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, because opening a pipe that nobody writes to would wait for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PinnedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what services that do not infer need of an artifact.

    Attributes:
        manifest: The verified manifest.
        feature_set: The verified feature set.
        binding: The one binding that the manifest allows.
        binding_hash: Its hash, 64 hex.
        signer: Who signed it, as `verify_signature` names them; None where none was asked for.
    """

    manifest: Manifest
    feature_set: FeatureSet
    binding: ModelBinding
    binding_hash: str
    signer: str | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a verified artifact, as bytes that are not read again.

    Attributes:
        pinned: Manifest, feature set and binding.
        model: Content of `model.onnx`.
        calibration: The calibrator.
        golden: The rows that a session must reproduce.
        train_report: Content of `train_report.json`.
    """

    pinned: PinnedManifest
    model: bytes
    calibration: Calibration
    golden: GoldenSet
    train_report: bytes

    @property
    def manifest(self) -> Manifest:
        """Give the manifest."""
        return self.pinned.manifest


class ManifestFolder(msgspec.Struct, frozen=True, kw_only=True):
    """Holds every artifact of a folder: the sound ones by binding hash, the others by name."""

    accepted: Mapping[str, PinnedManifest]
    refused: Mapping[str, ArtifactInvalid]


def read_artifact(
    path: Path,
    *,
    model_version_hash: str | None = None,
    trust: SignatureTrust = UNSIGNED_ALLOWED,
) -> Artifact:
    """Read and verify one artifact.

    Args:
        path: The artifact's directory.
        model_version_hash: The only manifest hash that is accepted, 64 hex; None accepts
            any manifest that verifies.
        trust: Whose signature it needs, if any.

    Raises:
        ArtifactInvalid: Something is missing, surplus, too large, not what the manifest
            says, or not the artifact that is pinned.
    """
    contents = _read_files(path, (*ARTIFACT_FILES, SIGNATURE_FILE))
    artifact = verify_artifact(path.name, contents, trust=trust)
    found = artifact.manifest.model_version_hash
    if model_version_hash is not None and found != model_version_hash:
        raise _invalid("model_version_hash", found, model_version_hash)
    return artifact


def read_pinned_manifest(path: Path, *, trust: SignatureTrust = UNSIGNED_ALLOWED) -> PinnedManifest:
    """Read and verify an artifact's manifest and feature set, and that no file is amiss.

    Raises:
        ArtifactInvalid: As for `read_artifact`, for these two files and the listing.
    """
    contents = _read_files(path, (MANIFEST_FILE, FEATURE_SET_FILE, SIGNATURE_FILE))
    return _pin(path.name, contents, trust)


def read_manifest_folder(path: Path, *, trust: SignatureTrust = UNSIGNED_ALLOWED) -> ManifestFolder:
    """Read every artifact of a folder; one that is unsound does not hide the others.

    Raises:
        ArtifactInvalid: The folder itself is missing or cannot be read.
    """
    accepted: dict[str, PinnedManifest] = {}
    refused: dict[str, ArtifactInvalid] = {}
    try:
        names = sorted(entry.name for entry in os.scandir(path) if _is_candidate(entry))
    except OSError as error:
        raise _missing(path, error) from error
    for name in names:
        try:
            pinned = read_pinned_manifest(path / name, trust=trust)
        except ArtifactInvalid as error:
            refused[name] = error
        else:
            accepted[pinned.binding_hash] = pinned
    return ManifestFolder(accepted=accepted, refused=refused)


def verify_artifact(
    name: str, contents: Mapping[str, bytes], *, trust: SignatureTrust = UNSIGNED_ALLOWED
) -> Artifact:
    """Verify an artifact that is in memory.

    Args:
        name: Name of its directory.
        contents: Content of each of `ARTIFACT_FILES`, and of the signature if there is one.
        trust: Whose signature it needs, if any.

    Raises:
        ArtifactInvalid: The contents contradict the manifest or one another.
    """
    pinned = _pin(name, contents, trust)
    manifest = pinned.manifest
    # (1) Every byte is what the manifest pins; nothing is parsed before that.
    for path in LISTED_FILES:
        _check_content(manifest.file(path), contents[path])
    # (2) The calibrator is the one that the binding names, and calibrates.
    calibration = _parse(CALIBRATION_FILE, parse_calibration, contents, Reason.CALIBRATION_MISSING)
    _check_calibration(manifest, calibration)
    # (3) The golden rows fit the feature set.
    golden = _parse(GOLDEN_FILE, parse_golden, contents, Reason.MANIFEST_INVALID)
    if golden.rows[0].head is not manifest.head:
        raise _invalid(GOLDEN_FILE, f"answers of {golden.rows[0].head}", str(manifest.head))
    width = 4 * len(manifest.input_features)
    if len(golden.rows[0].values) != width:
        raise _invalid(GOLDEN_FILE, f"rows of {len(golden.rows[0].values)} bytes", f"{width} bytes")
    _parse(TRAIN_REPORT_FILE, _parse_report, contents, Reason.MANIFEST_INVALID)
    return Artifact(
        pinned=pinned,
        model=contents[MODEL_FILE],
        calibration=calibration,
        golden=golden,
        train_report=contents[TRAIN_REPORT_FILE],
    )


def list_files(contents: Mapping[str, bytes]) -> tuple[ManifestFile, ...]:
    """Give the manifest's entries for the content of `LISTED_FILES`."""
    return tuple(
        ManifestFile(path=path, sha256=sha256_hex(contents[path]), size_bytes=len(contents[path]))
        for path in LISTED_FILES
    )


def write_artifact(parent: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Path:
    """Write an artifact once, whole or not at all.

    Args:
        parent: Folder of artifacts; it is created.
        manifest: The manifest.
        contents: Content of each of `LISTED_FILES`, and of the signature if there is one.

    Returns:
        The artifact's directory.

    Raises:
        ArtifactInvalid: The artifact would be refused when read, or its directory exists:
            an artifact never changes, a new one has a new version.
    """
    everything = {**contents, MANIFEST_FILE: manifest_bytes(manifest)}
    verify_artifact(manifest.model_id, everything)
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / manifest.model_id
    partial = parent / f".{manifest.model_id}.partial-{os.getpid()}"
    if os.path.lexists(target):
        raise _exists(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name in (*ARTIFACT_FILES, SIGNATURE_FILE):
            if name in everything:
                _write_durably(partial / name, everything[name])
        _sync_directory(partial)
        try:
            partial.rename(target)
        except OSError:
            if os.path.lexists(target):
                raise _exists(target) from None
            raise
        _sync_directory(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _is_candidate(entry: os.DirEntry[str]) -> bool:
    # Reports lie beside artifacts as files; what is being written starts with a dot.
    return not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir())


def _pin(name: str, contents: Mapping[str, bytes], trust: SignatureTrust) -> PinnedManifest:
    manifest = _parse(MANIFEST_FILE, parse_manifest, contents, Reason.MANIFEST_INVALID)
    if name != manifest.model_id:
        raise _invalid("directory name", name, manifest.model_id)
    # Nothing but the manifest is parsed before its signer is known.
    signature = contents.get(SIGNATURE_FILE)
    signer = verify_signature(manifest, contents[MANIFEST_FILE], signature, trust)
    _check_content(manifest.file(FEATURE_SET_FILE), contents[FEATURE_SET_FILE])
    feature_set = _parse(FEATURE_SET_FILE, parse_feature_set, contents, Reason.MANIFEST_INVALID)
    if feature_set.feature_version != manifest.feature_version:
        raise _invalid("feature_version", feature_set.feature_version, manifest.feature_version)
    if feature_set.input_names != manifest.input_features:
        raise _invalid("input_features", manifest.input_features, str(feature_set.input_names))
    if manifest.input_shape and manifest.input_shape[0] != feature_set.window_rows:
        raise _invalid("input_shape", manifest.input_shape, f"{feature_set.window_rows} rows")
    interval_ms = feature_set.engine.bar_interval_ms
    if interval_ms != manifest.bar_interval_ms:
        raise _invalid("bar_interval_ms", manifest.bar_interval_ms, str(interval_ms))
    binding = binding_of(manifest)
    return PinnedManifest(
        manifest=manifest,
        feature_set=feature_set,
        binding=binding,
        binding_hash=binding.binding_hash,
        signer=signer,
    )


def _parse_report(text: bytes) -> None:
    parse_json("train_report", text)


def _parse(
    name: str, parse: Callable[[bytes], T], contents: Mapping[str, bytes], gate_reason: Reason
) -> T:
    try:
        return parse(contents[name])
    except InvalidField as error:
        raise ArtifactInvalid(
            f"{name}: {error.message}",
            gate_reason=gate_reason,
            file=name,
            field=error.field,
            found=error.found,
            expected=error.expected,
        ) from error
    except ValueError as error:
        # An integer of thousands of digits, which Python itself refuses to read.
        raise ArtifactInvalid(f"{name}: {error}", gate_reason=gate_reason, file=name) from error


def _check_content(entry: ManifestFile, content: bytes) -> None:
    if len(content) != entry.size_bytes:
        raise _invalid(entry.path, f"{len(content)} bytes", f"{entry.size_bytes} bytes")
    found = sha256_hex(content)
    if found != entry.sha256:
        raise _invalid(entry.path, f"SHA-256 {found}", f"SHA-256 {entry.sha256}")


def _check_calibration(manifest: Manifest, calibration: Calibration) -> None:
    gate_reason = Reason.CALIBRATION_MISSING
    if calibration.calibration_version != manifest.calibration_version:
        raise _invalid(
            "calibration_version",
            calibration.calibration_version,
            manifest.calibration_version,
            gate_reason=gate_reason,
        )
    if calibration.method is not manifest.calibration_method:
        raise _invalid(
            "calibration_method",
            calibration.method,
            manifest.calibration_method,
            gate_reason=gate_reason,
        )
    if not calibration.may_serve:
        raise _invalid(
            "calibration_method", calibration.method, "a calibrator", gate_reason=gate_reason
        )
    head_map(manifest, calibration)


def _read_files(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Read some files of an artifact through one open directory, each exactly once."""
    if not is_model_id(path.name):
        raise _invalid("directory name", path.name, MODEL_ID_FORM)
    try:
        directory = os.open(path, _DIRECTORY_FLAGS)
    except OSError as error:
        raise _missing(path, error) from error
    try:
        found = os.listdir(directory)  # noqa: PTH208 (a descriptor, not a path)
        check_listing(found)
        # Every name is there by now, except that of a signature that nobody made.
        return {name: _read_file(directory, name) for name in names if name in found}
    finally:
        os.close(directory)


def check_listing(found: list[str]) -> None:
    """Refuse a folder that lacks a file of an artifact or holds another.

    Raises:
        ArtifactInvalid: Names the first; a format that runs code, with what to do instead.
    """
    for name in sorted(found):
        if name.lower().endswith(PICKLE_SUFFIXES):
            raise _invalid(name, "a file that runs code when it is read", PICKLE_ADVICE)
        if name not in (*ARTIFACT_FILES, SIGNATURE_FILE):
            raise _invalid(name, "a file that no manifest lists", ", ".join(ARTIFACT_FILES))
    for name in ARTIFACT_FILES:
        if name not in found:
            is_calibration = name == CALIBRATION_FILE
            raise _invalid(
                name,
                "(missing)",
                "the file",
                gate_reason=(
                    Reason.CALIBRATION_MISSING if is_calibration else Reason.MANIFEST_INVALID
                ),
            )


def _read_file(directory: int, name: str) -> bytes:
    try:
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=directory)
    except OSError as error:
        raise _invalid(name, error.strerror, "a plain file that can be read") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _invalid(name, "not a plain file", "a plain file")
        if status.st_nlink != 1:
            raise _invalid(name, f"{status.st_nlink} hard links", "a file of its own (copy it)")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(BYTES_MAX[name] + 1)
    finally:
        os.close(descriptor)
    if len(content) > BYTES_MAX[name]:
        raise _invalid(name, f"more than {BYTES_MAX[name]} bytes", "at most that")
    return content


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _invalid(
    what: str, found: object, expected: str, *, gate_reason: Reason = Reason.MANIFEST_INVALID
) -> ArtifactInvalid:
    message = f"{what}: found {found}, expected {expected}"
    return ArtifactInvalid(
        message, gate_reason=gate_reason, file=what, found=found, expected=expected
    )


def _missing(path: Path, error: OSError) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{path}: {error.strerror}, expected a directory",
        gate_reason=Reason.ARTIFACT_DIR_MISSING,
        file=path,
        found=error.strerror,
        expected="a directory",
    )


def _exists(path: Path) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{path.name}: exists; an artifact never changes, give the new one a new version",
        file=path.name,
        found="a directory",
        expected="nothing there",
    )
