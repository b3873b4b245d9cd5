"""Computes the rows of a whole series of bars at once, to the bit as `offline_rows` does.

Live serving reads one window per bar; here all windows of a stretch are computed together, for
every transform of bars (`rolled_values`). The integers of a snapshot are rounded from floats
where those are exact enough to round by; an integer that lies too near to a rounding tie to be
sure of is taken from the snapshot code itself. Bars that were known late, bars out of order and
sets whose bars are built from quotes are left to `offline_rows`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detent.contracts.calls.feature import ModelInput
from detent.contracts.decimals import format_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.contracts.snapshots import FeatureSnapshot
from detent.contracts.units import BPS_ONE, INT32_MAX
from detent.core.features.bar_columns import BarColumns, Floats, Ints
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet
from detent.core.features.history import HistoryWindow
from detent.core.features.mean_ranges import MeanRanges, mean_ranges
from detent.core.features.model_input import NOTHING_SAID
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.rolled_values import (
    FROM_SNAPSHOT,
    BarSeries,
    BeyondFloats,
    SnapshotIntegers,
    Stretch,
    reaches,
)
from detent.core.features.row_hashes import RowHasher
from detent.core.features.rows import RowReader
from detent.core.features.snapshot import build_feature_snapshot

BLOCK_ROWS = 4_096
# Inputs of a block are laid out in memory: at most so many numbers, but never few rows.
BLOCK_VALUES_MAX = 2**22
BLOCK_ROWS_MIN = 64
# Half a unit in the last place of a float64 near one, twice.
ULP = 2.0**-52


class RowBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rows of successive bars of one symbol.

    Attributes:
        ts_ms: Close times of the bars, Unix milliseconds UTC.
        values: Shape (n, model inputs), little-endian float32; NaN where the row is refused.
        features_hashes: 64 hex, or None where the row is refused or hashes were not asked for.
        snapshot_hashes: The same.
        refusals: Why there is no row, or None where there is one.
    """

    ts_ms: tuple[int, ...]
    values: NDArray[np.float32]
    features_hashes: tuple[str | None, ...]
    snapshot_hashes: tuple[str | None, ...]
    refusals: tuple[Reason | None, ...]


