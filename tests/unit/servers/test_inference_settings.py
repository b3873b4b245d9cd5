"""Settings of the inference process: safe by default, and refused when malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from detent.servers.inference.settings import InferenceSettings

PREFIX = "DETENT_INFERENCE_"


@pytest.fixture(name="environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(f"{PREFIX}ARTIFACT_DIR", "artifacts/model_v1.0.0")
    return monkeypatch


def test_settings_default_to_the_documented_values(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(f"{PREFIX}MODEL_VERSION_HASH", "")
    settings = InferenceSettings()

    assert settings.listen == "127.0.0.1:7302"
    assert settings.artifact_dir == Path("artifacts/model_v1.0.0")
    assert settings.model_version_hash is None
    assert settings.execution_provider == "cpu"
    assert settings.max_inference_latency_ms == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_VERSION_HASH", "A" * 64),
        ("MODEL_VERSION_HASH", "a" * 63),
        ("EXECUTION_PROVIDER", "tpu"),
        ("MAX_INFERENCE_LATENCY_MS", "0"),
        ("MAX_INFERENCE_LATENCY_MS", "soon"),
        ("DRAIN_GRACE_S", "-1"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_settings_that_are_malformed_are_refused(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(f"{PREFIX}{name}", value)

    with pytest.raises(ValidationError):
        InferenceSettings()


def test_settings_without_an_artifact_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PREFIX}ARTIFACT_DIR", raising=False)

    with pytest.raises(ValidationError):
        InferenceSettings()
