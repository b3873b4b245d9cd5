"""Read the three earlier forms of a manifest; anything else is refused by name.

`1`, the number: files with hash and size, features, classes. `v1`: a model file and hashes.
`v1.1`: the same with a commit, a data set, another time and the order of the features.

Source: seed 003, sections 12.4.2 and M8-02a; FORMULAS 1.7; REQUIREMENTS R53, R60, R61, R329.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from detent.contracts.canonical import JsonValue, parse_json
from detent.contracts.checks import check_hash16, check_hash64, check_int, check_text
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import FILE_BYTES_MAX, MODEL_FILE, check_provenance
from detent.contracts.units import INT64_MAX

FILES_MAX = 64
PATH_CHARS_MAX = 255
FORMS = ("1", "v1", "v1.1")
_NUMBERED = [
    "schema_version",
    "model_name",
    "model_version",
    "created_at",
    "framework",
    "export_format",
    "files",
    "model_hash",
    "input_features",
    "output_classes",
    "training_metadata",
]
_TRAINING = ["train_samples", "val_samples", "test_accuracy_bps", "data_hash"]
_V1 = ["schema_version", "model_file", "sha256", "created_at"]
_V1_OPTIONAL = ["notes"]
_V11_OPTIONAL = [*_V1_OPTIONAL, "created_at_utc", "git_sha", "dataset_id", "feature_order"]
# What the later form says that our manifest has a field for, by both names.
_OURS = {
    "feature_order": "input_features",
    "git_sha": "git_sha",
    "dataset_id": "dataset_id",
    "notes": "notes",
}


class LegacyManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what an earlier manifest says.

    Attributes:
        form: One of `FORMS`.
        model_file: Path of the graph.
        sha256: Hash of each file by its path, 64 hex.
        size_bytes: Size of each file by its path, where the form has sizes.
        said: What it says that our manifest has too, by our names.
        provenance: What else it says, for the report.
    """

    form: str
    model_file: str
    sha256: Mapping[str, str]
    size_bytes: Mapping[str, int]
    said: Mapping[str, JsonValue]
    provenance: Mapping[str, JsonValue]


def parse_legacy_manifest(text: bytes) -> LegacyManifest:
    """Read a manifest of one of the three forms.

    Raises:
        InvalidField: It is of another form, or a field is missing, unknown or malformed.
    """
    fields = parse_json("manifest", text)
    version = fields.get("schema_version", "(missing)")
    # True is 1 to Python, and no version.
    if version == 1 and not isinstance(version, bool):
        return _numbered(fields)
    if version == "v1":
        return _named(fields, form="v1", optional=_V1_OPTIONAL)
    if version == "v1.1":
        return _named(fields, form="v1.1", optional=_V11_OPTIONAL)
    raise InvalidField("schema_version", version, 'one of 1, "v1" and "v1.1"')


def check_legacy_path(field: str, path: JsonValue) -> str:
    """Refuse a path that is not plainly inside the folder; nested ones are.

    Raises:
        InvalidField: It is absolute, steps up, or is spelt with backslashes or in another
            way than it would be listed.
    """
    expected = "a relative path inside the folder, without .. and backslashes"
    if not isinstance(path, str) or not 1 <= len(path) <= PATH_CHARS_MAX:
        raise InvalidField(field, path, expected)
    parts = path.split("/")
    is_plain = path.isascii() and path.isprintable() and "\\" not in path and ":" not in path
    if not is_plain or PurePosixPath(path).is_absolute() or {"", ".", ".."} & set(parts):
        raise InvalidField(field, path, expected)
    return path


def _numbered(fields: Mapping[str, JsonValue]) -> LegacyManifest:
    _check_names("", fields, needed=_NUMBERED, optional=[])
    training = _object("training_metadata", fields["training_metadata"])
    _check_names("training_metadata.", training, needed=_TRAINING, optional=[])
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for path, entry in _file_map("files", fields["files"]).items():
        entry_fields = _object(f"files.{path}", entry)
        _check_names(f"files.{path}.", entry_fields, needed=["sha256", "size_bytes"], optional=[])
        hashes[path] = _hash64(f"files.{path}.sha256", entry_fields["sha256"])
        size = entry_fields["size_bytes"]
        check_int(f"files.{path}.size_bytes", size, 1, FILE_BYTES_MAX)  # type: ignore[arg-type]
        sizes[path] = int(size)  # type: ignore[arg-type]
    if MODEL_FILE not in hashes:
        raise InvalidField("files", sorted(hashes), f"{MODEL_FILE} among them")
    check_hash16("model_hash", fields["model_hash"])  # type: ignore[arg-type]
    if fields["model_hash"] != hashes[MODEL_FILE][:16]:
        raise InvalidField("model_hash", fields["model_hash"], hashes[MODEL_FILE][:16])
    if fields["export_format"] != "onnx":
        raise InvalidField("export_format", fields["export_format"], "onnx")
    names = [
        "model_name",
        "model_version",
        "created_at",
        "framework",
        "input_features",
        "output_classes",
    ]
    said = {name: fields[name] for name in names}
    said |= {name: training[name] for name in ("train_samples", "test_accuracy_bps", "data_hash")}
    val_samples = training["val_samples"]
    check_int("training_metadata.val_samples", val_samples, 0, INT64_MAX)  # type: ignore[arg-type]
    return LegacyManifest(
        form="1",
        model_file=MODEL_FILE,
        sha256=hashes,
        size_bytes=sizes,
        said=said,
        provenance={"val_samples": val_samples},
    )


def _named(fields: Mapping[str, JsonValue], *, form: str, optional: list[str]) -> LegacyManifest:
    _check_names("", fields, needed=_V1, optional=optional)
    found = _file_map("sha256", fields["sha256"])
    hashes = {path: _hash64(f"sha256.{path}", digest) for path, digest in found.items()}
    model_file = check_legacy_path("model_file", fields["model_file"])
    if model_file not in hashes:
        raise InvalidField("model_file", model_file, f"one of sha256: {', '.join(hashes)}")
    known = {name: fields[name] for name in optional if fields.get(name) is not None}
    said = {"created_at": fields["created_at"]}
    said |= {ours: known[theirs] for theirs, ours in _OURS.items() if theirs in known}
    check_provenance(said)
    provenance = {name: value for name, value in known.items() if name not in _OURS}
    for name, value in provenance.items():
        check_text(name, value)  # type: ignore[arg-type]
    return LegacyManifest(
        form=form,
        model_file=model_file,
        sha256=hashes,
        size_bytes={},
        said=said,
        provenance=provenance,
    )


def _check_names(
    prefix: str, fields: Mapping[str, JsonValue], *, needed: list[str], optional: list[str]
) -> None:
    for name in needed:
        if fields.get(name) is None:
            raise InvalidField(f"{prefix}{name}", "(missing)", "the field")
    for name in sorted(fields):
        if name not in needed and name not in optional:
            raise InvalidField(f"{prefix}{name}", "(unknown field)", ", ".join(needed + optional))


def _file_map(field: str, found: JsonValue) -> dict[str, JsonValue]:
    files = _object(field, found)
    if not 1 <= len(files) <= FILES_MAX:
        raise InvalidField(field, f"{len(files)} files", f"1 to {FILES_MAX} files")
    for path in files:
        check_legacy_path(field, path)
    return files


def _object(field: str, found: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(found, dict):
        raise InvalidField(field, found, "an object")
    return found


def _hash64(field: str, found: JsonValue) -> str:
    check_hash64(field, found)  # type: ignore[arg-type]
    return str(found)
