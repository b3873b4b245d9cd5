"""Reads the settings of the feature process from its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from detent.core.features.market_state import SYMBOLS_MAX


class FeatureSettings(BaseSettings):
    """Holds the settings; the variables carry the prefix `DETENT_FEATURE_`.

    Attributes:
        listen: Address to serve on, `host:port`.
        artifacts_dir: Folder of artifact folders; their feature sets are served.
        symbols_max: Symbols beyond which a new one is refused.
        log_level: Level of the log.
        reflection: Whether the contract can be read from the server; off in production.
        otlp_endpoint: Where spans go, if anywhere.
        trace_file: File that spans are appended to as JSON lines, if any.
        drain_grace_s: How long calls in flight may finish after a stop, seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETENT_FEATURE_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: str = "127.0.0.1:7301"
    artifacts_dir: Path
    symbols_max: Annotated[int, Field(ge=1, le=1_000_000)] = SYMBOLS_MAX
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    reflection: bool = True
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    drain_grace_s: Annotated[float, Field(ge=0, le=600)] = 5.0
