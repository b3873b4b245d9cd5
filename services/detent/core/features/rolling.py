"""Computes the rows of a whole series of bars at once, to the bit as `offline_rows` does.

Live serving reads one window per bar; here windows roll. Additions that rounding could touch
are never rolled: sums of true ranges are exact or the series is left to `offline_rows`, sums of
squares go through `math.fsum` again for every row, and an integer that lies too near to a
rounding tie to be sure of is taken from the snapshot code itself. What remains is elementwise
arithmetic that IEEE 754 rounds correctly, so numpy gives the same bits.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, Rounded, localcontext

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detent.contracts.calls.feature import ModelInput
from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.contracts.snapshots import FeatureSnapshot
from detent.contracts.units import BPS_ONE, INT32_MAX
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureSpec, FeatureTransform
from detent.core.features.feature_values import BPS_PER_PERCENT, PERCENT, RANGE_SCORE_CAP
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.row_hashes import RowHasher
from detent.core.features.snapshot import DIGITS, build_feature_snapshot

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Refuses to round, and so proves that a rolled sum is the sum of the window.
EXACT = Context(prec=DIGITS.prec, rounding=ROUND_HALF_EVEN, traps=[Rounded])
BLOCK_ROWS = 4_096
# Windows of a block are laid out in memory: at most so many numbers at a time.
BLOCK_CELLS_MAX = 2**20
# Beyond these the text of an ATR may need cutting; the snapshot code knows how.
ATR_MIN = Decimal("1e-9")
ATR_MAX = Decimal("1e20")
# Half a unit in the last place of a float64 near one.
ULP = 2.0**-52


class RowBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rows of successive bars of one symbol.

    Attributes:
        ts_ms: Close times of the bars, Unix milliseconds UTC.
        values: Shape (n, model inputs), little-endian float32; NaN where the row is refused.
        features_hashes: 64 hex, or None where the row is refused.
        snapshot_hashes: 64 hex, or None where the row is refused.
        refusals: Why there is no row, or None where there is one.
    """

    ts_ms: tuple[int, ...]
    values: NDArray[np.float32]
    features_hashes: tuple[str | None, ...]
    snapshot_hashes: tuple[str | None, ...]
    refusals: tuple[Reason | None, ...]


