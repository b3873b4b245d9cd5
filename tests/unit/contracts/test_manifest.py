"""The manifest: every field counts, and the binding follows from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from msgspec import structs
from tests.unit.artifacts import manifest_of

from detent.contracts.binding import SignalSource
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import (
    LISTED_FILES,
    Manifest,
    ManifestFile,
    binding_of,
    is_model_id,
    manifest_bytes,
    parse_golden,
    parse_manifest,
)

FIELDS = [name for name in Manifest.__struct_fields__ if name not in Manifest.JSON_GROWN]
HASH = "0123456789abcdef" * 4


def changed(**changes: object) -> bytes:
    """Give the manifest's text with some fields replaced, canonical all the same."""
    fields = {**json.loads(manifest_bytes(manifest_of())), **changes}
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def test_manifest_survives_its_text() -> None:
    manifest = manifest_of()

    assert parse_manifest(manifest_bytes(manifest)) == manifest


@pytest.mark.proves("R53", "R64", "R65", "R160")
@pytest.mark.parametrize("name", FIELDS)
def test_manifest_without_a_field_is_refused_by_name(name: str) -> None:
    fields = json.loads(manifest_bytes(manifest_of()))
    del fields[name]

    with pytest.raises(InvalidField) as caught:
        parse_manifest(json.dumps(fields).encode("ascii"))

    assert caught.value.field == name
    assert caught.value.found == "(missing)"


@pytest.mark.proves("R53", "R64", "R65", "R160")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("model_name", "Upper"),
        ("model_name", "../x"),
        ("model_version", "1.0.0"),
        ("model_version", "v1.0"),
        ("head", "price"),
        ("architecture_id", ""),
        ("created_at", "2024-01-15 10:30:00"),
        ("created_at", "2024-13-15T10:30:00Z"),
        ("framework", ""),
        ("export_format", "pickle"),
        ("bar_interval_ms", 0),
        ("bar_interval_ms", 3600000.5),
        ("horizon_id", ""),
        ("horizon_bars", 0),
        ("horizon_bars", True),
        ("label_definition", ""),
        ("feature_version", HASH.upper()),
        ("input_name", ""),
        ("input_features", []),
        ("input_features", ["a", "a"]),
        ("output_name", ""),
        ("output_classes", ["up", "down"]),
        ("calibration_method", "magic"),
        ("calibration_version", HASH[:16]),
        ("training_window", {"start_ts_ms": 2_000_000_000_000, "end_ts_ms": 1_500_000_000_000}),
        ("training_window", None),
        ("data_cutoff_ts_ms", 1_500_000_000),
        ("data_cutoff_ts_ms", 1_500_000_000_000),
        ("model_hash", HASH[:16]),
        ("training_metadata", {}),
        ("files", []),
        ("unknown_field", 1),
        ("schema", "detent.manifest.v2"),
    ],
)
def test_manifest_with_a_wrong_field_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_manifest(changed(**{name: value}))

    shown = {"schema_version", "training_window", "bar_interval_ms"}
    assert name in shown or name in caught.value.field
    assert caught.value.metadata.keys() >= {"field", "found", "expected"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a\\b", "sub/model.onnx", "model.pkl", ""])
def test_manifest_lists_only_the_files_of_an_artifact(path: str) -> None:
    with pytest.raises(InvalidField) as caught:
        ManifestFile(path=path, sha256=HASH, size_bytes=1)

    assert caught.value.field == "path"


def test_manifest_lists_every_file_once() -> None:
    files = manifest_of().files

    assert tuple(file.path for file in files) == LISTED_FILES
    for wrong in (files[1:], files[::-1], (*files, files[0])):
        with pytest.raises(InvalidField):
            structs.replace(manifest_of(), files=wrong)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda text: text + b"\n", id="newline"),
        pytest.param(lambda text: text.replace(b'":', b'": ', 1), id="space"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n") + b"\r\n", id="crlf"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte order mark"),
        pytest.param(lambda text: json.dumps(json.loads(text)).encode(), id="reformatted"),
    ],
)
def test_manifest_in_any_other_form_is_refused(text: Callable[[bytes], bytes]) -> None:
    """Two texts of one manifest would be two hashes of one artifact."""
    with pytest.raises(InvalidField):
        parse_manifest(text(manifest_bytes(manifest_of())))


@pytest.mark.proves("R57")
@pytest.mark.parametrize(
    "text",
    ["regime_classifier_v1.0.0", "regime_classifier_v1.0.1", "m_v0.0.0", "a1_b2_v10.20.30"],
)
def test_model_id_in_the_agreed_form_is_accepted(text: str) -> None:
    assert is_model_id(text)


@pytest.mark.proves("R57")
@pytest.mark.parametrize(
    "text",
    [
        "regime_v1",
        "regime_v1.0",
        "regime_1.0.0",
        "regime-v1.0.0",
        "regime_v01.0.0",
        "regime_v1.0.0-rc1",
        "Regime_v1.0.0",
        "_v1.0.0",
        "v1.0.0",
        "regime__x_v1.0.0",
        "../regime_v1.0.0",
        "regime_v1.0.0 ",
        "regime_v1.0.0\n",
        "x" * 65 + "_v1.0.0",
        "",
    ],
)
def test_model_id_in_another_form_is_refused(text: str) -> None:
    assert not is_model_id(text)


def test_binding_takes_every_field_from_the_manifest() -> None:
    manifest = manifest_of()
    binding = binding_of(manifest)

    assert binding.signal_source is SignalSource.MODEL
    assert binding.model_id == f"{manifest.model_name}_{manifest.model_version}"
    assert binding.model_version_hash == manifest.model_version_hash
    same = set(FIELDS) & set(binding.__struct_fields__)
    assert len(same) == 9
    for name in same:
        assert getattr(binding, name) == getattr(manifest, name)


def test_binding_differs_when_any_field_of_the_manifest_does() -> None:
    """Even a field that the binding does not name is in it, through the manifest's hash."""
    manifest = manifest_of()
    other = structs.replace(manifest, framework="lightgbm")

    assert binding_of(other).binding_hash != binding_of(manifest).binding_hash


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"schema":"detent.golden.v1","rows":[]}',
        b'{"schema":"detent.golden.v1","rows":[{"values":"00","direction":null}]}',
        b'{"schema":"detent.manifest.v1","rows":[]}',
    ],
)
def test_golden_set_that_proves_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidField):
        parse_golden(text)
