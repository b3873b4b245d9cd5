"""Importing: three earlier forms come in whole, and nothing about them is guessed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.artifacts import artifact

from detent.adapters.artifact_store import read_artifact
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid, DetentError, InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.reasons import Reason
from detent.offline.commands import verify_artifact
from detent.offline.importing.facts import FACTS
from detent.offline.importing.importing import import_artifact
from detent.offline.importing.legacy_manifest import parse_legacy_manifest

FORMS = ("1", "v1", "v1.1")
Fields = dict[str, Any]
TRAINING = {
    "train_samples": 500,
    "val_samples": 100,
    "test_accuracy_bps": 7_250,
    "data_hash": "d4e5f67890123456",
}


def legacy_fields(form: str, model: bytes, config: bytes) -> Fields:
    """Give a manifest of an earlier form over two files."""
    manifest = artifact().manifest
    digests = {"model.onnx": sha256_hex(model), "config.json": sha256_hex(config)}
    if form != "1":
        fields: Fields = {
            "schema_version": form,
            "model_file": "model.onnx",
            "sha256": digests,
            "created_at": manifest.created_at,
            "notes": "first try",
        }
        if form == "v1.1":
            fields["git_sha"] = "ab" * 20
            fields["dataset_id"] = "synthetic_1"
            fields["created_at_utc"] = manifest.created_at
            fields["feature_order"] = list(manifest.input_features)
        return fields
    sizes = {"model.onnx": len(model), "config.json": len(config)}
    return {
        "schema_version": 1,
        "model_name": manifest.model_name,
        "model_version": manifest.model_version,
        "created_at": manifest.created_at,
        "framework": "lightgbm",
        "export_format": "onnx",
        "files": {
            name: {"sha256": digest, "size_bytes": sizes[name]} for name, digest in digests.items()
        },
        "model_hash": digests["model.onnx"][:16],
        "input_features": list(manifest.input_features),
        "output_classes": list(manifest.output_classes),
        "training_metadata": TRAINING,
    }


def legacy_in(folder: Path, form: str, **changes: Any) -> Path:
    """Write an artifact of an earlier form; None takes a field away."""
    path = folder / "old" / "tiny"
    path.mkdir(parents=True)
    model, config = artifact().model, b'{"depth":4}'
    (path / "model.onnx").write_bytes(model)
    (path / "config.json").write_bytes(config)
    fields = legacy_fields(form, model, config) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    (path / "manifest.json").write_text(json.dumps(kept, indent=2))
    return path


def all_facts() -> Fields:
    """Give every fact, as the artifact whose model is imported has it."""
    manifest = artifact().manifest
    said = to_json(manifest)
    names = (set(FACTS) & set(said)) - {"metrics"}
    golden = [np.frombuffer(row.values, "<f4").tolist() for row in artifact().golden.rows[:3]]
    return {
        **{name: said[name] for name in names},
        **to_json(manifest.training_metadata),
        "calibration": to_json(artifact().calibration),
        "feature_set": "feature_set.json",
        "golden_inputs": [[str(value) for value in row] for row in golden],
    }


def facts_for(form: str) -> Fields:
    """Give the facts that a form does not say itself."""
    said = set(parse_legacy_manifest(json.dumps(legacy_fields(form, b"x", b"y")).encode()).said)
    return {name: value for name, value in all_facts().items() if name not in said}


def facts_in(folder: Path, fields: Fields) -> Path:
    (folder / "feature_set.json").write_bytes(artifact().pinned.feature_set.canonical_json)
    path = folder / "facts.json"
    path.write_text(json.dumps(fields))
    return path


def imported(tmp_path: Path, legacy: Path, fields: Fields) -> Path:
    return import_artifact(legacy, facts=facts_in(tmp_path, fields), out_dir=tmp_path / "new")


def refusal(tmp_path: Path, legacy: Path, fields: Fields) -> DetentError:
    with pytest.raises(DetentError) as caught:
        imported(tmp_path, legacy, fields)
    assert not (tmp_path / "new").exists()
    return caught.value


@pytest.mark.proves("R53", "R60", "R329")
@pytest.mark.parametrize("form", FORMS)
def test_artifact_of_each_form_is_imported_whole(tmp_path: Path, form: str) -> None:
    path = imported(tmp_path, legacy_in(tmp_path, form), facts_for(form))
    found = read_artifact(path)

    assert found.model == artifact().model
    assert found.calibration == artifact().calibration
    assert found.pinned.feature_set == artifact().pinned.feature_set
    assert found.golden.rows == artifact().golden.rows[:3]
    assert found.manifest.label_definition == artifact().manifest.label_definition
    assert path.name == found.manifest.model_id
    report = json.loads(found.train_report)
    assert report["form"] == form
    assert set(report["files"]) == {"model.onnx", "config.json"}
    manifest = found.manifest
    origin = (manifest.git_sha, manifest.dataset_id, manifest.notes)
    said = {
        "1": ((None, None, None), {"val_samples": 100}),
        "v1": ((None, None, "first try"), {}),
        "v1.1": (("ab" * 20, "synthetic_1", "first try"), {"created_at_utc": manifest.created_at}),
    }
    assert (origin, report["provenance"]) == said[form]
    verify_artifact(path, model_version_hash=found.manifest.model_version_hash)


@pytest.mark.parametrize("form", FORMS)
def test_import_gives_the_same_bytes_again(tmp_path: Path, form: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    hashes = set()
    for folder in (first, second):
        folder.mkdir()
        path = imported(folder, legacy_in(folder, form), facts_for(form))
        hashes.add(read_artifact(path).manifest.model_version_hash)

    assert len(hashes) == 1
    with pytest.raises(ArtifactInvalid, match="never changes"):
        imported(first, first / "old" / "tiny", facts_for(form))


@pytest.mark.proves("R66", "R251", "R64")
@pytest.mark.parametrize("form", FORMS)
def test_every_fact_that_nobody_states_is_named(tmp_path: Path, form: str) -> None:
    legacy = legacy_in(tmp_path, form)
    for name in facts_for(form):
        fields = facts_for(form)
        del fields[name]
        error = refusal(tmp_path, legacy, fields)
        assert isinstance(error, InvalidField)
        assert (error.field, error.found) == (name, "(missing)")
        assert f"form {form}" in error.expected


def test_all_missing_facts_are_named_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, legacy_in(tmp_path, "v1"), {})

    for name in set(FACTS) - {"created_at"}:
        assert name in error.message


@pytest.mark.proves("R251")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_version", 1),
        ("horizon_bars", "4"),
        ("horizon_bars", 0),
        ("bar_interval_ms", 60_000),
        ("head", "price"),
        ("head", "regime"),
        ("output_classes", ["LOW", "MID", "HIGH"]),
        ("calibration", {"method": "identity", "a": None, "b": None}),
        ("calibration", "platt"),
        ("training_window", {"start_ts_ms": 1}),
        ("data_cutoff_ts_ms", 1_500_000_000_000),
        ("test_samples", 0),
        ("data_hash", "xyz"),
        ("feature_set", "no_such_set"),
        ("feature_set", 3),
        ("golden_inputs", []),
        ("golden_inputs", [["1"]]),
        ("golden_inputs", [["nan"] * 9]),
        ("architecture_id", ""),
        ("surprise", 1),
    ],
)
def test_fact_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object) -> None:
    error = refusal(tmp_path, legacy_in(tmp_path, "v1"), facts_for("v1") | {name: value})

    assert error.metadata.keys() >= {"found", "expected"} or name == "feature_set"


def test_fact_that_contradicts_the_manifest_is_refused(tmp_path: Path) -> None:
    legacy = legacy_in(tmp_path, "1")
    error = refusal(tmp_path, legacy, facts_for("1") | {"train_samples": 501})

    assert isinstance(error, InvalidField)
    assert error.field == "train_samples"
    agreeing = facts_for("1") | {"train_samples": 500}
    imported(tmp_path, legacy, agreeing)


@pytest.mark.proves("R329")
@pytest.mark.parametrize(("form", "field"), [("1", "input_features"), ("v1.1", "feature_order")])
def test_features_in_another_order_are_refused(tmp_path: Path, form: str, field: str) -> None:
    """Where the earlier system warned, and went on."""
    order = list(artifact().manifest.input_features)
    legacy = legacy_in(tmp_path, form, **{field: [order[1], order[0], *order[2:]]})
    error = refusal(tmp_path, legacy, facts_for(form))

    assert isinstance(error, InvalidField)
    assert error.field == "input_features"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("listed", [True, False])
def test_scaler_is_refused_with_the_way_out(tmp_path: Path, form: str, listed: bool) -> None:
    legacy = legacy_in(tmp_path, form)
    (legacy / "scaler.joblib").write_bytes(b"pickle")
    if listed:
        fields = json.loads((legacy / "manifest.json").read_text())
        digest = sha256_hex(b"pickle")
        if form == "1":
            fields["files"]["scaler.joblib"] = {"sha256": digest, "size_bytes": 6}
        else:
            fields["sha256"]["scaler.joblib"] = digest
        (legacy / "manifest.json").write_text(json.dumps(fields))
    error = refusal(tmp_path, legacy, facts_for(form))

    assert error.metadata["file"] == "scaler.joblib"
    assert "inside the graph" in error.message
    assert "to_onnx" in error.message


@pytest.mark.proves("R53", "R60")
@pytest.mark.parametrize("form", FORMS)
def test_manifest_without_a_field_of_its_form_is_refused_by_name(form: str) -> None:
    fields = legacy_fields(form, b"x", b"y")
    optional = {"notes", "git_sha", "dataset_id", "created_at_utc", "feature_order"}
    for name in set(fields) - optional:
        rest = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(InvalidField) as caught:
            parse_legacy_manifest(json.dumps(rest).encode())
        assert (caught.value.field, caught.value.found) == (name, "(missing)")
    for name in optional & set(fields):
        rest = {key: value for key, value in fields.items() if key != name}
        parse_legacy_manifest(json.dumps(rest).encode())


WRONG: list[tuple[str, Fields, str]] = [
    ("1", {"schema_version": 2}, "schema_version"),
    ("1", {"schema_version": True}, "schema_version"),
    ("1", {"schema_version": "1"}, "schema_version"),
    ("v1", {"schema_version": "v2"}, "schema_version"),
    ("v1", {"schema_version": "v1.2"}, "schema_version"),
    ("v1", {"schema_version": "detent.manifest.v1"}, "schema_version"),
    ("v1", {"sha256": {}}, "sha256"),
    ("v1", {"sha256": []}, "sha256"),
    ("v1", {"sha256": {"model.onnx": "abc"}}, "sha256.model.onnx"),
    ("v1", {"sha256": {"model.onnx": "A" * 64}}, "sha256.model.onnx"),
    ("v1", {"model_file": "other.onnx"}, "model_file"),
    ("v1", {"git_sha": "ab" * 20}, "git_sha"),
    ("v1.1", {"git_sha": "abc"}, "git_sha"),
    ("v1.1", {"git_sha": "AB" * 20}, "git_sha"),
    ("v1.1", {"git_sha": "ab" * 20 + "\n"}, "git_sha"),
    ("v1.1", {"git_sha": 3}, "git_sha"),
    ("v1.1", {"dataset_id": "two words"}, "dataset_id"),
    ("v1.1", {"notes": "two\nlines"}, "notes"),
    ("v1.1", {"created_at_utc": 3}, "created_at_utc"),
    ("v1.1", {"dataset_id": 3}, "dataset_id"),
    ("v1.1", {"surprise": 1}, "surprise"),
    ("1", {"files": {}}, "files"),
    ("1", {"files": {"config.json": {"sha256": "0" * 64, "size_bytes": 1}}}, "files"),
    ("1", {"files": {"model.onnx": {"sha256": "0" * 64}}}, "files.model.onnx.size_bytes"),
    ("1", {"model_hash": "0" * 16}, "model_hash"),
    ("1", {"model_hash": "xyz"}, "model_hash"),
    ("1", {"export_format": "pickle"}, "export_format"),
    ("1", {"training_metadata": {"train_samples": 1}}, "training_metadata.val_samples"),
    ("1", {"training_metadata": 3}, "training_metadata"),
    (
        "1",
        {"training_metadata": TRAINING | {"val_samples": "many"}},
        "training_metadata.val_samples",
    ),
]


@pytest.mark.proves("R53", "R60", "R329")
@pytest.mark.parametrize(("form", "changes", "field"), WRONG)
def test_manifest_with_a_wrong_field_is_refused_by_name(
    form: str, changes: Fields, field: str
) -> None:
    fields = legacy_fields(form, b"x", b"y") | changes
    with pytest.raises(InvalidField) as caught:
        parse_legacy_manifest(json.dumps(fields).encode())

    assert caught.value.field == field


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"a":1.5}', b'{"a":1,"a":2}', b"[" * 9999])
def test_manifest_that_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidField):
        parse_legacy_manifest(text)


@pytest.mark.proves("R61")
@pytest.mark.parametrize(
    "path",
    [
        "../model.onnx",
        "a/../../model.onnx",
        "/etc/passwd",
        "//host/x",
        "..",
        ".",
        "",
        "a//b",
        "a/",
        "./model.onnx",
        "..\\model.onnx",
        "a\\b",
        "C:/x",
        "C:\\x",
        "file:x",
        "a\x00b",
        "a\nb",
        "mod\u0435l.onnx",
        "x" * 256,
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_path_that_may_lead_out_is_refused(form: str, path: str) -> None:
    fields = legacy_fields(form, b"x", b"y")
    entry: object = "0" * 64
    if form == "1":
        entry = {"sha256": "0" * 64, "size_bytes": 1}
    fields["files" if form == "1" else "sha256"][path] = entry
    with pytest.raises(InvalidField, match="inside the folder"):
        parse_legacy_manifest(json.dumps(fields).encode())


@pytest.mark.proves("R61")
def test_nested_file_is_imported(tmp_path: Path) -> None:
    legacy = legacy_in(tmp_path, "v1")
    (legacy / "sub").mkdir()
    (legacy / "model.onnx").rename(legacy / "sub" / "model.onnx")
    fields = json.loads((legacy / "manifest.json").read_text())
    fields["sha256"]["sub/model.onnx"] = fields["sha256"].pop("model.onnx")
    fields["model_file"] = "sub/model.onnx"
    (legacy / "manifest.json").write_text(json.dumps(fields))

    assert read_artifact(imported(tmp_path, legacy, facts_for("v1"))).model == artifact().model


def _link_file(legacy: Path) -> str:
    (legacy / "model.onnx").rename(legacy.parent / "elsewhere")
    (legacy / "model.onnx").symlink_to(legacy.parent / "elsewhere")
    return "model.onnx"


def _link_folder(legacy: Path) -> str:
    (legacy / "sub").symlink_to(legacy.parent)
    return "sub"


def _pipe(legacy: Path) -> str:
    (legacy / "model.onnx").unlink()
    os.mkfifo(legacy / "model.onnx")
    return "model.onnx"


def _unlisted(legacy: Path) -> str:
    (legacy / "sub").mkdir()
    (legacy / "sub" / "notes.txt").write_text("x")
    return "sub/notes.txt"


def _missing(legacy: Path) -> str:
    (legacy / "config.json").unlink()
    return "config.json"


def _no_manifest(legacy: Path) -> str:
    (legacy / "manifest.json").unlink()
    return "manifest.json"


def _flipped(legacy: Path) -> str:
    data = bytearray((legacy / "model.onnx").read_bytes())
    data[100] ^= 1
    (legacy / "model.onnx").write_bytes(data)
    return "model.onnx"


def _truncated(legacy: Path) -> str:
    (legacy / "config.json").write_bytes(b"")
    return "config.json"


@pytest.mark.proves("R54", "R61")
@pytest.mark.parametrize(
    "damage",
    [
        _link_file,
        _link_folder,
        _pipe,
        _unlisted,
        _missing,
        _no_manifest,
        _flipped,
        _truncated,
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_folder_that_is_not_what_its_manifest_says_is_refused_by_file(
    tmp_path: Path, form: str, damage: Callable[[Path], str]
) -> None:
    legacy = legacy_in(tmp_path, form)
    name = damage(legacy)

    assert refusal(tmp_path, legacy, facts_for(form)).metadata["file"] == name


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, tmp_path / "none", facts_for("v1"))

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.ARTIFACT_DIR_MISSING


def _two_outputs() -> bytes:
    width = len(artifact().manifest.input_features)
    names = ("regime_probs", "spacing_multiplier")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], [name]) for name in names],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name in names],
    )
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("model", "message"), [(b"no graph at all", "a graph in ONNX"), (_two_outputs(), "one output")]
)
def test_model_that_cannot_be_served_is_not_imported(
    tmp_path: Path, model: bytes, message: str
) -> None:
    legacy = legacy_in(tmp_path, "v1")
    (legacy / "model.onnx").write_bytes(model)
    fields = legacy_fields("v1", model, (legacy / "config.json").read_bytes())
    (legacy / "manifest.json").write_text(json.dumps(fields))

    assert message in refusal(tmp_path, legacy, facts_for("v1")).message
