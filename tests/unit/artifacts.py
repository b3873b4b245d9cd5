"""Makes bars with something to learn in them, and a small artifact out of those."""

from __future__ import annotations

import functools
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
from msgspec import structs

from detent.adapters.artifact_store import ARTIFACT_FILES, Artifact, read_artifact
from detent.contracts.calls.feature import ModelInput
from detent.contracts.canonical import sha256_hex
from detent.contracts.manifest import Manifest, parse_manifest
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.bars import BarTable, RawBar, table_of
from detent.offline.commands import build_artifact

HOUR_MS = 3_600_000
START_MS = 1_600_000_000_000 // HOUR_MS * HOUR_MS
CREATED_AT = "2024-01-15T10:30:00Z"
MODEL_NAME = "momentum_direction"
VERSION = "v1.2.3"
OTHER_VERSION = "v1.3.0"


def raw_bars(count: int, *, symbol: str = "BTCUSDT", seed: int = 7) -> list[RawBar]:
    """Give hourly bars whose returns follow one another, so that a model has an edge."""
    noise = np.random.default_rng(seed).normal(0.0, 0.004, count)
    returns = np.zeros(count)
    for index in range(1, count):
        returns[index] = 0.35 * returns[index - 1] + noise[index]
    closes = [Decimal(f"{close:.2f}") for close in 20_000.0 * np.exp(np.cumsum(returns))]
    rows = []
    for index, close in enumerate(closes):
        opened = closes[max(index - 1, 0)]
        high, low = max(opened, close) + Decimal("1.5"), min(opened, close) - Decimal("1.25")
        rows.append(
            RawBar(
                row=index + 1,
                open_ts_ms=START_MS + index * HOUR_MS,
                symbol=symbol,
                numbers=(opened, high, low, close, Decimal(10 + index % 7)),
            )
        )
    return rows


@functools.cache
def bar_table(count: int = 1_500) -> BarTable:
    """Give the bars as a table."""
    return table_of("synthetic", raw_bars(count))


def build(out_dir: Path, *, version: str = VERSION, feature_set: FeatureSet | None = None) -> Path:
    """Build an artifact from the bars."""
    return build_artifact(
        bar_table(),
        model_name=MODEL_NAME,
        version=version,
        horizon_bars=2,
        horizon_id="h2",
        created_at=CREATED_AT,
        out_dir=out_dir,
        feature_set=feature_set,
    )


@functools.cache
def _built() -> Path:
    return build(Path(tempfile.mkdtemp()))


@functools.cache
def _other_built() -> Path:
    """Build an artifact that differs from the first one in every file."""
    features = direction_bars_v1(HOUR_MS)
    fewer = structs.replace(features, name="fewer", features=features.features[:-1])
    return build(Path(tempfile.mkdtemp()), version=OTHER_VERSION, feature_set=fewer)


def artifact_in(parent: Path) -> Path:
    """Give a copy of the artifact, free to be damaged."""
    return Path(shutil.copytree(_built(), parent / _built().name))


def other_artifact_in(parent: Path) -> Path:
    """Give a copy of another sound artifact of the same model."""
    return Path(shutil.copytree(_other_built(), parent / _other_built().name))


def contents_of(path: Path) -> dict[str, bytes]:
    """Read every file of an artifact."""
    return {name: (path / name).read_bytes() for name in ARTIFACT_FILES}


@functools.cache
def artifact() -> Artifact:
    """Give the artifact, verified."""
    return read_artifact(_built())


@functools.cache
def model_inputs() -> tuple[ModelInput, ...]:
    """Give every model input of the bars."""
    rows = iter_model_inputs(artifact().pinned.feature_set, bar_table().bars["BTCUSDT"])
    return tuple(row for row in rows if isinstance(row, ModelInput))


def repinned(contents: dict[str, bytes], name: str, content: bytes) -> dict[str, bytes]:
    """Replace one file and its entry in the manifest, as someone with write access would."""
    manifest = contents["manifest.json"].decode("ascii")
    before = contents[name]
    manifest = manifest.replace(sha256_hex(before), sha256_hex(content))
    manifest = manifest.replace(sha256_hex(before)[:16], sha256_hex(content)[:16])
    manifest = manifest.replace(f'"size_bytes":{len(before)}}}', f'"size_bytes":{len(content)}}}')
    return {**contents, name: content, "manifest.json": manifest.encode("ascii")}


def manifest_of() -> Manifest:
    """Give the artifact's manifest."""
    return parse_manifest(contents_of(_built())["manifest.json"])
