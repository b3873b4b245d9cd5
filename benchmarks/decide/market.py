"""Make bars out of nothing but a seed, and an artifact that was trained on such bars.

Each return leans on the one before, so that a model has something to learn and its
calibration is accepted.
"""

from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detent.contracts.calls.feature import MarketEvent
from detent.contracts.market import Bar
from detent.offline.bars import RawBar, table_of
from detent.offline.commands import build_artifact

INTERVAL_MS = 3_600_000
# Far enough back that no bar of a run lies in the future.
START_MS = 1_420_070_400_000
HORIZON_BARS = 4
HORIZON_ID = "h4"
MODEL_NAME = "bench_direction"
TRAINING_SYMBOLS = 4
TRAINING_BARS = 1_200
LEAN = 0.35
DEVIATION = 0.004
PRICE_FIRST = 1_000.0
TICK = Decimal("0.01")


class Market:
    """Holds the closes of some symbols, all of them known from the start."""

    def __init__(self, symbols: tuple[str, ...], *, bar_count: int, seed: int) -> None:
        """Draw the walks; the same arguments give the same bars."""
        self.symbols = symbols
        noise = np.random.default_rng(seed).normal(0.0, DEVIATION, (bar_count, len(symbols)))
        returns = np.zeros_like(noise)
        for index in range(1, bar_count):
            returns[index] = LEAN * returns[index - 1] + noise[index]
        self._closes: NDArray[np.float64] = PRICE_FIRST * np.exp(np.cumsum(returns, axis=0))

    def close(self, index: int, column: int) -> Decimal:
        """Give one close, to two places."""
        return Decimal(f"{self._closes[index, column]:.2f}")

    def numbers(self, index: int, column: int) -> tuple[Decimal, ...]:
        """Give open, high, low, close and volume of one bar."""
        close = self.close(index, column)
        opened = self.close(max(index - 1, 0), column)
        high, low = max(opened, close) + TICK, min(opened, close) - TICK
        return opened, high, low, close, Decimal(10 + (index + column) % 7)

    def events(self, index: int) -> tuple[MarketEvent, ...]:
        """Give one bar of every symbol as the feature service takes it."""
        return tuple(
            MarketEvent(bar=self._bar(symbol, index, column))
            for column, symbol in enumerate(self.symbols)
        )

    def _bar(self, symbol: str, index: int, column: int) -> Bar:
        opened, high, low, close, volume = self.numbers(index, column)
        return Bar(
            symbol=symbol,
            ts_ms=close_ts_ms(index),
            interval_ms=INTERVAL_MS,
            open=opened,
            high=high,
            low=low,
            close=close,
            volume=volume,
        )


def close_ts_ms(index: int) -> int:
    """Give the close time of a bar, Unix milliseconds."""
    return START_MS + (index + 1) * INTERVAL_MS


def build_bench_artifact(folder: Path) -> Path:
    """Train, calibrate and write the artifact that the benchmark binds."""
    symbols = tuple(f"T{number}" for number in range(TRAINING_SYMBOLS))
    market = Market(symbols, bar_count=TRAINING_BARS, seed=1)
    rows = (
        RawBar(
            row=1 + index * TRAINING_SYMBOLS + column,
            open_ts_ms=START_MS + index * INTERVAL_MS,
            symbol=symbol,
            numbers=market.numbers(index, column),
        )
        for index in range(TRAINING_BARS)
        for column, symbol in enumerate(symbols)
    )
    return build_artifact(
        table_of("synthetic", rows),
        model_name=MODEL_NAME,
        version="v1.0.0",
        horizon_bars=HORIZON_BARS,
        horizon_id=HORIZON_ID,
        created_at="2026-01-01T00:00:00Z",
        out_dir=folder,
    )
