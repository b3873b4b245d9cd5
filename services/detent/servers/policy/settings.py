"""Read what the policy process is told by its environment."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from detent.adapters.ml_file_settings import MlFileSettings
from detent.adapters.process_settings import Address
from detent.adapters.signature_settings import SignatureSettings
from detent.contracts.errors import InvalidField
from detent.core.ledger.ownership import Ownership
from detent.core.rollout.gates import Enablement
from detent.core.rollout.ladder import ArtifactState, Ladder
from detent.core.rollout.latch import LatchLimits
from detent.core.rollout.model_breaker import BreakerLimits
from detent.servers.policy.shadowing import ShadowLimits


class PolicySettings(SignatureSettings, MlFileSettings):
    """Holds the settings of the policy process; the model is off unless switched on.

    Attributes:
        listen: Address to serve on.
        metrics_listen: Address of `/metrics` for Prometheus, `host:port`; None serves none.
        artifacts_dir: Folder of artifact folders whose manifests may be bound.
        feature_target: Address of the feature service.
        inference_target: Address of the inference service.
        feature_targets: Addresses of other feature services, by binding hash or model id; a
            JSON object. What is not named goes to `feature_target`.
        inference_targets: The same of inference services: a rollout's two artifacts are served
            by two deployments.
        ledger_file: The one SQLite file.
        ledger_durability: `full`; `unsafe_memory` loses what was answered and is for the
            test that must fail with it.
        ledger_database_url: PostgreSQL that records are shipped to and read from, for
            example `postgresql://detent@postgres/ledger`; None ships nothing. Its user is a
            member of `detent_writer`; `detent ledger migrate` makes both.
        ledger_reserve_bytes: Disk space held back for exits when there is no other.
        anchor_file: Where signed chain heads are kept, outside the database; None keeps none.
        anchor_key_file: Ed25519 private key in PEM that signs them; needed with `anchor_file`.
        anchor_interval_s: How often.
        inputs_retention_days: How long model inputs are kept; 0 keeps none.
        replica_index: This replica's place among those that share the plans.
        replica_count: How many share the plans; fixed while plans are open.
        replica_targets: Address of each replica by index; a JSON list, needed for several.
        infer_enabled: First key to the model.
        active_enabled: Second key to the model.
        active_ack: The acknowledgement string.
        shadow_mode: Whether the model runs unused; not with `active_enabled`.
        shadow_deadline_ms: How long asking a shadow about a bar may take; no answer waits for it.
        shadow_rows_max: Rows that may wait to be asked about; those above are dropped, and 0
            asks no shadow at all.
        shadow_calls_max: Shadow askings at once.
        profile: `production` refuses to start without `active_allowed_envs`.
        active_allowed_envs: Environments in which the model may act; empty allows all.
        kill_switch: The configuration's kill switch.
        kill_file: Watched file that switches models off by its lines; None watches none.
        control_url: Control database whose kill switches are obeyed, `sqlite:///FILE` or
            `postgresql://USER@HOST/DATABASE`; None obeys none.
        latch_window_s: Data time within which a model's troubles are counted.
        latch_failures: Bars with a failing model after which it is latched off; 0 never does.
        latch_fallbacks: Bars that fell back though the model was wanted; 0 never does.
        latch_flips: Changes of side of one symbol's probability; 0 never does.
        breaker_rows: Rows within `breaker_window_s` before the breaker may open; 0 never opens it.
        breaker_window_s: Length of the window, and how long the breaker stays open.
        environment: Name of this environment, from `DETENT_ENV`.
        future_skew_ms: How far ahead of the clock a bar may close.
        replan_min_interval_s: Least data time between two replans of a plan; one that only
            tightens never waits.
        reflection: Whether the contract can be read from the server.
        otlp_endpoint: Collector to send spans to.
        trace_file: File to append spans to.
        drain_grace_s: How long calls in flight may finish.
        log_level: Least level that is logged.
    """

    ML_PART = "policy"

    model_config = SettingsConfigDict(
        env_prefix="DETENT_POLICY_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: Address = "127.0.0.1:7303"
    metrics_listen: Address | None = None
    artifacts_dir: Path
    feature_target: str = "127.0.0.1:7301"
    inference_target: str = "127.0.0.1:7302"
    feature_targets: dict[str, str] = Field(default_factory=dict)
    inference_targets: dict[str, str] = Field(default_factory=dict)
    ledger_file: Path
    ledger_durability: Literal["full", "unsafe_memory"] = "full"
    ledger_database_url: SecretStr | None = None
    ledger_reserve_bytes: int = Field(default=4 * 2**20, ge=0)
    anchor_file: Path | None = None
    anchor_key_file: Path | None = None
    anchor_interval_s: float = Field(default=60.0, gt=0)
    inputs_retention_days: int = Field(default=30, ge=0, le=3_650)
    replica_index: int = Field(default=0, ge=0)
    replica_count: int = Field(default=1, ge=1)
    replica_targets: tuple[str, ...] = ()
    infer_enabled: bool = False
    active_enabled: bool = False
    active_ack: str = ""
    shadow_mode: bool = False
    shadow_deadline_ms: int = Field(default=2_000, ge=1, le=60_000)
    shadow_rows_max: int = Field(default=20_000, ge=0, le=1_000_000)
    shadow_calls_max: int = Field(default=2, ge=1, le=64)
    profile: Literal["development", "production"] = "development"
    active_allowed_envs: tuple[str, ...] = ()
    kill_switch: bool = False
    kill_file: Path | None = None
    control_url: SecretStr | None = None
    latch_window_s: int = Field(default=86_400, gt=0)
    latch_failures: int = Field(default=30, ge=0)
    latch_fallbacks: int = Field(default=0, ge=0)
    latch_flips: int = Field(default=0, ge=0)
    breaker_rows: int = Field(default=0, ge=0)
    breaker_window_s: int = Field(default=300, gt=0)
    environment: str = Field(default="", validation_alias="DETENT_ENV")
    future_skew_ms: int = Field(default=1_000, ge=0)
    replan_min_interval_s: int = Field(default=900, ge=0)
    reflection: bool = True
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    drain_grace_s: float = Field(default=5.0, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _check_ledger(self) -> Self:
        """Refuse anchors that nobody signs, and replicas that have no address."""
        if (self.anchor_file is None) != (self.anchor_key_file is None):
            raise ValueError("anchor_file and anchor_key_file: found one, expected both or none")
        _ = self.ownership
        return self

    @property
    def ownership(self) -> Ownership:
        """Give the place of this replica; raises `ValueError` when there is no such place."""
        try:
            return Ownership(
                replica_index=self.replica_index,
                replica_count=self.replica_count,
                replica_targets=self.replica_targets,
            )
        except InvalidField as error:
            raise ValueError(error.message) from error

    def ladder(self, artifact: ArtifactState) -> Ladder:
        """Give what the rung of this process depends on."""
        return Ladder(
            enablement=self.enablement,
            shadow_mode=self.shadow_mode,
            is_production=self.profile == "production",
            artifact=artifact,
        )

    @property
    def shadow_limits(self) -> ShadowLimits:
        """Give what shadows may take."""
        return ShadowLimits(
            deadline_s=self.shadow_deadline_ms / 1_000,
            rows_max=self.shadow_rows_max,
            calls_max=self.shadow_calls_max,
        )

    @property
    def latch_limits(self) -> LatchLimits:
        """Give how often a model may misbehave before it is latched off."""
        return LatchLimits(
            window_ms=self.latch_window_s * 1_000,
            failures=self.latch_failures,
            fallbacks=self.latch_fallbacks,
            flips=self.latch_flips,
        )

    @property
    def breaker_limits(self) -> BreakerLimits:
        """Give when a model that fails is spared for a while."""
        return BreakerLimits(rows_min=self.breaker_rows, window_s=self.breaker_window_s)

    @property
    def enablement(self) -> Enablement:
        """Give the switches as the gates know them."""
        return Enablement(
            kill_switch=self.kill_switch,
            infer_enabled=self.infer_enabled,
            active_enabled=self.active_enabled,
            active_ack=self.active_ack,
            environment=self.environment,
            allowed_environments=self.active_allowed_envs,
        )
