"""Proves that the seed's settings file is taken as it is, and anything else is named."""

from pathlib import Path

import pytest

from detent.adapters.ml_settings import read_ml_settings
from detent.contracts.errors import InvalidField
from detent.servers.policy.settings import PolicySettings

ENABLEMENT = """
ml:
  enabled: false              # MUST be explicitly enabled
  model_dir: "var/models/regime_v1"
  max_inference_latency_ms: 10
  fallback_on_error: "neutral"  # "neutral" | "previous" | "error"
  use_l2_features: true
  use_l1_features: true
"""
MODELS = """
ml:
  enabled: true
  calibration:
    model: "lightgbm"
    retrain_interval_days: 7
    min_training_samples: 10000
  toxicity_prediction:
    model: "lightgbm"
    lookback_windows: [10, 30, 60]
    prediction_horizon_s: 60
  fill_probability:
    model: "lightgbm"
    features:
      - "distance_bps"
      - "spread_bps"
      - "ofi_zscore"
      - "depth_imbalance"
      - "natr_14_5m"
  monitoring:
    drift_check_interval_hours: 1
    accuracy_threshold: 0.7
    drift_threshold: 0.2
  registry:
    path: "models/"
    max_versions: 10
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ml.yaml"
    path.write_text(text)
    return path


@pytest.mark.proves("R74", "R262", "R263")
def test_both_files_of_the_seed_are_taken_as_they_are(tmp_path: Path) -> None:
    first = read_ml_settings(written(tmp_path, ENABLEMENT))
    second = read_ml_settings(written(tmp_path, MODELS))

    assert (first.enabled, first.model_dir, first.fallback_on_error) == (
        False,
        "var/models/regime_v1",
        "neutral",
    )
    assert second.enabled
    assert (second.monitoring.accuracy_threshold, second.monitoring.drift_threshold) == (0.7, 0.2)
    assert (second.registry.path, second.registry.max_versions) == ("models/", 10)


@pytest.mark.proves("R74")
@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        pytest.param("ml: {enabeld: true}", "ml.enabeld", "enabled", id="unknown key"),
        pytest.param(
            "ml: {registry: {max_version: 3}}",
            "ml.registry.max_version",
            "one of max_versions, path",
            id="unknown key inside",
        ),
        pytest.param("ml: {enabled: 1}", "ml.enabled", "boolean", id="not a switch"),
        pytest.param("ml: {enabled: 'yes'}", "ml.enabled", "boolean", id="a text"),
        pytest.param("ml: {fallback_on_error: halt}", "ml.fallback_on_error", "error", id="word"),
        pytest.param(
            "ml: {max_inference_latency_ms: 0}",
            "ml.max_inference_latency_ms",
            "greater",
            id="no time",
        ),
        pytest.param("ml: {monitoring: {drift_threshold: 2}}", "drift_threshold", "1", id="share"),
        pytest.param("model: {}", "ml", "under ml", id="another file"),
        pytest.param("[", "ml_settings", "YAML", id="no yaml"),
        pytest.param("", "ml_settings", "valid", id="empty"),
    ],
)
def test_anything_else_is_named_with_what_was_expected(
    tmp_path: Path, text: str, where: str, expected: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        read_ml_settings(written(tmp_path, text))

    assert where in refused.value.field
    assert expected in refused.value.expected


@pytest.mark.proves("R74")
@pytest.mark.parametrize(
    ("text", "variables", "flags"),
    [
        ("ml: {enabled: false}", {}, (False, False, False)),
        ("ml: {enabled: true}", {}, (True, False, True)),
        ("ml: {enabled: true, shadow_only: true}", {}, (True, True, False)),
        ("ml: {enabled: true}", {"DETENT_POLICY_ACTIVE_ENABLED": "false"}, (True, False, False)),
        ("ml: {enabled: false}", {"DETENT_POLICY_INFER_ENABLED": "true"}, (True, False, False)),
    ],
)
def test_policy_reads_the_file_and_a_variable_says_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    variables: dict[str, str],
    flags: tuple[bool, bool, bool],
) -> None:
    needed = {"ARTIFACTS_DIR": "a", "LEDGER_FILE": "l", "ML_SETTINGS": written(tmp_path, text)}
    for name, value in needed.items():
        monkeypatch.setenv(f"DETENT_POLICY_{name}", str(value))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = PolicySettings()

    assert (settings.infer_enabled, settings.shadow_mode, settings.active_enabled) == flags
