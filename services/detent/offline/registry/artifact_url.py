"""Read and write artifacts at any URL that fsspec knows, verified on this side.

What comes over a network is read once, into memory, within the sizes of an artifact's files;
what is written to disk is what was verified. Nothing is believed of the other side.

Source: decision D26; row R127.
"""

import posixpath
from pathlib import Path
from typing import Any

import fsspec

from detent.adapters.artifact_signature import SIGNATURE_FILE, UNSIGNED_ALLOWED, SignatureTrust
from detent.adapters.artifact_store import (
    ARTIFACT_FILES,
    BYTES_MAX,
    Artifact,
    check_listing,
    read_artifact,
    verify_artifact,
    write_artifact,
)
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.manifest import LISTED_FILES, is_model_id
from detent.contracts.reasons import Reason

_FILE = "file://"


def url_of(place: str) -> str:
    """Give the URL of a folder: a URL as it is, a path as `file://`."""
    return place.rstrip("/") if "://" in place else Path(place).resolve().as_uri()


def read_artifact_at(
    url: str, *, model_version_hash: str | None = None, trust: SignatureTrust = UNSIGNED_ALLOWED
) -> tuple[Artifact, dict[str, bytes]]:
    """Read and verify an artifact, and give its files.

    Args:
        url: Its folder.
        model_version_hash: The only manifest hash that is accepted, 64 hex.
        trust: Whose signature it needs, if any.

    Raises:
        ArtifactInvalid: It cannot be read, or is not what it says or what is pinned.
        InvalidField: No protocol of that name is installed.
    """
    name = url.rpartition("/")[2]
    if not is_model_id(name):
        raise InvalidField("url", url, "the folder of an artifact, <name>_v<version>")
    if url.startswith(_FILE):
        # The local reader also refuses links; what it read is read again only to be checked again.
        read_artifact(
            Path(url.removeprefix(_FILE)), model_version_hash=model_version_hash, trust=trust
        )
    contents = _contents(url)
    artifact = verify_artifact(name, contents, trust=trust)
    found = artifact.manifest.model_version_hash
    if model_version_hash not in (None, found):
        raise ArtifactInvalid(
            f"model_version_hash: found {found}, expected {model_version_hash}",
            found=found,
            expected=model_version_hash,
        )
    return artifact, contents


def load_artifact(url: str, into: Path, *, model_version_hash: str) -> Path:
    """Give a verified local copy; one that is there is verified and kept.

    Args:
        url: The artifact's folder.
        into: Folder of artifacts.
        model_version_hash: The only manifest hash that is accepted, 64 hex.

    Raises:
        ArtifactInvalid: It cannot be read, or is not what is pinned; likewise the copy.
        InvalidField: No protocol of that name is installed.
    """
    copy = into / url.rpartition("/")[2]
    if copy.exists():
        read_artifact(copy, model_version_hash=model_version_hash)
        return copy
    artifact, contents = read_artifact_at(url, model_version_hash=model_version_hash)
    kept = {name: contents[name] for name in (*LISTED_FILES, SIGNATURE_FILE) if name in contents}
    return write_artifact(into, artifact.manifest, kept)


def store_artifact(source: str, store: str) -> str:
    """Copy a verified artifact below a URL, and give the URL of its folder.

    The manifest is written last: what was cut off is no artifact, and can be written again.

    Raises:
        ArtifactInvalid: It is not what it says, or another one lies there.
        InvalidField: No protocol of that name is installed.
    """
    artifact, contents = read_artifact_at(source)
    target = f"{store.rstrip('/')}/{artifact.manifest.model_id}"
    files, root = _opened(target)
    manifest, *others = ARTIFACT_FILES
    try:
        if files.exists(posixpath.join(root, manifest)):
            read_artifact_at(target, model_version_hash=artifact.manifest.model_version_hash)
            return target
        files.makedirs(root, exist_ok=True)
        for name in (*others, SIGNATURE_FILE, manifest):
            if name in contents:
                files.pipe_file(posixpath.join(root, name), contents[name])
    except OSError as error:
        raise _unreachable(target, error) from error
    read_artifact_at(target, model_version_hash=artifact.manifest.model_version_hash)
    return target


def _contents(url: str) -> dict[str, bytes]:
    files, root = _opened(url)
    contents = {}
    try:
        found = [posixpath.basename(str(path).rstrip("/")) for path in files.ls(root, detail=False)]
        check_listing(found)
        for name in found:
            with files.open(posixpath.join(root, name), "rb") as file:
                contents[name] = file.read(BYTES_MAX[name] + 1)
            if len(contents[name]) > BYTES_MAX[name]:
                raise ArtifactInvalid(f"{name}: found more than {BYTES_MAX[name]} bytes")
    except OSError as error:
        raise _unreachable(url, error) from error
    return contents


def _opened(url: str) -> tuple[Any, str]:
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        expected = "a protocol that fsspec has; s3:// needs s3fs, gs:// needs gcsfs"
        raise InvalidField("url", protocol, expected) from error
    return files, str(root)


def _unreachable(url: str, error: OSError) -> ArtifactInvalid:
    cause = type(error).__name__
    return ArtifactInvalid(
        f"{url}: {cause}, expected the folder of an artifact",
        gate_reason=Reason.ARTIFACT_DIR_MISSING,
        found=cause,
        expected="the folder of an artifact",
    )
