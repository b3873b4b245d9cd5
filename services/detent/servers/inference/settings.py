"""Read the settings of the inference process from its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from detent.adapters.process_settings import Address
from detent.adapters.signature_settings import SignatureSettings
from detent.contracts.certificate import THREADS_MAX


class InferenceSettings(SignatureSettings):
    """Says where to listen, what to serve and on what.

    Attributes:
        listen: `host:port`.
        artifact_dir: Directory of the one artifact that is served.
        model_version_hash: The only manifest hash that may be served, 64 hex; without it
            the directory's own manifest is believed, and bindings still refuse another.
        execution_provider: What runs the graph; there is no quiet step down.
        max_inference_latency_ms: Longer answers are dropped, milliseconds.
        batch_window_us: How long a call waits for others to join its run, microseconds; at 0
            a short run waits for nobody, and longer ones are joined while the workers are busy.
        batch_rows_max: Rows beyond which no further call joins a run.
        queue_rows_max: Rows that may wait; more are answered `INFERENCE_OVERLOADED`.
        threads: Threads of one run; more than one is served only if it gives the same bits.
        workers: Runs at once; without it as many as the quota has processors.
        log_level: Level of the log.
        reflection: Whether the contract can be read from the server.
        otlp_endpoint: Where spans go, or nowhere.
        trace_file: File for spans as JSON lines, or none.
        drain_grace_s: How long calls in flight may finish after a stop, seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETENT_INFERENCE_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: Address = "127.0.0.1:7302"
    artifact_dir: Path
    model_version_hash: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    execution_provider: Literal["cpu", "cuda"] = "cpu"
    max_inference_latency_ms: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_window_us: Annotated[int, Field(ge=0, le=100_000)] = 0
    batch_rows_max: Annotated[int, Field(ge=1, le=5_000)] = 1_024
    queue_rows_max: Annotated[int, Field(ge=5_000, le=1_000_000)] = 16_384
    threads: Annotated[int, Field(ge=1, le=THREADS_MAX)] = 1
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    reflection: bool = True
    otlp_endpoint: str | None = None
    trace_file: Path | None = None
    drain_grace_s: Annotated[float, Field(ge=0, le=600)] = 5.0