class _Series(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what every block of one symbol reads.

    Attributes:
        feature_set: What the model is given.
        bars: All bars, oldest first.
        closes: Shape (n,): closes as floats.
        steps: Simple returns: item i is the return of bar i; the first is 0.
        squares: Their squares.
        atrs: ATR per bar; None before there are enough bars.
    """

    feature_set: FeatureSet
    bars: Sequence[Bar]
    closes: Floats
    steps: Floats
    squares: list[float]
    atrs: list[Decimal | None]


class _Integers(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the integers of the snapshots of a block, and which of them are certain."""

    natr_bps: Ints
    path_bps: Ints
    net_bps: Ints
    certain: NDArray[np.bool_]


def iter_row_blocks(feature_set: FeatureSet, bars: Sequence[Bar]) -> Iterator[RowBlock]:
    """Yield the rows of one symbol, block by block, as `iter_model_inputs` gives them.

    Args:
        feature_set: What the model is given; its engine takes ready-made bars.
        bars: Bars of one symbol, oldest first.

    Raises:
        InvalidField: A bar is another symbol's or interval's, or repeated.
        BarOutOfOrder: A bar closes before the one in front of it.
    """
    engine = feature_set.engine
    lead = max(feature_set.warmup_bars_min, engine.snapshot_bars) - 1
    atrs = _average_true_ranges(bars, engine.atr_period) if _rolls(feature_set, bars) else None
    if atrs is None:
        yield from _plain_blocks(feature_set, bars)
        return
    # Windows are not full in the lead: warm-up, and snapshots without an ATR.
    yield from _plain_blocks(feature_set, bars[:lead])
    closes = np.array([float(bar.close) for bar in bars])
    steps = np.zeros_like(closes)
    steps[1:] = closes[1:] / closes[:-1] - 1.0
    series = _Series(
        feature_set=feature_set,
        bars=bars,
        closes=closes,
        steps=steps,
        squares=(steps * steps).tolist(),
        atrs=atrs,
    )
    hasher = RowHasher(feature_set.feature_version, bars[0].symbol) if bars else None
    block_rows = max(1, min(BLOCK_ROWS, BLOCK_CELLS_MAX // (lead + 1)))
    for start in range(lead, len(bars), block_rows):
        assert hasher is not None
        yield _block(series, hasher, start, min(start + block_rows, len(bars)))


def _rolls(feature_set: FeatureSet, bars: Sequence[Bar]) -> bool:
    """Say whether all that the set asks is known here and the bars are a plain series."""
    engine = feature_set.engine
    known = all(
        spec.transform in (_OF_INTEGERS if spec.window_bars is None else _OF_CLOSES)
        and spec.normalisation is None
        for spec in feature_set.features
    )
    if not known or feature_set.window_rows > 1 or engine.bar_source is not BarSource.READY_MADE:
        return False
    if any(bar.available_ts_ms is not None for bar in bars):
        return False
    in_order = all(before.ts_ms < after.ts_ms for before, after in itertools.pairwise(bars))
    mine = {(bar.symbol, bar.interval_ms) for bar in bars}
    return in_order and len(mine) <= 1 and all(of[1] == engine.bar_interval_ms for of in mine)


def _average_true_ranges(bars: Sequence[Bar], period: int) -> list[Decimal | None] | None:
    """Give the ATR per bar, or None when a sum of true ranges cannot be rolled exactly."""
    atrs: list[Decimal | None] = []
    window: deque[Decimal] = deque()
    total = Decimal(0)
    try:
        with localcontext(EXACT):
            for before, bar in itertools.pairwise(itertools.chain((None,), bars)):
                assert bar is not None
                if before is not None:
                    high, low, close = bar.high, bar.low, before.close
                    true_range = max(high - low, abs(high - close), abs(low - close))
                    window.append(true_range)
                    total += true_range
                    if len(window) > period:
                        total -= window.popleft()
                full = len(window) == period
                atrs.append(DIGITS.divide(total, Decimal(period)) if full else None)
    except Rounded:
        return None
    return atrs


def _plain_blocks(feature_set: FeatureSet, bars: Sequence[Bar]) -> Iterator[RowBlock]:
    """Yield the rows as live serving computes them, one after the other."""
    width = len(feature_set.input_names)
    inputs = zip(bars, iter_model_inputs(feature_set, bars), strict=True)
    while rows := list(itertools.islice(inputs, BLOCK_ROWS)):
        values = np.full((len(rows), width), np.nan, dtype="<f4")
        for index, (_, row) in enumerate(rows):
            if isinstance(row, ModelInput):
                values[index] = np.frombuffer(row.values, dtype="<f4")
        served = [row if isinstance(row, ModelInput) else None for _, row in rows]
        yield RowBlock(
            ts_ms=tuple(bar.ts_ms for bar, _ in rows),
            values=values,
            features_hashes=tuple(None if row is None else row.features_hash for row in served),
            snapshot_hashes=tuple(
                None if row is None else row.snapshot_hashes[0] for row in served
            ),
            refusals=tuple(row if isinstance(row, Reason) else None for _, row in rows),
        )


def _block(series: _Series, hasher: RowHasher, start: int, stop: int) -> RowBlock:
    """Compute the rows of the bars [start, stop); every window of theirs is full."""
    features = series.feature_set.features
    max_bars = series.feature_set.engine.max_bars
    with np.errstate(all="ignore"):
        integers = _integers(series, start, stop)
        snapshots = _taken_again(series, integers, start)
        columns = [_column(spec, series, integers, start, stop) for spec in features]
        values = np.stack(columns, axis=1).astype("<f4")
    finite = np.isfinite(values).all(axis=1).tolist()
    row_bytes, width = values.tobytes(), values.dtype.itemsize * len(features)
    lists = (integers.natr_bps.tolist(), integers.path_bps.tolist(), integers.net_bps.tolist())
    features_hashes: list[str | None] = []
    snapshot_hashes: list[str | None] = []
    for index, natr_bps, path_bps, net_bps in zip(itertools.count(), *lists, strict=False):
        row = start + index
        snapshot = snapshots.get(index)
        atr = series.atrs[row] if snapshot is None else snapshot.atr
        if not finite[index] or (index in snapshots and snapshot is None) or atr is None:
            features_hashes.append(None)
            snapshot_hashes.append(None)
            continue
        snapshot_hash, features_hash = hasher.hashes(
            ts_ms=series.bars[row].ts_ms,
            atr=atr,
            natr_bps=natr_bps,
            path_bps=path_bps,
            net_bps=net_bps,
            warmup_bars=min(row + 1, max_bars),
            values=row_bytes[index * width : (index + 1) * width],
        )
        snapshot_hashes.append(snapshot_hash)
        features_hashes.append(features_hash)
    refusals = [Reason.FEATURES_MISSING if one is None else None for one in features_hashes]
    values[[one is not None for one in refusals]] = np.nan
    return RowBlock(
        ts_ms=tuple(bar.ts_ms for bar in series.bars[start:stop]),
        values=values,
        features_hashes=tuple(features_hashes),
        snapshot_hashes=tuple(snapshot_hashes),
        refusals=tuple(refusals),
    )


def _integers(series: _Series, start: int, stop: int) -> _Integers:
    """Round the three shares, and say where a float is exact enough to round them by.

    The bound is that of the floats: each ratio and each addition errs by at most one unit in
    the last place of what it gives. Within it around a tie only Decimal arithmetic knows.
    """
    horizon = series.feature_set.engine.range_horizon
    closes, steps = series.closes, series.steps
    atrs = [atr or Decimal(0) for atr in series.atrs[start:stop]]
    natr = np.array([float(atr) for atr in atrs]) / closes[start:stop]
    path = sliding_window_view(np.abs(steps[start - horizon + 1 : stop]), horizon).sum(axis=1)
    net = np.abs(closes[start:stop] / closes[start - horizon : stop - horizon] - 1.0)
    usual = np.array([not atr or ATR_MIN < atr < ATR_MAX for atr in atrs])
    natr_bps, natr_certain = _rounded(natr, 8.0 * ULP * (1.0 + natr))
    path_bps, path_certain = _rounded(path, (horizon + 8.0) * ULP * (horizon + path))
    net_bps, net_certain = _rounded(net, 8.0 * ULP * (1.0 + net))
    return _Integers(
        natr_bps=natr_bps,
        path_bps=path_bps,
        net_bps=net_bps,
        certain=usual & natr_certain & path_certain & net_certain,
    )


def _rounded(share: Floats, error: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Round shares to basis points and say which integers no error of that size can change."""
    bps = share * BPS_ONE
    nearest = np.rint(bps)
    to_tie = 0.5 - np.abs(bps - nearest)
    # Scaling errs once more, by half a unit in the last place of the result.
    certain = (to_tie > error * BPS_ONE + bps * ULP) & (bps < INT32_MAX - 1.0)
    return np.where(certain, nearest, 0.0).astype(np.int64), certain


def _taken_again(
    series: _Series, integers: _Integers, start: int
) -> dict[int, FeatureSnapshot | None]:
    """Take the integers that are not certain from the snapshot code; None where it refuses."""
    engine = series.feature_set.engine
    snapshots: dict[int, FeatureSnapshot | None] = {}
    for index in np.flatnonzero(~integers.certain).tolist():
        row = start + index
        try:
            snapshot = build_feature_snapshot(
                engine,
                symbol=series.bars[row].symbol,
                ts_ms=series.bars[row].ts_ms,
                bars=series.bars[row + 1 - engine.snapshot_bars : row + 1],
                warmup_bars=min(row + 1, engine.max_bars),
                quote=None,
            )
        except InvalidField:
            snapshots[index] = None
            continue
        snapshots[index] = snapshot
        integers.natr_bps[index] = snapshot.natr_bps
        integers.path_bps[index] = snapshot.sum_abs_returns_bps
        integers.net_bps[index] = snapshot.net_return_bps
    return snapshots


def _column(
    spec: FeatureSpec, series: _Series, integers: _Integers, start: int, stop: int
) -> Floats:
    if spec.window_bars is None:
        return _OF_INTEGERS[spec.transform](integers)
    return _OF_CLOSES[spec.transform](series, spec.window_bars, start, stop)


def _return_pct(series: _Series, window_bars: int, start: int, stop: int) -> Floats:
    closes = series.closes
    before = closes[start - window_bars : stop - window_bars]
    return (closes[start:stop] / before - 1.0) * PERCENT


def _deviation_pct(series: _Series, window_bars: int, start: int, stop: int) -> Floats:
    squares = series.squares
    ends = range(start + 1, stop + 1)
    sums = [math.fsum(squares[end - window_bars : end]) for end in ends]
    return np.sqrt(np.array(sums) / window_bars) * PERCENT


def _close_zscore(series: _Series, window_bars: int, start: int, stop: int) -> Floats:
    windows = sliding_window_view(series.closes[start - window_bars + 1 : stop], window_bars)
    distances = windows / windows[:, -1:] - 1.0
    mean = np.array([math.fsum(row) for row in distances.tolist()]) / window_bars
    centred = distances - mean[:, np.newaxis]
    squares = (centred * centred).tolist()
    deviation = np.sqrt(np.array([math.fsum(row) for row in squares]) / window_bars)
    return np.where(deviation > 0.0, -mean / deviation, 0.0)


def _range_score_capped(integers: _Integers) -> Floats:
    score = integers.path_bps // (integers.net_bps + 1)
    capped: Floats = np.minimum(score, RANGE_SCORE_CAP) / RANGE_SCORE_CAP
    return capped


_OF_CLOSES: dict[FeatureTransform, Callable[[_Series, int, int, int], Floats]] = {
    FeatureTransform.RETURN_PCT: _return_pct,
    FeatureTransform.DEVIATION_PCT: _deviation_pct,
    FeatureTransform.CLOSE_ZSCORE: _close_zscore,
}
_OF_INTEGERS: dict[FeatureTransform, Callable[[_Integers], Floats]] = {
    FeatureTransform.NATR_PCT: lambda integers: integers.natr_bps / BPS_PER_PERCENT,
    FeatureTransform.SUM_ABS_RETURNS_PCT: lambda integers: integers.path_bps / BPS_PER_PERCENT,
    FeatureTransform.NET_RETURN_PCT: lambda integers: integers.net_bps / BPS_PER_PERCENT,
    FeatureTransform.RANGE_SCORE_CAPPED: _range_score_capped,
}
