"""Measure one way of computing the rows, in a process of its own.

Peak memory belongs to a process, so each way gets a fresh one: `python -m
benchmarks.features.measure WAY ROWS REPEATS` prints one JSON object.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.calls.feature import ModelInput
from detent.contracts.market import Bar
from detent.core.features.feature_set import DIRECTION_BARS_V1, HOUR_MS
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.rolling import iter_row_blocks
from detent.offline.bars import BarTable, RawBar, table_of
from detent.offline.commands import silent
from detent.offline.feature_build import build_features

if TYPE_CHECKING:
    import pandas as pd

START_MS = 1_600_000_000_000 // HOUR_MS * HOUR_MS
SEED = 20_260_101
WAYS = ("pandas", "rolled", "one by one", "file")
AGREE = 1e-3
# Integers and what is made of them may differ by a rounding that only one of the two does.
AGREE_SHARE = 0.99


class WayResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one way of computing the rows took.

    Attributes:
        way: One of `WAYS`.
        rows: Rows per repeat.
        times_s: Seconds of each repeat.
        idle_mib: Peak resident memory when the bars were ready, MiB.
        peak_mib: Peak resident memory at the end, MiB.
        agreement: Share of the values that agree with pandas within a thousandth.
    """

    way: str
    rows: int
    times_s: tuple[float, ...]
    idle_mib: float
    peak_mib: float
    agreement: float

    @property
    def rows_per_second(self) -> float:
        """Give the rate of the fastest repeat."""
        return self.rows / min(self.times_s)


def measured(way: str, *, rows: int, repeats: int) -> WayResult:
    """Measure a way in a fresh process."""
    words = [sys.executable, "-m", "benchmarks.features.measure", way, str(rows), str(repeats)]
    answer = subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
    return msgspec.json.decode(answer.stdout, type=WayResult)


def draw_bars(rows: int) -> BarTable:
    """Draw hourly bars of one symbol from a seed, with two decimals, as an exchange gives."""
    chance = np.random.default_rng(SEED)
    closes = np.maximum(20_000.0 * np.exp(np.cumsum(chance.normal(0.0, 0.004, rows))), 1.0)
    spans = chance.exponential(0.002, (rows, 2)) * closes[:, np.newaxis]
    raws = []
    for index, (close, (up, down)) in enumerate(zip(closes, spans, strict=True)):
        price = Decimal(f"{close:.2f}")
        high, low = price + Decimal(f"{up:.2f}"), price - Decimal(f"{down:.2f}")
        numbers = (price, high, max(low, Decimal("0.01")), price, Decimal(1))
        open_ts_ms = START_MS + index * HOUR_MS
        raws.append(RawBar(row=index + 1, open_ts_ms=open_ts_ms, symbol="BTCUSDT", numbers=numbers))
    return table_of("drawn", raws)


def _rolled(bars: tuple[Bar, ...]) -> NDArray[np.float32]:
    blocks = iter_row_blocks(DIRECTION_BARS_V1, bars)
    return np.concatenate([block.values for block in blocks])  # noqa: PD011 - no pandas here


def _one_by_one(bars: tuple[Bar, ...]) -> NDArray[np.float32]:
    width = len(DIRECTION_BARS_V1.features)
    values = np.full((len(bars), width), np.nan, dtype="<f4")
    for index, row in enumerate(iter_model_inputs(DIRECTION_BARS_V1, bars)):
        if isinstance(row, ModelInput):
            values[index] = np.frombuffer(row.values, dtype="<f4")
    return values


def _run(way: str, rows: int, repeats: int) -> WayResult:
    table = draw_bars(rows)
    bars = table.bars["BTCUSDT"]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(way, table, Path(folder))
        idle_mib = _peak_mib()
        times_s = []
        for _ in range(repeats):
            begin_s = time.perf_counter()
            values = work()
            times_s.append(time.perf_counter() - begin_s)
        peak_mib = _peak_mib()
    return WayResult(
        way=way,
        rows=rows,
        times_s=tuple(times_s),
        idle_mib=idle_mib,
        peak_mib=peak_mib,
        agreement=1.0 if way in ("pandas", "file") else _agreement(bars, values),
    )


def _work(way: str, table: BarTable, folder: Path) -> Callable[[], NDArray[np.float32]]:
    """Give what is measured; whatever it only needs once is done before."""
    bars = table.bars["BTCUSDT"]
    match way:
        case "pandas":
            from benchmarks.features.plain import plain_features  # noqa: PLC0415

            frame = _frame(bars)
            return lambda: plain_features(frame).to_numpy()
        case "rolled":
            return lambda: _rolled(bars)
        case "one by one":
            return lambda: _one_by_one(bars)
        case _:

            def build() -> NDArray[np.float32]:
                out = folder / "rows.parquet"
                build_features(table, DIRECTION_BARS_V1, out=out, force=True, progress=silent)
                return np.empty((0, 0), dtype="<f4")

            return build


def _frame(bars: tuple[Bar, ...]) -> "pd.DataFrame":
    from benchmarks.features.plain import frame_of  # noqa: PLC0415

    names = ("high", "low", "close")
    return frame_of({name: [float(getattr(bar, name)) for bar in bars] for name in names})


def _agreement(bars: tuple[Bar, ...], values: NDArray[np.float32]) -> float:
    from benchmarks.features.plain import plain_features  # noqa: PLC0415

    plain = plain_features(_frame(bars)).to_numpy()
    served = ~np.isnan(values).any(axis=1)
    share = np.isclose(values[served], plain[served], rtol=AGREE, atol=AGREE).mean()
    assert share > AGREE_SHARE, f"pandas computes something else: {share:.1%} of the values agree"
    return float(share)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    result = _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(msgspec.to_builtins(result)))
