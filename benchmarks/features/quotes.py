"""Measure how many quotes per second become bars and rows offline, in a process of its own.

`python -m benchmarks.features.quotes WAY QUOTES REPEATS` prints one JSON object. The quotes are
drawn from a seed and written to a parquet file first; reading it is part of what is measured.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detent.core.features.decisive_quotes import iter_decisive_quotes
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.history import SymbolHistory
from detent.offline.quote_columns import load_quote_columns

SYMBOL = "BTCUSDT"
MINUTE_MS = 60_000
START_MS = 1_600_000_020_000 // MINUTE_MS * MINUTE_MS
SEED = 20_260_102
# As many as an active pair has: about ten per second.
GAP_MEAN_MS = 100.0
COLUMNS, EACH = "columns", "each"
WAYS = (COLUMNS, EACH)
EACH_MAX = 200_000
ENGINE = EngineConfig(bar_interval_ms=MINUTE_MS, bar_source=BarSource.FROM_QUOTES)


class QuoteResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one way of taking quotes took.

    Attributes:
        way: One of `WAYS`.
        quotes: Quotes per repeat.
        bars: Bars held at the end.
        times_s: Seconds of each repeat.
        idle_mib: Peak resident memory before, MiB.
        peak_mib: Peak resident memory at the end, MiB.
    """

    way: str
    quotes: int
    bars: int
    times_s: tuple[float, ...]
    idle_mib: float
    peak_mib: float

    @property
    def quotes_per_second(self) -> float:
        """Give the rate of the fastest repeat."""
        return self.quotes / min(self.times_s)


def measured_quotes(way: str, *, quotes: int, repeats: int) -> QuoteResult:
    """Measure a way in a fresh process."""
    quotes = min(quotes, EACH_MAX) if way == EACH else quotes
    module = "benchmarks.features.quotes"
    words = [sys.executable, "-m", module, way, str(quotes), str(repeats)]
    answer = subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
    return msgspec.json.decode(answer.stdout, type=QuoteResult)


def draw_quotes(path: Path, quotes: int) -> None:
    """Write quotes of one symbol with two decimals to a parquet file."""
    chance = np.random.default_rng(SEED)
    bids = np.maximum(2_000_000 + np.cumsum(chance.integers(-40, 41, quotes)), 100)
    table = pa.table(
        {
            "ts_ms": START_MS + np.cumsum(chance.exponential(GAP_MEAN_MS, quotes)).astype("i8"),
            "symbol": pa.array([SYMBOL] * quotes).dictionary_encode(),
            "bid_price": bids / 100,
            "ask_price": (bids + chance.integers(1, 30, quotes)) / 100,
            "bid_qty": chance.integers(1, 90_000, quotes) / 1_000,
            "ask_qty": chance.integers(1, 90_000, quotes) / 1_000,
        }
    )
    pq.write_table(table, path)


def _taken(path: Path, way: str) -> SymbolHistory:
    history = SymbolHistory(SYMBOL, ENGINE)
    for columns in load_quote_columns(path):
        chosen = (
            iter_decisive_quotes(columns, MINUTE_MS)
            if way == COLUMNS
            else columns.quotes(np.arange(len(columns.ts_ms)))
        )
        for quote in chosen:
            history.add_quote(quote)
    return history


def _run(way: str, quotes: int, repeats: int) -> QuoteResult:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quotes.parquet"
        draw_quotes(path, quotes)
        idle_mib = _peak_mib()
        times_s = []
        for _ in range(repeats):
            begin_s = time.perf_counter()
            history = _taken(path, way)
            times_s.append(time.perf_counter() - begin_s)
        peak_mib = _peak_mib()
    return QuoteResult(
        way=way,
        quotes=quotes,
        bars=history.bar_count,
        times_s=tuple(times_s),
        idle_mib=idle_mib,
        peak_mib=peak_mib,
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    result = _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(msgspec.to_builtins(result)))
