"""See that a data set is what its manifest says, and is the one that is named (R335, R336).

The manifest lists every file by its SHA-256, so the SHA-256 of `manifest.json` covers the whole
data set: that is its hash. Its id is the name that stands in it, or else that hash.
"""

import hashlib
import stat
from pathlib import Path, PurePosixPath

import msgspec

from detent.contracts.canonical import JsonValue, parse_json, sha256_hex
from detent.contracts.checks import check_name
from detent.contracts.errors import InvalidField

MANIFEST = "manifest.json"
_CHUNK_BYTES = 4 * 2**20


class DatasetFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says which data set was read, or why none was.

    Attributes:
        dataset_id: Its id; None where it is not what it says.
        dataset_hash: SHA-256 of its manifest, 64 hex; likewise.
        finding: What is wrong; empty where nothing is.
    """

    dataset_id: str | None = None
    dataset_hash: str | None = None
    finding: str = ""


def verify_dataset(folder: Path | None) -> DatasetFinding:
    """Read every byte of a data set and say whether it is what its manifest says."""
    if folder is None:
        return DatasetFinding()
    try:
        dataset_id, digest = _verified(folder)
    except (OSError, InvalidField) as error:
        found = error.message if isinstance(error, InvalidField) else type(error).__name__
        return DatasetFinding(finding=f"{folder.name}: {found}")
    return DatasetFinding(dataset_id=dataset_id, dataset_hash=digest)


def _verified(folder: Path) -> tuple[str, str]:
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise InvalidField("dataset", "a link or a file", "a folder of its own")
    text = _plain(folder / MANIFEST).read_bytes()
    fields = parse_json(MANIFEST, text)
    listed = _listed(fields)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(found - {MANIFEST, *listed}):
        raise InvalidField(name, "a file that the manifest does not list", "none")
    for name, expected in sorted(listed.items()):
        digest = _hashed(_plain(folder / name))
        if digest != expected:
            raise InvalidField(name, f"SHA-256 {digest}", f"SHA-256 {expected}")
    digest = sha256_hex(text)
    named = fields.get("dataset_id", digest)
    check_name("dataset_id", str(named))
    return str(named), digest


def _listed(fields: dict[str, JsonValue]) -> dict[str, str]:
    """Give the files of a manifest, by name: a map, or a list of entries."""
    match fields:
        case {"files": list(entries)}:
            pairs = [
                (str(one.get("path")), str(one.get("sha256")))
                for one in entries
                if isinstance(one, dict)
            ]
        case {"sha256": dict(named)} | {"files": dict(named)}:
            pairs = [(name, str(value)) for name, value in named.items()]
        case _:
            pairs = []
    if not pairs:
        raise InvalidField("files", "(missing)", "every file with its SHA-256")
    for name, _ in pairs:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name != str(path):
            raise InvalidField("files", name, "a path inside the folder")
    return dict(pairs)


def _plain(path: Path) -> Path:
    """Refuse what is no file of the folder itself, links on the way included."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise InvalidField(path.name, "a link or no file", "a plain file")
    if path.resolve() != path.parent.resolve() / path.name or path.parent.is_symlink():
        raise InvalidField(path.name, "a link on the way", "a plain file")
    return path


def _hashed(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
