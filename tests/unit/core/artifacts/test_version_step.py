"""Versions: what changed decides which part has to rise."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs
from tests.unit.artifacts import manifest_of

from detent.contracts.binding import TrainingWindow
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import Manifest, binding_of
from detent.core.artifacts.version_step import (
    STEPS,
    VersionStep,
    check_successor,
    manifest_differences,
    step_needed,
    step_taken,
    version_after,
)

BASE = manifest_of()
FEATURES = BASE.input_features


def changed(version: str = "v1.2.4", **changes: Any) -> Manifest:
    return structs.replace(BASE, model_version=version, **changes)


CASES: list[tuple[dict[str, Any], VersionStep]] = [
    ({}, VersionStep.NONE),
    ({"created_at": "2025-01-01T00:00:00Z"}, VersionStep.PATCH),
    ({"calibration_version": "0" * 64}, VersionStep.PATCH),
    ({"data_cutoff_ts_ms": BASE.data_cutoff_ts_ms + 1}, VersionStep.PATCH),
    (
        {
            "training_window": TrainingWindow(
                start_ts_ms=BASE.training_window.start_ts_ms + 1,
                end_ts_ms=BASE.training_window.end_ts_ms,
            )
        },
        VersionStep.PATCH,
    ),
    (
        {"training_metadata": structs.replace(BASE.training_metadata, test_accuracy_bps=1)},
        VersionStep.PATCH,
    ),
    ({"architecture_id": "gradient_boosting"}, VersionStep.MINOR),
    ({"framework": "lightgbm"}, VersionStep.MINOR),
    ({"feature_version": "0" * 64}, VersionStep.MINOR),
    ({"input_features": (*FEATURES, "one_more")}, VersionStep.MINOR),
    ({"input_features": FEATURES[:-1]}, VersionStep.MAJOR),
    ({"input_features": FEATURES[::-1]}, VersionStep.MAJOR),
    ({"horizon_bars": BASE.horizon_bars + 1}, VersionStep.MAJOR),
    ({"horizon_id": "other"}, VersionStep.MAJOR),
    ({"label_definition": "another question"}, VersionStep.MAJOR),
    ({"bar_interval_ms": 60_000}, VersionStep.MAJOR),
    ({"input_name": "x"}, VersionStep.MAJOR),
    ({"output_name": "y"}, VersionStep.MAJOR),
]


@pytest.mark.proves("R58")
@pytest.mark.parametrize(("changes", "step"), CASES)
def test_each_change_takes_its_step_and_no_smaller_one(
    changes: dict[str, Any], step: VersionStep
) -> None:
    assert step_needed(BASE, changed(**changes)) is step
    for version, taken in (
        ("v1.2.4", VersionStep.PATCH),
        ("v1.3.0", VersionStep.MINOR),
        ("v2.0.0", VersionStep.MAJOR),
    ):
        after = changed(version, **changes)
        assert step_taken(BASE, after) is taken
        if taken >= step:
            check_successor(BASE, after)
        else:
            with pytest.raises(InvalidField, match=version_after("v1.2.3", step)) as caught:
                check_successor(BASE, after)
            assert caught.value.field == "model_version"


@pytest.mark.proves("R58")
@pytest.mark.parametrize("changes", [changes for changes, _ in CASES])
def test_every_change_needs_a_binding_of_its_own(changes: dict[str, Any]) -> None:
    """Even a patch is not quietly the same model."""
    assert binding_of(changed(**changes)).binding_hash != binding_of(BASE).binding_hash


@pytest.mark.parametrize("version", ["v1.2.3", "v1.2.2", "v1.1.9", "v0.9.9"])
def test_version_that_is_not_later_is_refused(version: str) -> None:
    with pytest.raises(InvalidField, match="later than"):
        check_successor(BASE, changed(version))


def test_another_line_is_no_successor() -> None:
    with pytest.raises(InvalidField) as caught:
        check_successor(BASE, changed(model_name="other"))
    assert caught.value.field == "model_name"


def test_differences_name_features_files_and_fields() -> None:
    files = tuple(
        structs.replace(file, sha256="0" * 64) if file.path == "golden.json" else file
        for file in BASE.files
    )
    better = structs.replace(BASE.training_metadata.metrics[0], value=1)
    metadata = structs.replace(
        BASE.training_metadata,
        train_samples=5,
        metrics=(better, *BASE.training_metadata.metrics[1:]),
    )
    after = changed(input_features=(*FEATURES[1:], "new"), files=files, training_metadata=metadata)
    found = {one.what: (one.before, one.after) for one in manifest_differences(BASE, after)}

    assert found[f"feature {FEATURES[0]}"] == (FEATURES[0], None)
    assert found["feature new"] == (None, "new")
    assert found["file golden.json"][1] == "0" * 64
    assert found["training_metadata.train_samples"][1] == 5
    assert found[f"metric {better.name}"][1] == 1
    assert sum(what.startswith("metric ") for what in found) == 1
    assert found["model_version"] == ("v1.2.3", "v1.2.4")
    assert manifest_differences(BASE, BASE) == ()


def test_field_that_nobody_judged_asks_for_a_major_step() -> None:
    """Control: the table names no field that a binding's question depends on."""
    question = {"head", "horizon_id", "horizon_bars", "label_definition", "output_classes"}

    assert question & set(STEPS) == set()
