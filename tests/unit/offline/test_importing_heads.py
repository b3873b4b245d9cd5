"""Importing any head: what its graph answers, with its outputs, calibration and fallback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.artifacts import artifact
from tests.unit.head_artifacts import FURTHER, calibration_of, graph_of, head_artifact
from tests.unit.offline.test_importing import all_facts, facts_in, refusal

from detent.adapters.artifact_store import Artifact, read_artifact
from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.calibration import calibration_bytes
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.reasons import Reason
from detent.offline.importing.importing import import_artifact

CREATED_AT = "2026-02-14T00:00:00Z"
Fields = dict[str, Any]


def legacy_of(folder: Path, model: bytes) -> Path:
    """Write the smallest artifact of form v1 around a graph."""
    path = folder / "old"
    path.mkdir()
    (path / "model.onnx").write_bytes(model)
    fields = {
        "schema_version": "v1",
        "model_file": "model.onnx",
        "sha256": {"model.onnx": sha256_hex(model)},
        "created_at": CREATED_AT,
    }
    (path / "manifest.json").write_text(json.dumps(fields))
    return path


def facts_of(head: Head, **changes: Any) -> Fields:
    """Give what a person says of a head's artifact; None takes a fact away."""
    manifest = head_artifact(head).manifest
    rows = [np.frombuffer(row.values, "<f4").tolist() for row in head_artifact(head).golden.rows]
    further = [to_json(output) for output in manifest.further_outputs]
    fields = all_facts() | {
        "created_at": CREATED_AT,
        "model_name": manifest.model_name,
        "head": str(head),
        "output_classes": list(manifest.output_classes),
        "further_outputs": further or None,
        "calibration": to_json(calibration_of(head)),
        "golden_inputs": [[str(value) for value in row] for row in rows],
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def graph(head: Head, **options: Any) -> bytes:
    width = len(artifact().manifest.input_features)
    return graph_of(head, options.pop("further", FURTHER.get(head, ())), width=width, **options)


def brought_in(tmp_path: Path, model: bytes, fields: Fields) -> Artifact:
    legacy = legacy_of(tmp_path, model)
    return read_artifact(
        import_artifact(legacy, facts=facts_in(tmp_path, fields), out_dir=tmp_path / "new")
    )


@pytest.mark.proves("R53", "R60")
@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("is_labelled", [False, True], ids=["bare", "labelled"])
def test_artifact_of_any_head_is_imported_with_the_answers_of_its_graph(
    tmp_path: Path, head: Head, is_labelled: bool
) -> None:
    found = brought_in(tmp_path, graph(head, extra_label=is_labelled), facts_of(head))
    expected = head_artifact(head)

    # Made by another way, from the same graph: the answers are the graph's, not the importer's.
    assert found.golden.rows == expected.golden.rows
    assert found.calibration == expected.calibration
    assert found.manifest.further_outputs == expected.manifest.further_outputs
    assert (found.manifest.input_name, found.manifest.output_name) == ("input", "probabilities")
    assert (found.manifest.input_shape, found.manifest.fallback) == ((), None)


def test_window_is_read_off_the_graph(tmp_path: Path) -> None:
    width = len(artifact().manifest.input_features)
    model = graph(Head.FILL, input_shape=(1, width))

    assert brought_in(tmp_path, model, facts_of(Head.FILL)).manifest.input_shape == (1, width)


@pytest.mark.proves("R148")
def test_regime_without_a_spacing_output_has_a_spacing_of_one(tmp_path: Path) -> None:
    fields = facts_of(Head.REGIME, further_outputs=None)
    found = brought_in(tmp_path, graph(Head.REGIME, further=()), fields)

    assert found.manifest.further_outputs == ()
    spacings = {row.regime.spacing_multiplier_x1000 for row in found.golden.rows if row.regime}
    assert spacings == {1000}


@pytest.mark.parametrize(
    ("given", "fallback"),
    [
        ({"mode": "error"}, RegimeFallback(mode=FallbackMode.ERROR)),
        (
            {"mode": "previous", "max_age_ms": 60_000},
            RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=60_000),
        ),
    ],
)
def test_fallback_that_is_stated_is_part_of_the_binding(
    tmp_path: Path, given: Fields, fallback: RegimeFallback
) -> None:
    found = brought_in(tmp_path, graph(Head.REGIME), facts_of(Head.REGIME, fallback=given))

    assert found.manifest.fallback == fallback
    assert found.pinned.binding.regime_fallback == fallback


@pytest.mark.parametrize("head", Head)
def test_calibration_may_lie_in_a_file_beside_the_facts(tmp_path: Path, head: Head) -> None:
    (tmp_path / "calibration.json").write_bytes(calibration_bytes(calibration_of(head)))
    fields = facts_of(head, calibration="calibration.json")

    assert brought_in(tmp_path, graph(head), fields).calibration == calibration_of(head)


