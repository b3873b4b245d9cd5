"""Read what the policy process is told by its environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from detent.adapters.signature_settings import SignatureSettings
from detent.core.rollout.gates import Enablement


class PolicySettings(SignatureSettings):
    """Holds the settings of the policy process; the model is off unless switched on.

    Attributes:
        listen: Address to serve on.
        artifacts_dir: Folder of artifact folders whose manifests may be bound.
        feature_target: Address of the feature service.
        inference_target: Address of the inference service.
        ledger_file: The one SQLite file.
        ledger_durability: `full`; `unsafe_memory` loses what was answered and is for the
            test that must fail with it.
        infer_enabled: First key to the model.
        active_enabled: Second key to the model.
        active_ack: The acknowledgement string.
        active_allowed_envs: Environments in which the model may act; empty allows all.
        kill_switch: The configuration's kill switch.
        environment: Name of this environment, from `DETENT_ENV`.
        future_skew_ms: How far ahead of the clock a bar may close.
        reflection: Whether the contract can be read from the server.
        otlp_endpoint: Collector to send spans to.
        trace_file: File to append spans to.
        drain_grace_s: How long calls in flight may finish.
        log_level: Least level that is logged.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETENT_POLICY_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: str = "127.0.0.1:7303"
    artifacts_dir: Path
    feature_target: str = "127.0.0.1:7301"
    inference_target: str = "127.0.0.1:7302"
    ledger_file: Path
    ledger_durability: Literal["full", "unsafe_memory"] = "full"
    infer_enabled: bool = False
    active_enabled: bool = False
    active_ack: str = ""
    active_allowed_envs: tuple[str, ...] = ()
    kill_switch: bool = False
    environment: str = Field(default="", validation_alias="DETENT_ENV")
    future_skew_ms: int = Field(default=1_000, ge=0)
    reflection: bool = True
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    drain_grace_s: float = Field(default=5.0, ge=0)
    log_level: str = "INFO"

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
