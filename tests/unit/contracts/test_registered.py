"""Pointers of the registry: pinned, contained, and in production only with an origin."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs
from tests.unit.artifacts import manifest_of

from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.registered import ModelPointer, ModelStatus, RegisteredModel

MODEL = "direction_v1.2.3"
GOOD = ModelPointer(
    registry_id=f"{MODEL}_20250615_150640",
    status=ModelStatus.PRODUCTION,
    artifact_url=f"s3://models/{MODEL}",
    model_id=MODEL,
    model_version_hash="a" * 64,
    feature_version="b" * 64,
    git_sha="c" * 40,
    dataset_id="d" * 64,
    promoted_at_utc="2025-06-15T15:06:40Z",
    actor="quant",
    source="cli",
    notes=None,
)


@pytest.mark.proves("R330")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("model_id", "Direction_v1.2.3", id="name-in-capitals"),
        pytest.param("model_id", "dir-ection_v1.2.3", id="name-with-a-dash"),
        pytest.param("model_id", "direction", id="no-version"),
        pytest.param("registry_id", f"{MODEL}_20250615", id="no-time"),
        pytest.param("registry_id", "other_v1.0.0_20250615_150640", id="id-of-another"),
        pytest.param("artifact_url", f"/models/{MODEL}", id="no-url"),
        pytest.param("artifact_url", f"s3://models/../{MODEL}", id="out-of-the-folder"),
        pytest.param("artifact_url", "s3://models/other_v1.0.0", id="folder-of-another"),
        pytest.param("artifact_url", f"s3://mod els/{MODEL}", id="url-with-a-space"),
        pytest.param("model_version_hash", "a" * 63, id="short-hash"),
        pytest.param("model_version_hash", "A" * 64, id="hash-in-capitals"),
        pytest.param("feature_version", "", id="no-order-of-features"),
        pytest.param("git_sha", "C" * 40, id="commit-in-capitals"),
        pytest.param("git_sha", "c" * 39, id="short-commit"),
        pytest.param("git_sha", None, id="production-without-commit"),
        pytest.param("dataset_id", "", id="empty-data-set"),
        pytest.param("dataset_id", None, id="production-without-data-set"),
        pytest.param("promoted_at_utc", None, id="production-without-time"),
        pytest.param("promoted_at_utc", "2025-06-15T15:06:40", id="time-without-z"),
        pytest.param("promoted_at_utc", "2025-06-15T15:06:40+00:00", id="time-with-offset"),
        pytest.param("status", "active", id="unknown-stage"),
        pytest.param("actor", "", id="nobody"),
    ],
)
def test_a_pointer_that_pins_nothing_is_refused(field: str, value: Any) -> None:
    fields = to_json(GOOD)

    assert from_json(ModelPointer, fields) == GOOD
    with pytest.raises(InvalidField):
        from_json(ModelPointer, fields | {field: value})


@pytest.mark.parametrize("status", [ModelStatus.STAGED, ModelStatus.DEPRECATED])
def test_outside_production_an_origin_may_be_unknown(status: ModelStatus) -> None:
    bare = structs.replace(GOOD, status=status, git_sha=None, dataset_id=None, promoted_at_utc=None)

    assert bare.model_name == "direction"


def test_a_model_is_what_its_pointer_pins() -> None:
    with pytest.raises(InvalidField, match="model_version_hash"):
        RegisteredModel(pointer=GOOD, registered_at_ms=1_750_000_000_000, manifest=manifest_of())
