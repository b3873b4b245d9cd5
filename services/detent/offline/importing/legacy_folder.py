"""Read the files of an earlier artifact: each once, inside its folder, as its manifest pins it.

Source: REQUIREMENTS R52, R54, R61; decision D14.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from detent.adapters.artifact_store import PICKLE_SUFFIXES
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.manifest import FILE_BYTES_MAX, MANIFEST_FILE
from detent.contracts.reasons import Reason
from detent.offline.importing.legacy_manifest import (
    FILES_MAX,
    LegacyManifest,
    parse_legacy_manifest,
)

MANIFEST_BYTES_MAX = 4 * 2**20
DEPTH_MAX = 8
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SCALER_ADVICE = (
    "the scaler inside the graph: export scaler and model as one pipeline, for example"
    " skl2onnx.to_onnx(make_pipeline(scaler, model)), or give each feature of the feature set"
    " its normalisation (offset = mean, scale = standard deviation); then leave this file out"
)


class LegacyArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an earlier artifact whose every file is what its manifest pins.

    Attributes:
        manifest: What its manifest says.
        manifest_sha256: Hash of the manifest's text, 64 hex.
        contents: Content of each file that the manifest lists, by path.
    """

    manifest: LegacyManifest
    manifest_sha256: str
    contents: dict[str, bytes]


def read_legacy_artifact(folder: Path) -> LegacyArtifact:
    """Read an earlier artifact.

    Raises:
        ArtifactInvalid: A file is missing, unlisted, linked, no plain file, or not what the
            manifest says; or a format that runs code when it is read.
        InvalidField: The manifest is of no known form, or malformed.
    """
    try:
        root = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        raise ArtifactInvalid(
            f"{folder}: {error.strerror}, expected a directory",
            gate_reason=Reason.ARTIFACT_DIR_MISSING,
            file=folder,
            found=error.strerror,
            expected="a directory",
        ) from error
    try:
        present = list(_walk(root, "", 0))
        for path in present:
            if path.lower().endswith(PICKLE_SUFFIXES):
                raise _refused(path, "a file that runs code when it is read", SCALER_ADVICE)
        text = _read(root, MANIFEST_FILE, MANIFEST_BYTES_MAX)
        manifest = _parse(text)
        for path in manifest.sha256:
            if path.lower().endswith(PICKLE_SUFFIXES):
                raise _refused(path, "a file that runs code when it is read", SCALER_ADVICE)
        for path in present:
            if path != MANIFEST_FILE and path not in manifest.sha256:
                listed = ", ".join(manifest.sha256)
                raise _refused(path, "a file that the manifest does not list", listed)
        contents = {path: _read(root, path, FILE_BYTES_MAX) for path in manifest.sha256}
    finally:
        os.close(root)
    for path, content in contents.items():
        _check(manifest, path, content)
    return LegacyArtifact(manifest=manifest, manifest_sha256=sha256_hex(text), contents=contents)


def _parse(text: bytes) -> LegacyManifest:
    try:
        return parse_legacy_manifest(text)
    except ValueError as error:
        # An integer of thousands of digits, which Python itself refuses to read.
        raise InvalidField("manifest", str(error), "numbers of a sane length") from error


def _check(manifest: LegacyManifest, path: str, content: bytes) -> None:
    size = manifest.size_bytes.get(path, len(content))
    if len(content) != size:
        raise _refused(path, f"{len(content)} bytes", f"{size} bytes")
    found = sha256_hex(content)
    if found != manifest.sha256[path]:
        raise _refused(path, f"SHA-256 {found}", f"SHA-256 {manifest.sha256[path]}")


def _walk(directory: int, prefix: str, depth: int) -> Iterator[str]:
    """Name every file below a folder, links refused; a few files, not a disk."""
    with os.scandir(directory) as entries:
        names = sorted((entry.name, entry.is_symlink(), entry.is_dir()) for entry in entries)
    if len(names) > FILES_MAX + 1 or depth > DEPTH_MAX:
        raise _refused(prefix or ".", f"{len(names)} entries", f"at most {FILES_MAX + 1}")
    for name, is_link, is_folder in names:
        path = f"{prefix}{name}"
        if is_link:
            raise _refused(path, "a symbolic link", "a plain file")
        if not is_folder:
            yield path
            continue
        below = os.open(name, _FOLDER_FLAGS, dir_fd=directory)
        try:
            yield from _walk(below, f"{path}/", depth + 1)
        finally:
            os.close(below)


def _read(root: int, path: str, limit: int) -> bytes:
    """Read one file through its folders, following no link on the way."""
    *folders, name = path.split("/")
    opened = [root]
    try:
        for folder in folders:
            opened.append(os.open(folder, _FOLDER_FLAGS, dir_fd=opened[-1]))
        opened.append(os.open(name, _FILE_FLAGS, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            raise _refused(path, "not a plain file", "a plain file")
        with os.fdopen(opened[-1], "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _refused(path, error.strerror, "a plain file that can be read") from error
    finally:
        for descriptor in opened[1:]:
            os.close(descriptor)
    if len(content) > limit:
        raise _refused(path, f"more than {limit} bytes", "at most that")
    return content


def _refused(path: str, found: object, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{path}: found {found}, expected {expected}", file=path, found=found, expected=expected
    )
