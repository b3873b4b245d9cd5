"""Runs an inference service as a process of its own, and asks it as any client would."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from detent.adapters.artifact_store import Artifact
from detent.api.v1 import feature_service_pb2, inference_service_pb2, inference_service_pb2_grpc
from detent.core.features.model_input import features_hash
from detent_cli.stack import Stack, StackOptions

TS_MS = 1_700_000_000_000
SYMBOL = "BTCUSDT"
TIMEOUT_S = 60
SNAPSHOT_HASH = "5" * 64
Rows = Sequence[inference_service_pb2.InferenceRow]


@contextlib.contextmanager
def inference(artifact_dir: Path, state_dir: Path, **settings: object) -> Iterator[Stack]:
    """Start one inference process; settings are those of `DETENT_INFERENCE_`."""
    environment = {f"DETENT_INFERENCE_{name.upper()}": str(v) for name, v in settings.items()}
    patient = {"DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS": "10000"}
    stack = Stack(
        StackOptions(
            artifact_dir=artifact_dir, state_dir=state_dir, environment=patient | environment
        )
    )
    try:
        stack.start("inference")
        yield stack
    finally:
        stack.stop_all()


def rows_around(artifact: Artifact, count: int, *, seed: int = 5) -> list[bytes]:
    """Draw model inputs around the golden rows."""
    golden = np.frombuffer(b"".join(row.values for row in artifact.golden.rows), "<f4")
    golden = golden.reshape(len(artifact.golden.rows), -1)
    chance = np.random.default_rng(seed)
    factors = chance.normal(1.0, 0.5, (count, golden.shape[1])).astype(np.float32)
    return [row.tobytes() for row in golden[np.arange(count) % len(golden)] * factors]


def requests_of(artifact: Artifact, values: Sequence[bytes]) -> list[object]:
    """Give a row of the wire per model input, with the hash that belongs to it."""
    rows: list[object] = []
    for index, content in enumerate(values):
        ts_ms = TS_MS + index
        hashed = features_hash(
            artifact.manifest.feature_version,
            symbol=SYMBOL,
            ts_ms=ts_ms,
            snapshot_hashes=(SNAPSHOT_HASH,),
            values=content,
        )
        given = feature_service_pb2.ModelInput(
            ts_ms=ts_ms, values=content, features_hash=hashed, snapshot_hashes=(SNAPSHOT_HASH,)
        )
        rows.append(inference_service_pb2.InferenceRow(symbol=SYMBOL, model_input=given))
    return rows


def answers_digest(
    target: str, binding_hash: str, rows: Rows, *, size: int, callers: int
) -> tuple[str, int]:
    """Ask for rows in batches, from several callers at once.

    Returns:
        The digest of every answer in the order of the rows, latency left out, and how many
        rows were refused.
    """
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with grpc.insecure_channel(target) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

        def ask(batch: Rows) -> inference_service_pb2.InferSignalsResponse:
            request = inference_service_pb2.InferSignalsRequest(
                binding_hash=binding_hash, rows=batch
            )
            return stub.InferSignals(request, timeout=TIMEOUT_S)

        with ThreadPoolExecutor(callers) as pool:
            responses = list(pool.map(ask, batches))
    digest, refused = hashlib.sha256(), 0
    for response in responses:
        for row in response.rows:
            refused += row.WhichOneof("outcome") == "refusal"
            row.signal.inference_latency_us = 0
            digest.update(row.SerializeToString(deterministic=True))
    return digest.hexdigest(), refused
