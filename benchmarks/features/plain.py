"""Compute the features of `direction_bars_v1` as one writes them in a notebook.

The same formulas in float64, without exact rounding, snapshots, hashes or reasons. Its values
are compared with ours before it is measured, so that it is known to do the same work.
"""

import numpy as np
import pandas as pd

PERIOD = 14


def frame_of(columns: dict[str, list[float]]) -> pd.DataFrame:
    """Give the bars of one symbol as a frame: high, low, close."""
    return pd.DataFrame(columns)


def plain_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Compute every feature of every bar; NaN where there are too few bars."""
    close = bars["close"]
    step = close / close.shift(1) - 1.0
    columns = {}
    for window in (1, 3, 6, 12, 24):
        columns[f"return_pct_{window}"] = (close / close.shift(window) - 1.0) * 100.0
    for window in (12, 24):
        mean_square = (step * step).rolling(window).mean()
        columns[f"deviation_pct_{window}"] = np.sqrt(mean_square) * 100.0
    rolled = close.rolling(24)
    columns["close_zscore_24"] = (close - rolled.mean()) / rolled.std(ddof=0)
    before = close.shift(1)
    spans = [
        bars["high"] - bars["low"],
        (bars["high"] - before).abs(),
        (bars["low"] - before).abs(),
    ]
    true_range = pd.concat(spans, axis=1).max(axis=1).where(before.notna())
    atr = true_range.rolling(PERIOD).mean()
    columns["natr_pct"] = (atr / close * 10_000).round() / 100.0
    path = (step.abs().rolling(PERIOD).sum() * 10_000).round()
    net = ((close / close.shift(PERIOD) - 1.0).abs() * 10_000).round()
    columns["sum_abs_returns_pct"] = path / 100.0
    columns["range_score_capped"] = (path // (net + 1)).clip(upper=100) / 100.0
    return pd.DataFrame(columns).astype("float32")
