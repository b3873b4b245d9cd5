"""Version numbers: what a change needs, and what says too little."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs
from tests.unit.artifacts import artifact
from tests.unit.head_artifacts import manifest_of_head

from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import Manifest, binding_of
from detent.contracts.model_version import (
    VersionStep,
    check_version_step,
    judge_change,
    version_numbers,
)

BEFORE = structs.replace(artifact().manifest, model_version="v1.2.3")
ERROR = RegimeFallback(mode=FallbackMode.ERROR)
CHANGES: list[tuple[dict[str, Any], VersionStep]] = [
    ({}, VersionStep.NONE),
    ({"created_at": "2024-01-16T10:30:00Z"}, VersionStep.PATCH),
    ({"calibration_version": "1" * 64}, VersionStep.PATCH),
    ({"data_cutoff_ts_ms": BEFORE.data_cutoff_ts_ms + 1}, VersionStep.PATCH),
    ({"architecture_id": "gbdt"}, VersionStep.PATCH),
    ({"notes": "again"}, VersionStep.PATCH),
    ({"feature_version": "1" * 64}, VersionStep.MINOR),
    ({"input_features": BEFORE.input_features[:-1]}, VersionStep.MINOR),
    ({"input_shape": (1, 11)}, VersionStep.MINOR),
    ({"horizon_bars": 9}, VersionStep.MAJOR),
    ({"label_definition": "another question"}, VersionStep.MAJOR),
    ({"output_name": "p"}, VersionStep.MAJOR),
    ({"input_name": "x"}, VersionStep.MAJOR),
    ({"horizon_bars": 9, "feature_version": "1" * 64}, VersionStep.MAJOR),
]


@pytest.mark.proves("R58")
@pytest.mark.parametrize(("changes", "step"), CHANGES)
def test_a_change_is_judged_by_what_it_breaks(changes: dict[str, Any], step: VersionStep) -> None:
    change = judge_change(BEFORE, structs.replace(BEFORE, **changes))

    assert change.step is step
    assert set(change.fields) == set(changes)


def test_every_field_is_judged() -> None:
    """A head, its classes and its fallback cannot change alone, so they are changed together."""
    regime = structs.replace(manifest_of_head(Head.REGIME), model_name=BEFORE.model_name)
    change = judge_change(BEFORE, regime)

    assert change.step is VersionStep.MAJOR
    assert {"head", "output_classes", "further_outputs"} <= set(change.fields)
    halting = structs.replace(regime, fallback=ERROR)
    assert judge_change(regime, halting).step is VersionStep.MAJOR


@pytest.mark.proves("R58")
@pytest.mark.parametrize(
    ("changes", "version", "fits"),
    [
        ({}, "v1.2.3", True),
        ({"notes": "again"}, "v1.2.3", False),
        ({"notes": "again"}, "v1.2.2", False),
        ({"notes": "again"}, "v1.2.4", True),
        ({"notes": "again"}, "v2.0.0", True),
        ({"feature_version": "1" * 64}, "v1.2.4", False),
        ({"feature_version": "1" * 64}, "v1.2.99", False),
        ({"feature_version": "1" * 64}, "v1.3.0", True),
        ({"horizon_bars": 9}, "v1.3.0", False),
        ({"horizon_bars": 9}, "v1.99.0", False),
        ({"horizon_bars": 9}, "v2.0.0", True),
        ({"horizon_bars": 9}, "v0.9.9", False),
    ],
)
def test_a_version_that_says_too_little_is_refused(
    changes: dict[str, Any], version: str, fits: bool
) -> None:
    after = structs.replace(BEFORE, model_version=version, **changes)

    if fits:
        assert set(check_version_step(BEFORE, after).fields) == set(changes)
        return
    with pytest.raises(InvalidField) as caught:
        check_version_step(BEFORE, after)
    assert caught.value.field == "model_version"
    assert next(iter(changes)) in caught.value.expected


@pytest.mark.proves("R58")
def test_however_small_the_step_the_binding_is_another() -> None:
    after: Manifest = structs.replace(BEFORE, model_version="v1.2.4", notes="again")

    assert check_version_step(BEFORE, after).step is VersionStep.PATCH
    assert binding_of(after).binding_hash != binding_of(BEFORE).binding_hash


def test_artifacts_of_different_lines_have_no_common_versions() -> None:
    with pytest.raises(InvalidField) as caught:
        judge_change(BEFORE, structs.replace(BEFORE, model_name="other"))

    assert caught.value.field == "model_name"


def test_numbers_compare_as_numbers() -> None:
    assert version_numbers("v1.10.0") > version_numbers("v1.9.99")
