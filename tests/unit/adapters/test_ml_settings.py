"""Proves that the seed's settings file is taken as it is, and anything else is named."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.unit.head_artifacts import head_artifact, write_head_artifact

from detent.adapters.artifact_store import ManifestFolder, PinnedManifest
from detent.adapters.ml_agreement import agreeing, check_agrees
from detent.adapters.ml_settings import (
    DEFAULT_HORIZON_S,
    DEFAULT_WINDOWS,
    FILL_FEATURES,
    read_ml_settings,
)
from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.monitoring import MonitorProfile, MonitorRules
from detent.core.features.engine import BookConfig, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.shipped_sets import grinder_feature_order_v1
from detent.offline.heads.fill import FEATURES
from detent.offline.score_labels import ToxicityConfig
from detent.servers.monitor.settings import MonitorSettings
from detent.servers.policy.main import manifests
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


@pytest.mark.proves("R262")
def test_the_monitor_takes_what_the_file_states_and_a_variable_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
ml:
  calibration: {retrain_interval_days: 3, min_training_samples: 500}
  monitoring: {drift_check_interval_hours: 2, accuracy_threshold: 0.6, drift_threshold: 0.1}
"""
    monkeypatch.setenv("DETENT_MONITOR_LEDGER", "l")
    monkeypatch.setenv("DETENT_MONITOR_ML_SETTINGS", str(written(tmp_path, text)))
    monkeypatch.setenv("DETENT_MONITOR_DRIFT_THRESHOLD_BPS", "1500")
    rules = MonitorSettings().rules

    assert rules == MonitorRules(
        profile=MonitorProfile.SEED,
        check_interval_s=7_200,
        accuracy_threshold_bps=6_000,
        drift_threshold_bps=1_500,
        retrain_interval_days=3,
        training_samples_min=500,
    )


@pytest.mark.proves("R262")
def test_the_seeds_file_gives_the_monitor_the_seeds_rules_and_another_none(
    tmp_path: Path,
) -> None:
    seeds = read_ml_settings(written(tmp_path, MODELS))
    first = read_ml_settings(written(tmp_path, ENABLEMENT))

    assert seeds.is_monitored
    assert seeds.monitor["check_interval_s"] == 3_600
    assert (seeds.monitor["accuracy_threshold_bps"], seeds.monitor["profile"]) == (7_000, "seed")
    assert (first.is_monitored, first.monitor) == (False, {})


@pytest.mark.proves("R74")
@pytest.mark.parametrize(
    ("text", "where", "instead"),
    [
        ("{canary_pct: 5}", "ml.canary_pct", "detent rollout percent"),
        ("{calibration: {model: logistic}}", "ml.calibration.model", "--candidate"),
        ("{toxicity_prediction: {model: logistic}}", "ml.toxicity_prediction.model", "heads"),
        (
            "{toxicity_prediction: {lookback_windows: [5]}}",
            "ml.toxicity_prediction.lookback_windows",
            "detent features",
        ),
        (
            "{toxicity_prediction: {prediction_horizon_s: 30}}",
            "ml.toxicity_prediction.prediction_horizon_s",
            "detent dataset build",
        ),
        ("{fill_probability: {model: logistic}}", "ml.fill_probability.model", "heads"),
        ("{fill_probability: {features: [a]}}", "ml.fill_probability.features", "heads"),
    ],
)
def test_what_the_file_does_not_set_is_refused_with_what_does(
    tmp_path: Path, text: str, where: str, instead: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        read_ml_settings(written(tmp_path, f"ml: {text}"))

    assert refused.value.field == where
    assert instead in refused.value.expected


def test_what_the_file_states_of_training_is_what_trains() -> None:
    assert FILL_FEATURES == FEATURES
    default = ToxicityConfig()
    assert (
        default.lookback_windows,
        default.prediction_horizon_s,
    ) == (DEFAULT_WINDOWS, DEFAULT_HORIZON_S)


def pinned_of(head: Head, fallback: RegimeFallback | None = None, **changes: Any) -> PinnedManifest:
    return structs.replace(head_artifact(head, fallback).pinned, **changes)


BOOKED = FeatureSet(
    name="booked",
    features=(feature(FeatureTransform.DEPTH_IMBALANCE),),
    engine=EngineConfig(book=BookConfig()),
)
QUOTED = grinder_feature_order_v1(60_000)
PREVIOUS = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=60_000)
ERROR = RegimeFallback(mode=FallbackMode.ERROR)


@pytest.mark.proves("R74")
@pytest.mark.parametrize(
    ("text", "pinned", "message"),
    [
        ("{use_l1_features: false}", pinned_of(Head.REGIME), ""),
        (
            "{use_l1_features: false}",
            pinned_of(Head.REGIME, feature_set=QUOTED),
            "use_l1_features: found false, expected true: it reads",
        ),
        ("{use_l2_features: false}", pinned_of(Head.REGIME), ""),
        (
            "{use_l2_features: false}",
            pinned_of(Head.REGIME, feature_set=BOOKED),
            "use_l2_features: found false, expected true: it reads depth_imbalance",
        ),
        ("{fallback_on_error: neutral}", pinned_of(Head.REGIME), ""),
        ("{fallback_on_error: previous}", pinned_of(Head.REGIME, PREVIOUS), ""),
        ("{fallback_on_error: error}", pinned_of(Head.REGIME, ERROR), ""),
        (
            "{fallback_on_error: error}",
            pinned_of(Head.REGIME, PREVIOUS),
            "fallback_on_error: found error, expected previous",
        ),
        (
            "{fallback_on_error: previous}",
            pinned_of(Head.REGIME),
            "fallback_on_error: found previous, expected neutral, which",
        ),
        (
            "{fallback_on_error: previous}",
            pinned_of(Head.FILL),
            "fallback_on_error: found previous, expected neutral: only a regime",
        ),
    ],
)
def test_what_is_bound_and_what_the_file_says_agree_or_the_artifact_is_refused(
    tmp_path: Path, text: str, pinned: PinnedManifest, message: str
) -> None:
    settings = read_ml_settings(written(tmp_path, f"ml: {text}"))
    key = "a" * 64
    folder = agreeing(settings, ManifestFolder(accepted={key: pinned}, refused={}))
    if not message:
        check_agrees(settings, pinned)
        assert folder.accepted == {key: pinned}
        return
    with pytest.raises(ArtifactInvalid, match=message):
        check_agrees(settings, pinned)
    assert folder.accepted == {}
    assert list(folder.refused) == [pinned.manifest.model_id]


@pytest.mark.proves("R74")
def test_policy_binds_nothing_that_the_file_switches_off(tmp_path: Path) -> None:
    artifact = write_head_artifact(tmp_path / "artifacts", Head.DIRECTION)
    text = f"ml: {{model_dir: {artifact}, fallback_on_error: error}}"
    folder = manifests(
        PolicySettings(ledger_file=tmp_path / "l", ml_settings=written(tmp_path, text))
    )

    assert folder.accepted == {}
    assert "fallback_on_error" in folder.refused[artifact.name].message
