"""Makes small data sets: bars with an edge, and the folder of a data set of them."""

from __future__ import annotations

import functools
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np

from detent.contracts.binding import Head
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.offline.bars import BarTable, RawBar, table_of
from detent.offline.commands import silent
from detent.offline.datasets.building import DatasetRequest, build_dataset
from detent.offline.datasets.folder import Dataset, read_dataset
from detent.offline.datasets.manifest import CADENCE_MS_DEFAULT, DatasetSource

START_MS = 1_704_067_200_000
CREATED_AT = "2024-10-01T00:00:00Z"
DATASET_ID = "planted-15m"
# Seven months of bars of four hours, which both rise and fall: enough to promote on.
LONG_ID, LONG_BARS, LONG_MS = "planted-4h", 1_300, 4 * 3_600_000
SYMBOLS = ("AAA", "BBB")


def raw_bars(
    count: int, symbol: str, seed: int, *, interval_ms: int = CADENCE_MS_DEFAULT
) -> list[RawBar]:
    """Give bars whose returns follow one another, so that a model has an edge."""
    draws = np.random.default_rng(seed)
    # Volatility comes in waves, so that the heads of three classes have something to foresee.
    noise = draws.normal(0.0, 0.004, count) * (1.0 + 0.7 * np.sin(np.arange(count) / 40.0))
    returns = np.zeros(count)
    for index in range(1, count):
        returns[index] = 0.35 * returns[index - 1] + noise[index]
    closes = [Decimal(f"{close:.4f}") for close in 20_000.0 * np.exp(np.cumsum(returns))]
    volumes = draws.integers(1, 50, count)
    rows = []
    for index, close in enumerate(closes):
        opened = closes[max(index - 1, 0)]
        high, low = max(opened, close) + Decimal("1.5"), min(opened, close) - Decimal("1.25")
        rows.append(
            RawBar(
                row=index + 1,
                open_ts_ms=START_MS + index * interval_ms,
                symbol=symbol,
                numbers=(opened, high, low, close, Decimal(int(volumes[index]))),
            )
        )
    return rows


@functools.cache
def bars(count: int = 1_200, interval_ms: int = CADENCE_MS_DEFAULT) -> BarTable:
    """Give bars of two symbols."""
    rows = [
        row
        for seed, symbol in enumerate(SYMBOLS, start=3)
        for row in raw_bars(count, symbol, seed, interval_ms=interval_ms)
    ]
    return table_of("planted", rows)


def build(
    parent: Path,
    *,
    table: BarTable | None = None,
    head: Head = Head.DIRECTION,
    feature_set: FeatureSet | None = None,
    horizon_bars: int = 2,
    dataset_id: str = DATASET_ID,
    source: DatasetSource = DatasetSource.SYNTHETIC,
    evidence: Path | None = None,
) -> Path:
    """Build a data set of the bars."""
    found = bars() if table is None else table
    return build_dataset(
        found,
        feature_set or direction_bars_v1(found.interval_ms),
        DatasetRequest(
            dataset_id=dataset_id,
            source=source,
            created_at=CREATED_AT,
            head=head,
            horizon_bars=horizon_bars,
            horizon_id=f"h{horizon_bars}",
            evidence=evidence,
        ),
        out_dir=parent,
        progress=silent,
    )


@functools.cache
def _built() -> Path:
    return build(Path(tempfile.mkdtemp()))


@functools.cache
def dataset() -> Dataset:
    """Give the data set, verified."""
    return read_dataset(_built())


def dataset_in(parent: Path) -> Path:
    """Give a copy of its folder, free to be damaged."""
    return Path(shutil.copytree(_built(), parent / DATASET_ID))


def long_dataset(parent: Path, *, source: DatasetSource = DatasetSource.EXPORT) -> Path:
    """Build a data set that covers what promotion asks for."""
    evidence = parent / "cadence.md"
    parent.mkdir(parents=True, exist_ok=True)
    evidence.write_text("A test has no time for more bars.")
    return build(
        parent,
        table=bars(LONG_BARS, LONG_MS),
        dataset_id=LONG_ID,
        source=source,
        evidence=evidence,
    )


@functools.cache
def _long() -> Path:
    return long_dataset(Path(tempfile.mkdtemp()))


def long_dataset_in(parent: Path) -> Path:
    """Give a copy of the folder of one that may promote, free to be damaged."""
    return Path(shutil.copytree(_long(), parent / LONG_ID))
