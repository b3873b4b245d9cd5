"""Read what the monitor process is told by its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from detent.adapters.ml_file_settings import MlFileSettings
from detent.adapters.process_settings import Address
from detent.adapters.signature_settings import SignatureSettings
from detent.contracts.monitoring import MonitorProfile, MonitorRules
from detent.core.rollout.judge import JudgeRules
from detent.core.rollout.tripwires import TripwireLimits
from detent.servers.monitor.rollouts import WatchRules


class MonitorSettings(SignatureSettings, MlFileSettings):
    """Holds the settings; the variables carry the prefix `DETENT_MONITOR_`.

    Attributes:
        listen: Address of `/metrics`, `/healthz` and `/readyz`, `host:port`.
        ledger: The policy service's ledger file, or a `postgresql://` address; model inputs
            are in the file alone.
        policy_target: Address of the policy service that takes the outcomes; None records none
            and only reads.
        artifacts_dir: Folder of artifact folders, which name the features; None numbers them.
        control_url: Control database whose rollouts are watched, `sqlite:///FILE` or
            `postgresql://USER@HOST/DATABASE`; None watches none.
        rollout_poll_s: Time between two looks at the rollouts.
        rollout_quiet_bars: So many bars without a row are said.
        rollout_latch_after: So many rollbacks of one model by ourselves switch it off until a
            person releases it; 0 never does.
        rollout_climbs: Whether shares are raised step by step by ourselves, when a step has
            lasted and the evidence suffices; promoting is a person's.
        rollout_alpha_bps: Chance that the test ever takes back a candidate that does no worse.
        rollout_bars_min: Bars that a promotion needs.
        rollout_symbols_min: Symbols that it needs.
        rollout_labelled_min: Outcomes that it needs.
        rollout_bars_max: Bars after which a rollout without a case is not promoted.
        rollout_window_bars: Bars that the tripwires count together.
        rollout_latency_p99_ms: The candidate's p99 while the stable model's is not above it.
        lease_s: How long a leader that says nothing stays leader.
        reference_file: Rows of the training, `.npy`, one column per feature of the one model;
            None takes what was served before.
        bars_max: The newest so many bars are looked at.
        profile: `standard`, or the seed's rules by name.
        check_interval_s: Time between two checks.
        accuracy_threshold_bps: Accuracy below which the seed's profile alerts.
        drift_threshold_bps: Growth of the errors above which accuracy has drifted.
        retrain_interval_days: Age at which a model is due for training.
        training_samples_min: Settled bars below which training is advised against.
        otlp_endpoint: Collector to send spans to.
        trace_file: File to append spans to.
        log_level: Level of the log.
    """

    ML_PART = "monitor"

    model_config = SettingsConfigDict(
        env_prefix="DETENT_MONITOR_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: Address = "127.0.0.1:7304"
    ledger: SecretStr
    policy_target: str | None = None
    artifacts_dir: Path | None = None
    control_url: SecretStr | None = None
    rollout_poll_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    rollout_quiet_bars: Annotated[int, Field(ge=1)] = 3
    rollout_latch_after: Annotated[int, Field(ge=0)] = 2
    rollout_climbs: bool = False
    rollout_alpha_bps: Annotated[int, Field(ge=1, le=9_999)] = 500
    rollout_bars_min: Annotated[int, Field(ge=1)] = 672
    rollout_symbols_min: Annotated[int, Field(ge=1)] = 5
    rollout_labelled_min: Annotated[int, Field(ge=1)] = 3_000
    rollout_bars_max: Annotated[int, Field(ge=1)] = 2_880
    rollout_window_bars: Annotated[int, Field(ge=3)] = 96
    rollout_latency_p99_ms: Annotated[int, Field(ge=1)] = 100
    lease_s: Annotated[float, Field(gt=0, le=600)] = 3.0
    reference_file: Path | None = None
    bars_max: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    profile: MonitorProfile = MonitorProfile.STANDARD
    check_interval_s: Annotated[int, Field(ge=1)] = 3_600
    accuracy_threshold_bps: Annotated[int, Field(ge=0, le=10_000)] = 7_000
    drift_threshold_bps: Annotated[int, Field(ge=0)] = 2_000
    retrain_interval_days: Annotated[int, Field(ge=1)] = 7
    training_samples_min: Annotated[int, Field(ge=1)] = 10_000
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def watch_rules(self) -> WatchRules:
        """Give the rules for rollouts as the watcher knows them."""
        return WatchRules(
            judge=JudgeRules(
                limits=TripwireLimits(
                    window_bars=self.rollout_window_bars,
                    latency_p99_us=1_000 * self.rollout_latency_p99_ms,
                ),
                alpha_bps=self.rollout_alpha_bps,
                bars_min=self.rollout_bars_min,
                symbols_min=self.rollout_symbols_min,
                labelled_min=self.rollout_labelled_min,
                bars_max=self.rollout_bars_max,
            ),
            poll_s=self.rollout_poll_s,
            quiet_bars=self.rollout_quiet_bars,
            latch_after=self.rollout_latch_after,
            climbs=self.rollout_climbs,
        )

    @property
    def rules(self) -> MonitorRules:
        """Give the rules as the core knows them."""
        return MonitorRules(
            profile=self.profile,
            check_interval_s=self.check_interval_s,
            accuracy_threshold_bps=self.accuracy_threshold_bps,
            drift_threshold_bps=self.drift_threshold_bps,
            retrain_interval_days=self.retrain_interval_days,
            training_samples_min=self.training_samples_min,
        )