@pytest.mark.proves("R329")
def test_origin_may_be_stated_where_the_form_has_no_place_for_it(tmp_path: Path) -> None:
    origin = {"git_sha": "cd" * 20, "dataset_id": "set_7", "notes": "by hand"}
    manifest = brought_in(tmp_path, graph(Head.FILL), facts_of(Head.FILL, **origin)).manifest

    assert {name: getattr(manifest, name) for name in origin} == origin


WRONG: list[tuple[Head, Fields, str]] = [
    (Head.REGIME, {"output_classes": ["MID", "LOW", "HIGH"]}, "output_classes"),
    (Head.REGIME, {"output_classes": ["HIGH", "MID", "LOW"]}, "output_classes"),
    (Head.REGIME, {"output_classes": ["low", "mid", "high"]}, "output_classes"),
    (Head.REGIME, {"fallback": {"mode": "neutral"}}, "fallback"),
    (Head.REGIME, {"fallback": {"mode": "previous"}}, "fallback.max_age_ms"),
    (Head.REGIME, {"fallback": "previous"}, "fallback"),
    (Head.FILL, {"fallback": {"mode": "error"}}, "fallback"),
    (Head.REGIME, {"further_outputs": "spacing_multiplier"}, "further_outputs"),
    (Head.REGIME, {"further_outputs": [{"name": "x"}]}, "further_outputs[0].classes"),
    (
        Head.REGIME,
        {"further_outputs": [{"name": "spacing_multiplier", "classes": ["other"]}]},
        "further_outputs",
    ),
    (Head.REGIME, {"calibration": {"method": "temperature"}}, "calibration.temperature"),
    (Head.REGIME, {"calibration": {"method": "guess"}}, "calibration.method"),
    (
        Head.REGIME,
        {"calibration": {"method": "temperature", "temperature": "0"}},
        "calibration.temperature",
    ),
    (Head.REGIME, {"calibration": "feature_set.json"}, "calibration.schema"),
    (Head.REGIME, {"calibration": "none.json"}, "calibration"),
    (Head.REGIME, {"calibration": ""}, "calibration"),
    (Head.REGIME, {"calibration": "a\0b"}, "calibration"),
    (Head.REGIME, {"calibration": 3}, "calibration"),
    (Head.REGIME, {"calibration": None}, "calibration"),
    (Head.BRACKETS, {"output_classes": None}, "output_classes"),
    (Head.REGIME, {"git_sha": "ab"}, "git_sha"),
    (Head.REGIME, {"dataset_id": "two words"}, "dataset_id"),
    (Head.REGIME, {"notes": ""}, "notes"),
]


@pytest.mark.proves("R251")
@pytest.mark.parametrize(("head", "changes", "field"), WRONG)
def test_fact_that_does_not_fit_the_head_is_refused_by_name(
    tmp_path: Path, head: Head, changes: Fields, field: str
) -> None:
    error = refusal(tmp_path, legacy_of(tmp_path, graph(head)), facts_of(head, **changes))

    assert isinstance(error, InvalidField)
    assert error.field == field


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        (Head.REGIME, {"calibration": to_json(calibration_of(Head.DIRECTION))}),
        (Head.DIRECTION, {"calibration": to_json(calibration_of(Head.BRACKETS))}),
        (Head.BRACKETS, {"output_classes": ["a", "b", "c", "d"]}),
    ],
)
def test_calibration_of_another_head_is_refused(
    tmp_path: Path, head: Head, changes: Fields
) -> None:
    error = refusal(tmp_path, legacy_of(tmp_path, graph(head)), facts_of(head, **changes))

    assert isinstance(error, ArtifactInvalid)
    assert error.gate_reason is Reason.CALIBRATION_MISSING


@pytest.mark.parametrize(
    "changes",
    [
        # Answered as 1.0 without a word, if it were let pass.
        {"further_outputs": None},
        {"further_outputs": [{"name": "spacing", "classes": ["spacing_multiplier"]}]},
    ],
)
def test_output_that_nobody_names_is_refused(tmp_path: Path, changes: Fields) -> None:
    legacy = legacy_of(tmp_path, graph(Head.REGIME))
    error = refusal(tmp_path, legacy, facts_of(Head.REGIME, **changes))

    assert "outputs of floats ['probabilities', 'spacing_multiplier']" in error.message
    assert "further_outputs" in error.message


def test_golden_row_without_an_answer_is_named(tmp_path: Path) -> None:
    fields = facts_of(Head.REGIME)
    fields["golden_inputs"][2] = ["1e20"] * len(artifact().manifest.input_features)
    error = refusal(tmp_path, legacy_of(tmp_path, graph(Head.REGIME)), fields)

    assert "OUTPUT_INVALID for golden_inputs[2]" in error.message
