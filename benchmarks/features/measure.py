"""Measure one way of computing the rows, in a process of its own.

Peak memory belongs to a process, so each way gets a fresh one: `python -m
benchmarks.features.measure WAY SET ROWS REPEATS` prints one JSON object.
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

from benchmarks.features.sets import SETS
from detent.contracts.calls.feature import ModelInput
from detent.contracts.market import Bar
from detent.core.features.feature_set import HOUR_MS, FeatureSet
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.rolling import iter_row_blocks
from detent.offline.bars import BarTable, RawBar, table_of
from detent.offline.commands import silent
from detent.offline.feature_build import build_features

if TYPE_CHECKING:
    import pandas as pd

START_MS = 1_600_000_000_000 // HOUR_MS * HOUR_MS
SEED = 20_260_101
SYMBOL = "BTCUSDT"
PANDAS_VALUES, PANDAS_ROWS = "pandas values", "pandas rows"
VALUES, ROWS, ONE_BY_ONE, FILE = "values", "rows", "one by one", "file"
WAYS = (PANDAS_VALUES, VALUES, PANDAS_ROWS, ROWS, FILE, ONE_BY_ONE)
# What each way is compared with: the same job, or the next that pandas does.
BESIDE = {VALUES: PANDAS_VALUES, ROWS: PANDAS_ROWS, FILE: PANDAS_ROWS, ONE_BY_ONE: PANDAS_ROWS}
# Live code computes fewer rows, or a run would take an hour.
ONE_BY_ONE_ROWS_MAX = 4_000
AGREE = 1e-3
# Integers and what is made of them may differ by a rounding that only one of the two does.
AGREE_SHARE = 0.99


class WayResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one way of computing the rows took.

    Attributes:
        way: One of `WAYS`.
        set_name: One of `SETS`.
        rows: Rows per repeat.
        times_s: Seconds of each repeat.
        idle_mib: Peak resident memory when the bars were ready, MiB.
        peak_mib: Peak resident memory at the end, MiB.
        agreement: Share of the values that agree with pandas within a thousandth.
    """

    way: str
    set_name: str
    rows: int
    times_s: tuple[float, ...]
    idle_mib: float
    peak_mib: float
    agreement: float

    @property
    def rows_per_second(self) -> float:
        """Give the rate of the fastest repeat."""
        return self.rows / min(self.times_s)


def measured(way: str, set_name: str, *, rows: int, repeats: int) -> WayResult:
    """Measure a way in a fresh process."""
    rows = min(rows, ONE_BY_ONE_ROWS_MAX) if way == ONE_BY_ONE else rows
    module = "benchmarks.features.measure"
    words = [sys.executable, "-m", module, way, set_name, str(rows), str(repeats)]
    answer = subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
    return msgspec.json.decode(answer.stdout, type=WayResult)


def draw_bars(rows: int) -> BarTable:
    """Draw hourly bars of one symbol from a seed, with two decimals, as an exchange gives."""
    chance = np.random.default_rng(SEED)
    closes = np.maximum(20_000.0 * np.exp(np.cumsum(chance.normal(0.0, 0.004, rows))), 1.0)
    spans = chance.exponential(0.002, (rows, 2)) * closes[:, np.newaxis]
    volumes = chance.exponential(50.0, rows)
    raws = []
    drawn = zip(closes, spans, volumes, strict=True)
    for index, (close, (up, down), volume) in enumerate(drawn):
        price = Decimal(f"{close:.2f}")
        high, low = price + Decimal(f"{up:.2f}"), price - Decimal(f"{down:.2f}")
        size = Decimal(f"{volume:.3f}")
        numbers = (price, high, max(low, Decimal("0.01")), price, size)
        open_ts_ms = START_MS + index * HOUR_MS
        raws.append(RawBar(row=index + 1, open_ts_ms=open_ts_ms, symbol=SYMBOL, numbers=numbers))
    return table_of("drawn", raws)


def rolled(
    feature_set: FeatureSet, bars: tuple[Bar, ...], *, hashed: bool = True
) -> NDArray[np.float32]:
    """Give the values of all rows, computed together."""
    blocks = iter_row_blocks(feature_set, bars, hashed=hashed)
    return np.concatenate([block.values for block in blocks])  # noqa: PD011 - no pandas here


def _one_by_one(feature_set: FeatureSet, bars: tuple[Bar, ...]) -> NDArray[np.float32]:
    values = np.full((len(bars), len(feature_set.features)), np.nan, dtype="<f4")
    for index, row in enumerate(iter_model_inputs(feature_set, bars)):
        if isinstance(row, ModelInput):
            values[index] = np.frombuffer(row.values, dtype="<f4")
    return values


def _run(way: str, set_name: str, rows: int, repeats: int) -> WayResult:
    table, feature_set = draw_bars(rows), SETS[set_name]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(way, feature_set, table, Path(folder))
        idle_mib = _peak_mib()
        times_s = []
        for _ in range(repeats):
            begin_s = time.perf_counter()
            values = work()
            times_s.append(time.perf_counter() - begin_s)
        peak_mib = _peak_mib()
    compared = way in (VALUES, ROWS, ONE_BY_ONE)
    return WayResult(
        way=way,
        set_name=set_name,
        rows=rows,
        times_s=tuple(times_s),
        idle_mib=idle_mib,
        peak_mib=peak_mib,
        agreement=_agreement(feature_set, table.bars[SYMBOL], values) if compared else 1.0,
    )


def _work(
    way: str, feature_set: FeatureSet, table: BarTable, folder: Path
) -> Callable[[], NDArray[np.float32]]:
    """Give what is measured; whatever it only needs once is done before."""
    bars = table.bars[SYMBOL]
    match way:
        case "pandas values" | "pandas rows":
            from benchmarks.features.plain import plain_features, plain_hashes  # noqa: PLC0415

            frame = _frame(bars)

            def plain() -> NDArray[np.float32]:
                values = plain_features(frame, feature_set)
                if way == PANDAS_ROWS:
                    assert plain_hashes(frame, values, feature_set, SYMBOL)
                return values.to_numpy()

            return plain
        case "values" | "rows":
            return lambda: rolled(feature_set, bars, hashed=way == ROWS)
        case "one by one":
            return lambda: _one_by_one(feature_set, bars)
        case _:

            def build() -> NDArray[np.float32]:
                out = folder / "rows.parquet"
                build_features(table, feature_set, out=out, force=True, progress=silent)
                return np.empty((0, 0), dtype="<f4")

            return build


def _frame(bars: tuple[Bar, ...]) -> "pd.DataFrame":
    from benchmarks.features.plain import COLUMNS, frame_of  # noqa: PLC0415

    frame = frame_of({name: [float(getattr(bar, name)) for bar in bars] for name in COLUMNS})
    frame["ts_ms"] = [bar.ts_ms for bar in bars]
    return frame


def _agreement(
    feature_set: FeatureSet, bars: tuple[Bar, ...], values: NDArray[np.float32]
) -> float:
    from benchmarks.features.plain import plain_features  # noqa: PLC0415

    plain = plain_features(_frame(bars), feature_set).to_numpy()
    served = ~np.isnan(values).any(axis=1)
    share = np.isclose(values[served], plain[served], rtol=AGREE, atol=AGREE).mean()
    assert share > AGREE_SHARE, f"pandas computes something else: {share:.1%} of the values agree"
    return float(share)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    result = _run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(msgspec.to_builtins(result)))
