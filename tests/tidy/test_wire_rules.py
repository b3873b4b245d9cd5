"""The wire contract is linted, formatted, compatible, and equal to the code generated from it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tests.tidy import wire_contract
from tests.tidy.tree import report
from tests.tidy.wire_contract import BASELINE, GENERATED, PROTOS

SIGNAL = Path("detent/api/v1/ml_signal_snapshot.proto")


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    """Copy the protos, so that a test may damage them."""
    return Path(shutil.copytree(PROTOS, tmp_path / "protos"))


@pytest.fixture(name="descriptors")
def _descriptors(tmp_path: Path) -> FileDescriptorSet:
    return wire_contract.describe(PROTOS, tmp_path / "descriptors.binpb")


def _edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1)
    assert count == 1, f"{path.name} no longer has {pattern!r}: plant the offence elsewhere"
    path.write_text(text, encoding="utf-8")


def test_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    wire_contract.generate(PROTOS, tmp_path)
    fresh = tmp_path / wire_contract.PACKAGE_FOLDER
    offences = wire_contract.check_drift(fresh, GENERATED)

    assert list(fresh.glob("*_pb2.py"))
    assert not offences, report(offences)


def test_generated_code_of_the_open_inference_protocol_is_what_its_proto_generates(
    copy: Path, tmp_path: Path
) -> None:
    """It lies below our own package, so that `import inference` stays free for others."""
    fresh, planted = tmp_path / "fresh", tmp_path / "planted"
    for protos, out in ((PROTOS, fresh), (copy, planted)):
        if out is planted:
            _edit(protos / "inference/grpc_service.proto", r"bool live = 1;", "bool live = 2;")
        out.mkdir()
        wire_contract.generate_foreign(protos, out)
    committed, folder = GENERATED.parent / "inference", "services/detent/api/inference"
    offences = wire_contract.check_drift(fresh / "inference", committed, folder)
    reported = wire_contract.check_drift(planted / "inference", committed, folder)

    assert not offences, report(offences)
    assert [offence.path for offence in reported] == [f"{folder}/grpc_service_pb2.py"]


def test_drift_of_generated_code_is_reported(copy: Path, tmp_path: Path) -> None:
    """A field that was added to a proto without `make protos`, a stale file, a missing file."""
    _edit(copy / SIGNAL, r"(message MlSignalSnapshot \{)", r"\1\n  string planted = 999;")
    out = tmp_path / "out"
    out.mkdir()
    wire_contract.generate(copy, out)
    fresh = out / wire_contract.PACKAGE_FOLDER
    (fresh / "market_pb2.py").unlink()
    (fresh / "planted_pb2.py").write_text("", encoding="utf-8")

    paths = {Path(offence.path).name for offence in wire_contract.check_drift(fresh, GENERATED)}

    assert paths == {
        "ml_signal_snapshot_pb2.py",
        "ml_signal_snapshot_pb2.pyi",
        "market_pb2.py",
        "planted_pb2.py",
    }


def test_protos_are_clean() -> None:
    assert wire_contract.lint(PROTOS) == ""
    assert wire_contract.check_format(PROTOS) == ""


def test_an_unclean_proto_is_reported(copy: Path) -> None:
    _edit(copy / SIGNAL, r"(message MlSignalSnapshot \{)", r"\1\n      string plantedName=999;")

    assert "plantedName" in wire_contract.lint(copy)
    assert "plantedName" in wire_contract.check_format(copy)


@pytest.mark.proves("R239", "R314")
def test_protos_break_nobody_who_speaks_the_baseline() -> None:
    assert wire_contract.breaking(PROTOS, BASELINE) == ""


@pytest.mark.proves("R239", "R314")
@pytest.mark.parametrize("proto", ["feature_snapshot", "model_binding", "ml_signal_snapshot"])
@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        pytest.param(r"(  string \w+ = )\d+;", r"\g<1>999;", id="renumbered"),
        pytest.param(r"  string (\w+ = \d+;)", r"  int64 \1", id="retyped"),
        pytest.param(r"  string \w+ = \d+;", "", id="removed"),
    ],
)
def test_a_breaking_change_is_refused(
    copy: Path, proto: str, pattern: str, replacement: str
) -> None:
    """Each of these would make an old reader misread a new writer without an error."""
    _edit(copy / f"detent/api/v1/{proto}.proto", pattern, replacement)

    assert f"{proto}.proto" in wire_contract.breaking(copy, BASELINE)


@pytest.mark.proves("R16")
def test_no_field_is_a_float_or_unsigned(descriptors: FileDescriptorSet) -> None:
    offences = wire_contract.check_field_types(descriptors.file)

    assert {file.package for file in descriptors.file} == {"detent.api.v1"}
    assert not offences, report(offences)


@pytest.mark.proves("R16")
@pytest.mark.parametrize("kind", ["float", "double", "uint32", "uint64", "fixed32", "fixed64"])
def test_a_float_or_unsigned_field_is_reported(copy: Path, tmp_path: Path, kind: str) -> None:
    _edit(
        copy / SIGNAL,
        r"(message MlSignalSnapshot \{)",
        rf"\1\n  message Inner {{ optional {kind} planted = 1; }}",
    )
    planted = wire_contract.describe(copy, tmp_path / "planted.binpb")

    offences = wire_contract.check_field_types(planted.file)

    assert [o.what for o in offences] == [f"MlSignalSnapshot.Inner.planted is a {kind}"]


def test_messages_of_a_decision_begin_with_the_binding(descriptors: FileDescriptorSet) -> None:
    called = {m.name for file in descriptors.file for s in file.service for m in s.method}
    offences = wire_contract.check_binding_first(descriptors.file)

    assert len(called & wire_contract.DECISION_CALLS) >= 3
    assert not offences, report(offences)


def test_a_message_that_begins_otherwise_is_reported(copy: Path, tmp_path: Path) -> None:
    service = copy / "detent/api/v1/inference_service.proto"
    _edit(service, r"(message InferSignalsRequest \{[^}]*?)binding_hash = 1;", r"\1other = 1;")
    planted = wire_contract.describe(copy, tmp_path / "planted.binpb")

    offences = wire_contract.check_binding_first(planted.file)

    assert [o.what for o in offences] == [
        "field 1 of InferSignalsRequest is other, not binding_hash"
    ]
