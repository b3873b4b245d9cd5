"""Compute features as one writes them in a notebook: with pandas, in float64.

The same formulas without exact rounding, snapshots or reasons. The values are compared with ours
before they are measured, so that they are known to be the same work. `plain_hashes` adds a hash
per row in the obvious way: the same three texts as ours, from floats where ours are exact.
"""

import hashlib
import json
import struct
from collections.abc import Callable

import numpy as np
import pandas as pd

from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureSpec, FeatureTransform

COLUMNS = ("high", "low", "close", "volume")
Rolled = Callable[[pd.Series, int], pd.Series]


def frame_of(columns: dict[str, list[float]]) -> pd.DataFrame:
    """Give the bars of one symbol as a frame: close time, high, low, close, volume."""
    return pd.DataFrame(columns)


def plain_features(bars: pd.DataFrame, feature_set: FeatureSet) -> pd.DataFrame:
    """Compute every feature of every bar; NaN where there are too few bars."""
    snapshots = plain_snapshots(bars, feature_set)
    columns: dict[str, pd.Series] = {}

    def column(spec: FeatureSpec) -> pd.Series:
        if spec.name not in columns:
            sources = [column(feature_set.specs[name]) for name in spec.sources]
            columns[spec.name] = _column(spec, bars, snapshots, sources)
        return columns[spec.name]

    values = {spec.name: column(spec) for spec in feature_set.features}
    return pd.DataFrame(values).astype("float32")


def plain_snapshots(bars: pd.DataFrame, feature_set: FeatureSet) -> pd.DataFrame:
    """Compute the ATR and the rounded shares of every bar."""
    engine = feature_set.engine
    close = bars["close"]
    before = close.shift(1)
    spans = [
        bars["high"] - bars["low"],
        (bars["high"] - before).abs(),
        (bars["low"] - before).abs(),
    ]
    true_range = pd.concat(spans, axis=1).max(axis=1).where(before.notna())
    atr = true_range.rolling(engine.atr_period).mean()
    path = (close / before - 1.0).abs().rolling(engine.range_horizon).sum()
    net = (close / close.shift(engine.range_horizon) - 1.0).abs()
    return pd.DataFrame(
        {
            "atr": atr,
            "natr": (atr / close * 10_000).round(),
            "path": (path * 10_000).round(),
            "net": (net * 10_000).round(),
        }
    )


def plain_hashes(
    bars: pd.DataFrame, values: pd.DataFrame, feature_set: FeatureSet, symbol: str
) -> list[str]:
    """Hash every row that has all values: its input, its snapshot, and the two together."""
    whole = values.notna().all(axis=1)
    snapshots = plain_snapshots(bars, feature_set)[whole]
    form = f"<{len(feature_set.features)}f"
    hashes = []
    rows = zip(
        bars.loc[whole, "ts_ms"],
        values[whole].itertuples(index=False, name=None),
        snapshots.itertuples(index=True, name=None),
        strict=True,
    )
    for ts_ms, row, (index, atr, natr, path, net) in rows:
        snapshot = {
            "atr": str(atr),
            "imbalance_l1_bps": None,
            "mid_price": None,
            "natr_bps": int(natr),
            "net_return_bps": int(net),
            "range_score": int(path) // (int(net) + 1),
            "schema": "detent.feature_snapshot.v1",
            "spread_bps": None,
            "sum_abs_returns_bps": int(path),
            "symbol": symbol,
            "thin_l1": None,
            "ts": ts_ms,
            "warmup_bars": min(index + 1, feature_set.engine.max_bars),
        }
        said = {
            "feature_version": feature_set.feature_version,
            "input_sha256": hashlib.sha256(struct.pack(form, *row)).hexdigest(),
            "schema": "detent.features.v1",
            "snapshot_hashes": [_hash(snapshot)],
            "symbol": symbol,
            "ts_ms": ts_ms,
        }
        hashes.append(_hash(said))
    return hashes


def _hash(fields: dict[str, object]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _column(
    spec: FeatureSpec, bars: pd.DataFrame, snapshots: pd.DataFrame, sources: list[pd.Series]
) -> pd.Series:
    if spec.transform in COLUMNS:
        return bars[spec.transform]
    if spec.transform in _OF_SNAPSHOT:
        return _OF_SNAPSHOT[spec.transform](snapshots)
    assert spec.window_bars is not None, "what is measured here has a window"
    if sources:
        return _ROLLED[spec.transform](sources[0], spec.window_bars)
    column = "volume" if spec.transform is FeatureTransform.VOLUME_ZSCORE else "close"
    return _ROLLED[spec.transform](bars[column], spec.window_bars)


def _range_score(snapshots: pd.DataFrame) -> pd.Series:
    return (snapshots["path"] // (snapshots["net"] + 1)).clip(upper=100) / 100.0


def _zscore(values: pd.Series, window: int) -> pd.Series:
    rolled = values.rolling(window)
    return (values - rolled.mean()) / rolled.std(ddof=0)


def _steps(close: pd.Series) -> pd.Series:
    return close / close.shift(1) - 1.0


def _trend(values: pd.Series, window: int) -> pd.Series:
    weights = 2.0 * np.arange(window) - (window - 1)
    sums = np.full(len(values), np.nan)
    sums[window - 1 :] = np.convolve(values.to_numpy(), weights[::-1], mode="valid")
    return pd.Series(6.0 * sums / (window * (window - 1) * (window + 1)), index=values.index)


_OF_SNAPSHOT: dict[FeatureTransform, Callable[[pd.DataFrame], pd.Series]] = {
    FeatureTransform.NATR_PCT: lambda snapshots: snapshots["natr"] / 100.0,
    FeatureTransform.SUM_ABS_RETURNS_PCT: lambda snapshots: snapshots["path"] / 100.0,
    FeatureTransform.RANGE_SCORE_CAPPED: _range_score,
}
_ROLLED: dict[FeatureTransform, Rolled] = {
    FeatureTransform.RETURN_PCT: lambda close, window: (close / close.shift(window) - 1) * 100.0,
    FeatureTransform.DEVIATION_PCT: lambda close, window: (
        np.sqrt((_steps(close) ** 2).rolling(window).mean()) * 100.0
    ),
    FeatureTransform.CLOSE_ZSCORE: _zscore,
    FeatureTransform.VOLUME_ZSCORE: _zscore,
    FeatureTransform.REALISED_VOL_PCT_PER_BAR: lambda close, window: (
        _steps(close).rolling(window).std(ddof=1) * 100.0
    ),
    FeatureTransform.ROLLING_MEAN: lambda values, window: values.rolling(window).mean(),
    FeatureTransform.ROLLING_STD: lambda values, window: values.rolling(window).std(ddof=0),
    FeatureTransform.ROLLING_TREND: _trend,
    FeatureTransform.RATE_OF_CHANGE: lambda values, window: values / values.shift(window) - 1.0,
    FeatureTransform.LAG: lambda values, window: values.shift(window),
}
