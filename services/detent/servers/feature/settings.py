"""Reads the settings of the feature process from its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from detent.adapters.process_settings import Address
from detent.adapters.signature_settings import SignatureSettings
from detent.core.features.history import QUOTES_HELD_MAX
from detent.core.features.market_state import SYMBOLS_MAX


class FeatureSettings(SignatureSettings):
    """Holds the settings; the variables carry the prefix `DETENT_FEATURE_`.

    Attributes:
        listen: Address to serve on, `host:port`.
        artifacts_dir: Folder of artifact folders; their feature sets are served.
        symbols_max: Symbols beyond which a new one is refused.
        redis_url: Where the state is shared, `redis://host:6379/0`; in this process alone if unset.
        redis_prefix: What the keys of this environment begin with.
        redis_quotes_max: Quotes kept there per symbol; a restarted replica reads no further back.
        log_level: Level of the log.
        reflection: Whether the contract can be read from the server; off in production.
        otlp_endpoint: Where spans go, if anywhere.
        trace_file: File that spans are appended to as JSON lines, if any.
        drain_grace_s: How long calls in flight may finish after a stop, seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETENT_FEATURE_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: Address = "127.0.0.1:7301"
    artifacts_dir: Path
    symbols_max: Annotated[int, Field(ge=1, le=1_000_000)] = SYMBOLS_MAX
    redis_url: SecretStr | None = None
    redis_prefix: Annotated[str, Field(pattern="^[a-z0-9-]{1,64}$")] = "detent"
    redis_quotes_max: Annotated[int, Field(ge=QUOTES_HELD_MAX, le=10_000_000)] = 20_000
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    reflection: bool = True
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    drain_grace_s: Annotated[float, Field(ge=0, le=600)] = 5.0