class _Symbol(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what every block of one symbol reads.

    Attributes:
        feature_set: What the model is given.
        series: All bars, and their returns.
        atrs: ATR per bar.
        hasher: Hashes the rows.
        furthest: Bars before the newest that each feature is read at.
        deepest: The furthest of those that are read from snapshots.
    """

    feature_set: FeatureSet
    series: BarSeries
    atrs: MeanRanges
    hasher: RowHasher
    furthest: dict[str, int]
    deepest: int

    @property
    def bars(self) -> Sequence[Bar]:
        """Give the bars."""
        return self.series.columns.bars


class _Snapshots(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the snapshots of a stretch of bars.

    Attributes:
        first: First bar.
        integers: Their integers.
        again: Those that were taken from the snapshot code, by bar; None where it refused.
    """

    first: int
    integers: SnapshotIntegers
    again: dict[int, FeatureSnapshot | None]


def iter_row_blocks(
    feature_set: FeatureSet, bars: Sequence[Bar], *, hashed: bool = True
) -> Iterator[RowBlock]:
    """Yield the rows of one symbol, block by block, as `iter_model_inputs` gives them.

    Args:
        feature_set: What the model is given; its engine takes ready-made bars.
        bars: Bars of one symbol, oldest first.
        hashed: Whether rows have hashes; without, they cost a fraction.

    Raises:
        InvalidField: A bar is another symbol's or interval's, or repeated.
        BarOutOfOrder: A bar closes before the one in front of it.
    """
    lead = _bars_read(feature_set) - 1
    symbol = _symbol(feature_set, bars) if len(bars) > lead and _rolls(feature_set, bars) else None
    # Windows are not full in the lead: warm-up, and snapshots without an ATR.
    plain = _plain_blocks(feature_set, bars if symbol is None else bars[:lead])
    yield from plain if hashed else map(_unhashed, plain)
    if symbol is None:
        return
    fitting = BLOCK_VALUES_MAX // len(feature_set.input_names)
    block_rows = min(BLOCK_ROWS, max(BLOCK_ROWS_MIN, fitting))
    for start in range(lead, len(bars), block_rows):
        yield _block(symbol, start, min(start + block_rows, len(bars)), hashed=hashed)


def _bars_read(feature_set: FeatureSet) -> int:
    return max(feature_set.warmup_bars_min, feature_set.engine.snapshot_bars)


def _rolls(feature_set: FeatureSet, bars: Sequence[Bar]) -> bool:
    """Say whether the bars are a plain series, each known as it closed."""
    engine = feature_set.engine
    if engine.bar_source is not BarSource.READY_MADE:
        return False
    if any(bar.available_ts_ms is not None for bar in bars):
        return False
    in_order = all(before.ts_ms < after.ts_ms for before, after in itertools.pairwise(bars))
    mine = {(bar.symbol, bar.interval_ms) for bar in bars}
    return in_order and mine == {(bars[0].symbol, engine.bar_interval_ms)}


def _symbol(feature_set: FeatureSet, bars: Sequence[Bar]) -> _Symbol | None:
    """Prepare a series; None when its true ranges cannot be summed exactly."""
    columns = BarColumns(bars)
    atrs = mean_ranges(columns, feature_set.engine.atr_period)
    if atrs is None:
        return None
    furthest = reaches(feature_set)
    specs = feature_set.specs
    return _Symbol(
        feature_set=feature_set,
        series=BarSeries(columns),
        atrs=atrs,
        hasher=RowHasher(feature_set.feature_version, bars[0].symbol),
        furthest=furthest,
        deepest=max(
            (back for name, back in furthest.items() if specs[name].transform in FROM_SNAPSHOT),
            default=0,
        ),
    )


def _plain_blocks(feature_set: FeatureSet, bars: Sequence[Bar]) -> Iterator[RowBlock]:
    """Yield the rows as live serving computes them, one after the other."""
    closes = (bar.ts_ms for bar in bars)
    rows = zip(closes, iter_model_inputs(feature_set, bars), strict=True)
    return row_blocks(rows, width=len(feature_set.input_names))


def row_blocks(
    rows: Iterable[tuple[int, ModelInput | Reason]], *, width: int
) -> Iterator[RowBlock]:
    """Collect rows that were computed one by one into blocks.

    Args:
        rows: Closes with their rows, in order.
        width: Number of model inputs.
    """
    waiting = iter(rows)
    while part := list(itertools.islice(waiting, BLOCK_ROWS)):
        served = [row if isinstance(row, ModelInput) else None for _, row in part]
        values = np.full((len(part), width), np.nan, dtype="<f4")
        for index, row in enumerate(served):
            if row is not None:
                values[index] = np.frombuffer(row.values, dtype="<f4")
        yield RowBlock(
            ts_ms=tuple(ts_ms for ts_ms, _ in part),
            values=values,
            features_hashes=tuple(None if row is None else row.features_hash for row in served),
            snapshot_hashes=tuple(
                None if row is None else row.snapshot_hashes[0] for row in served
            ),
            refusals=tuple(row if isinstance(row, Reason) else None for _, row in part),
        )


def _unhashed(block: RowBlock) -> RowBlock:
    none = (None,) * len(block.ts_ms)
    return msgspec.structs.replace(block, features_hashes=none, snapshot_hashes=none)


def _block(symbol: _Symbol, start: int, stop: int, *, hashed: bool) -> RowBlock:
    """Compute the rows of the bars [start, stop); every window of theirs is full."""
    with np.errstate(all="ignore"):
        snapshots = _snapshots(symbol, start - symbol.deepest, stop)
        values = _values(symbol, snapshots, start, stop)
    served = np.asarray(np.isfinite(values).all(axis=1))
    refused = [bar - start for bar, held in snapshots.again.items() if held is None]
    served[[index for index in refused if index >= 0]] = False
    values[~served] = np.nan
    none: tuple[str | None, ...] = (None,) * (stop - start)
    snapshot_hashes = features_hashes = none
    if hashed and served.any():
        rows = np.flatnonzero(served)
        of_rows = _hashes(symbol, snapshots, start + rows, values[rows])
        snapshot_hashes, features_hashes = (_spread(items, served) for items in of_rows)
    return RowBlock(
        ts_ms=tuple(symbol.series.columns.ts_ms[start:stop]),
        values=values,
        snapshot_hashes=snapshot_hashes,
        features_hashes=features_hashes,
        refusals=tuple(None if one else Reason.FEATURES_MISSING for one in served.tolist()),
    )


def _spread(items: list[str], served: NDArray[np.bool_]) -> tuple[str | None, ...]:
    if len(items) == len(served):
        return tuple(items)
    following = iter(items)
    return tuple(next(following) if one else None for one in served.tolist())


def _hashes(
    symbol: _Symbol, snapshots: _Snapshots, bars: Ints, values: NDArray[np.float32]
) -> tuple[list[str], list[str]]:
    """Hash the served rows of some bars."""
    integers, at = snapshots.integers, bars - snapshots.first
    ts_ms, max_bars = symbol.series.columns.ts_ms, symbol.feature_set.engine.max_bars
    texts = _atr_texts(symbol, snapshots, bars)
    return symbol.hasher.hashes(
        ts_ms=[ts_ms[bar] for bar in bars.tolist()],
        atrs=texts,
        natr_bps=integers.natr_bps[at].tolist(),
        path_bps=integers.path_bps[at].tolist(),
        net_bps=integers.net_bps[at].tolist(),
        scores=integers.score[at].tolist(),
        warmup_bars=np.minimum(bars + 1, max_bars).tolist(),
        values=values.view(f"V{values.itemsize * values.shape[1]}")[:, 0].tolist(),
    )


def _atr_texts(symbol: _Symbol, snapshots: _Snapshots, bars: Ints) -> list[str]:
    texts = symbol.atrs.texts(bars)
    if snapshots.again:
        for index, bar in enumerate(bars.tolist()):
            snapshot = snapshots.again.get(bar)
            if snapshot is not None and snapshot.atr is not None:
                texts[index] = format_decimal(snapshot.atr)
    return texts


def _values(symbol: _Symbol, snapshots: _Snapshots, start: int, stop: int) -> NDArray[np.float32]:
    """Give the inputs of the bars [start, stop); not finite where one cannot be had."""
    feature_set = symbol.feature_set
    stretch = Stretch(
        feature_set,
        symbol.series,
        snapshots.integers,
        start=start,
        stop=stop,
        furthest=symbol.furthest,
    )
    try:
        columns = stretch.rows().astype("<f4")
    except BeyondFloats:
        return np.stack([_read_again(symbol, bar) for bar in range(start, stop)])
    windows = sliding_window_view(columns, feature_set.window_rows, axis=0)
    values = windows.transpose(0, 2, 1).copy().reshape(stop - start, -1)
    # What a snapshot refuses depends on how many bars are held: let the reader say.
    refused = [bar for bar, held in snapshots.again.items() if held is None]
    readers = {bar + step for bar in refused for step in range(1, symbol.deepest + 1)}
    for row in readers.intersection(range(start, stop)):
        values[row - start] = _read_again(symbol, row)
    return values


def _read_again(symbol: _Symbol, bar: int) -> NDArray[np.float32]:
    """Read one row as live serving reads it; NaN where it is refused."""
    feature_set = symbol.feature_set
    snapshot = _snapshot(symbol, bar)
    packed = None
    if snapshot is not None:
        bars = tuple(symbol.bars[bar + 1 - _bars_read(feature_set) : bar + 1])
        nothing = (None,) * len(bars)
        window = HistoryWindow(
            as_of_ts_ms=snapshot.ts,
            bars=bars,
            quotes=nothing,
            ordinal=bar + 1,
            bar_count=snapshot.warmup_bars,
            quote=None,
            l2_snapshot=None,
            l2_snapshots=nothing,
            complete=True,
        )
        packed = RowReader(feature_set, window, snapshot, caller_values=NOTHING_SAID).packed()
    if packed is None:
        return np.full(len(feature_set.input_names), np.nan, dtype="<f4")
    return np.frombuffer(packed, dtype="<f4")


def _snapshot(symbol: _Symbol, bar: int) -> FeatureSnapshot | None:
    """Take a snapshot by the code that takes it live; None where it refuses."""
    engine = symbol.feature_set.engine
    newest = symbol.bars[max(0, bar + 1 - engine.snapshot_bars) : bar + 1]
    try:
        return build_feature_snapshot(
            engine,
            symbol=newest[-1].symbol,
            ts_ms=newest[-1].ts_ms,
            bars=newest,
            warmup_bars=min(bar + 1, engine.max_bars),
            quote=None,
        )
    except InvalidField:
        return None


def _snapshots(symbol: _Symbol, first: int, stop: int) -> _Snapshots:
    """Round the integers of the bars [first, stop); take those on a tie from the snapshot code."""
    integers, certain = _integers(symbol, first, stop)
    again: dict[int, FeatureSnapshot | None] = {}
    for index in np.flatnonzero(~certain).tolist():
        snapshot = again[first + index] = _snapshot(symbol, first + index)
        if snapshot is not None:
            integers.natr_bps[index] = snapshot.natr_bps
            integers.path_bps[index] = snapshot.sum_abs_returns_bps
            integers.net_bps[index] = snapshot.net_return_bps
    return _Snapshots(first=first, integers=integers, again=again)


def _integers(symbol: _Symbol, first: int, stop: int) -> tuple[SnapshotIntegers, NDArray[np.bool_]]:
    """Round the three shares, and say where a float is exact enough to round them by.

    The bound is that of the floats: each ratio and each addition errs by at most one unit in
    the last place of what it gives. Within it around a tie only Decimal arithmetic knows.
    """
    horizon = symbol.feature_set.engine.range_horizon
    closes, steps = symbol.series.columns.close, symbol.series.steps
    # Before there are enough bars the snapshot says 0; only rows further on are served.
    full = max(first, horizon)
    natr = np.nan_to_num(symbol.atrs.floats[first:stop] / closes[first:stop], nan=0.0)
    path, net = np.zeros(stop - first), np.zeros(stop - first)
    windows = sliding_window_view(np.abs(steps[full - horizon + 1 : stop]), horizon)
    path[full - first :] = windows.sum(axis=1)
    net[full - first :] = np.abs(closes[full:stop] / closes[full - horizon : stop - horizon] - 1.0)
    natr_bps, natr_certain = _rounded(natr, 8.0 * ULP * (1.0 + natr))
    path_bps, path_certain = _rounded(path, (horizon + 8.0) * ULP * (horizon + path))
    net_bps, net_certain = _rounded(net, 8.0 * ULP * (1.0 + net))
    certain = symbol.atrs.usual[first:stop] & natr_certain & path_certain & net_certain
    return SnapshotIntegers(natr_bps=natr_bps, path_bps=path_bps, net_bps=net_bps), certain


def _rounded(share: Floats, error: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Round shares to basis points and say which integers no error of that size can change."""
    bps = share * BPS_ONE
    nearest = np.rint(bps)
    to_tie = 0.5 - np.abs(bps - nearest)
    # Scaling errs once more, by half a unit in the last place of the result.
    certain = (to_tie > error * BPS_ONE + bps * ULP) & (bps < INT32_MAX - 1.0)
    return np.where(certain, nearest, 0.0).astype(np.int64), certain
