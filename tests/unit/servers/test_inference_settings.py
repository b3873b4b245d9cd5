"""Settings of the inference process: safe by default, and refused when malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from detent.servers.inference import main
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


@pytest.mark.parametrize(
    ("processors", "changed", "inline_s_max"),
    [
        (1, {}, 0.010),
        (1, {"MAX_INFERENCE_LATENCY_MS": "4"}, 0.004),
        (1, {"EXECUTION_PROVIDER": "cuda"}, 0.000_5),
        (2, {}, 0.000_5),
    ],
)
def test_a_worker_is_for_a_processor_of_its_own(
    environment: pytest.MonkeyPatch,
    processors: int,
    changed: dict[str, str],
    inline_s_max: float,
) -> None:
    """On one processor it would take turns with the event loop; a device works beside both."""
    for name, value in changed.items():
        environment.setenv(f"{PREFIX}{name}", value)
    environment.setattr(main, "cpu_count", lambda: processors)

    limits = main.limits_of(InferenceSettings())

    assert limits.workers == processors
    assert limits.inline_s_max == inline_s_max
