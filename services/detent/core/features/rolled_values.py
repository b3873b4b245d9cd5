"""Computes features over a stretch of bars at once, each to the bit as `rows` computes one.

The formulas are those of `feature_values` and `transforms`, in the same order of operations:
elementwise arithmetic rounds the same in numpy, and sums go through `exact_sums`. A value that
cannot be had is NaN, and stays so down to the row. What is read from quotes, books or the caller
is absent throughout, as it is when `offline_rows` is given bars alone.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np

from detent.contracts.units import BPS_ONE
from detent.core.features.bar_columns import BarColumns, Floats, Ints
from detent.core.features.exact_sums import Indices, SlidingSums, plus, rounded, zero
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import WILDER_PERIODS, FeatureSpec, FeatureTransform
from detent.core.features.feature_values import BPS_PER_PERCENT, PERCENT, RANGE_SCORE_CAP
from detent.core.features.transforms.bar_values import YEAR_MS

# The square, summed over the longest window, is far below what a float holds.
VALUE_MAX = 1e140


class SnapshotIntegers(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the integers of the snapshots of a stretch of bars, basis points.

    Attributes:
        natr_bps: ATR over the last close.
        path_bps: Sums of absolute bar returns.
        net_bps: Absolute returns over the horizon.
    """

    natr_bps: Ints
    path_bps: Ints
    net_bps: Ints

    @property
    def score(self) -> Ints:
        """Give the range scores."""
        return self.path_bps // (self.net_bps + 1)


class BeyondFloats(ArithmeticError):
    """Says that a value is so large that sums of its squares may overflow, or infinite.

    What is NaN then may be a number that overflowed, and not absent.
    """


class BarSeries:
    """Holds what every stretch of one symbol reads.

    Attributes:
        columns: The bars.
        steps: Simple returns: item i is the return of bar i; the first is 0.
        squares: Their squares.
    """

    def __init__(self, columns: BarColumns) -> None:
        """Take the returns once."""
        self.columns = columns
        self.steps = np.zeros_like(columns.close)
        self.steps[1:] = columns.close[1:] / columns.close[:-1] - 1.0
        self.squares = self.steps * self.steps

    def true_ranges(self, first: int, stop: int) -> Floats:
        """Give the true ranges of the bars [first, stop), price units; `first` is at least 1."""
        high, low = self.columns.high[first:stop], self.columns.low[first:stop]
        before = self.columns.close[first - 1 : stop - 1]
        spans = np.maximum(high - low, np.abs(high - before))
        ranges: Floats = np.maximum(spans, np.abs(low - before))
        return ranges


def reaches(feature_set: FeatureSet) -> dict[str, int]:
    """Count for each feature how many bars before the newest a row reads its value at.

    Args:
        feature_set: What the model is given; columns that are sources are counted as well.
    """
    furthest: dict[str, int] = {}

    def visit(spec: FeatureSpec, back: int) -> None:
        if back <= furthest.get(spec.name, -1):
            return
        furthest[spec.name] = back
        for name in spec.sources:
            visit(feature_set.specs[name], back + spec.rows_read - 1)

    for spec in feature_set.features:
        visit(spec, feature_set.window_rows - 1)
    return furthest


class Stretch:
    """Computes the features of the bars [start, stop) of one symbol, each once."""

    def __init__(
        self,
        feature_set: FeatureSet,
        series: BarSeries,
        integers: SnapshotIntegers,
        *,
        start: int,
        stop: int,
        furthest: dict[str, int],
    ) -> None:
        """Start without values.

        Args:
            feature_set: What the model is given.
            series: All bars of the symbol.
            integers: Of the bars up to `stop`, as far back as a feature reads them.
            start: First bar, such that every window that is read is full.
            stop: First bar behind.
            furthest: What `reaches` says.
        """
        self._set, self._series, self._integers = feature_set, series, integers
        self._start, self.stop, self._furthest = start, stop, furthest
        self._base = max(0, start + 1 - feature_set.warmup_bars_min)
        self._known: dict[str, Floats] = {}
        self._sums: dict[str, SlidingSums] = {}

    def rows(self) -> Floats:
        """Give the normalised features, shape (bars, features), from the oldest row read on.

        Raises:
            BeyondFloats: A value is beyond `VALUE_MAX`.
        """
        count = self.stop - self._start + self._set.window_rows - 1
        columns = []
        for spec in self._set.features:
            column = self.column(spec)[-count:]
            if spec.normalisation is not None:
                offset, scale = float(spec.normalisation.offset), float(spec.normalisation.scale)
                column = (column - offset) / scale
            columns.append(column)
        return np.stack(columns, axis=1)

    def column(self, spec: FeatureSpec) -> Floats:
        """Give a feature, before normalisation, from the furthest bar that is read on.

        Raises:
            BeyondFloats: A value is beyond `VALUE_MAX`.
        """
        if spec.name not in self._known:
            first = self._start - self._furthest[spec.name]
            values = _OF[spec.transform](self, spec, first)
            if (np.abs(values) > VALUE_MAX).any():
                raise BeyondFloats
            self._known[spec.name] = values
        return self._known[spec.name]

    def sliding(self, key: str, items: Floats, window_bars: int, first: int) -> Floats:
        """Sum the windows that end at the bars from `first` on.

        Args:
            key: Names the items; the same for all windows over them.
            items: One per bar of the series.
            window_bars: Items of a window.
            first: First bar.
        """
        if key not in self._sums:
            self._sums[key] = SlidingSums(items[self._base : self.stop])
        return self._sums[key].of(window_bars)[first - self.stop :]

    def source(self, spec: FeatureSpec, first: int) -> Floats:
        """Give the values that a derived feature reads, those of its first window included."""
        column = self.column(self._set.specs[spec.sources[0]])
        return column[-(self.stop - first + spec.rows_read - 1) :]

    def source_sums(self, spec: FeatureSpec, first: int) -> Floats:
        """Sum the windows of a source; NaN where one of its values is."""
        name = spec.sources[0]
        column = self.column(self._set.specs[name])
        key = f"of {name}"
        if key not in self._sums:
            self._sums[key] = SlidingSums(np.where(np.isfinite(column), column, 0.0))
        sums = self._sums[key].of(spec.rows_read)[first - self.stop :]
        return np.where(_whole(self.source(spec, first), spec.rows_read), sums, np.nan)

    def bars(self, column: Floats, window_bars: int, first: int) -> Floats:
        """Give what windows of a column read that end at the bars from `first` on."""
        return column[first - window_bars + 1 : self.stop]

    @property
    def series(self) -> BarSeries:
        """Give all bars of the symbol."""
        return self._series

    @property
    def integers(self) -> SnapshotIntegers:
        """Give the integers of the snapshots."""
        return self._integers

    def parts(self, spec: FeatureSpec, first: int) -> tuple[Floats, Floats]:
        """Give the two sources of a product."""
        left, right = (self.column(self._set.specs[name]) for name in spec.sources)
        return left[first - self.stop :], right[first - self.stop :]


def _window(spec: FeatureSpec) -> int:
    assert spec.window_bars is not None, "checked when it was built"
    return spec.window_bars


def _whole(items: Floats, count: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say which windows hold nothing but numbers."""
    missing = np.concatenate(([0], np.cumsum(~np.isfinite(items))))
    return np.asarray(missing[count:] == missing[:-count])


def _summed(items_of: Callable[[int], Floats], count: int, windows: int) -> Floats:
    """Sum `count` items of each window; item j of all windows comes from `items_of(j)`."""
    partial = zero(windows)
    for index in range(count):
        partial = plus(partial, items_of(index))

    def again(indices: Indices) -> Floats:
        return np.stack([items_of(index)[indices] for index in range(count)], axis=1)

    return rounded(partial, count, again)


def _mean_and_squares(
    distance: Callable[[Floats, Floats], Floats], items: Floats, count: int
) -> tuple[Floats, Floats]:
    """Take distances from the last item of each window: their mean, and squares around it."""
    newest = items[count - 1 :]
    windows = len(newest)

    def distances(index: int) -> Floats:
        return distance(items[index : index + windows], newest)

    mean = _summed(distances, count, windows) / count
    return mean, _squares(distances, mean, count)


def _squares(items_of: Callable[[int], Floats], mean: Floats, count: int) -> Floats:
    def squares(index: int) -> Floats:
        centred = items_of(index) - mean
        return centred * centred

    return _summed(squares, count, len(mean))


def _difference(items: Floats, newest: Floats) -> Floats:
    return items - newest


def _share(items: Floats, newest: Floats) -> Floats:
    return items / newest - 1.0


def _zscore(mean: Floats, squares: Floats, count: int) -> Floats:
    deviation = np.sqrt(squares / count)
    return np.where(deviation > 0.0, -mean / deviation, 0.0)


def _return_pct(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    closes, window_bars = on.series.columns.close, _window(spec)
    before = closes[first - window_bars : on.stop - window_bars]
    return (closes[first : on.stop] / before - 1.0) * PERCENT


def _deviation_pct(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    sums = on.sliding("squares", on.series.squares, _window(spec), first)
    return np.sqrt(sums / _window(spec)) * PERCENT


def _close_zscore(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    count = _window(spec)
    items = on.bars(on.series.columns.close, count, first)
    return _zscore(*_mean_and_squares(_share, items, count), count)


def _volume_zscore(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    count = _window(spec)
    items = on.bars(on.series.columns.volume, count, first)
    return _zscore(*_mean_and_squares(_difference, items, count), count)


def _vol_pct_per_bar(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    count = _window(spec)
    mean = on.sliding("steps", on.series.steps, count, first) / count
    steps, windows = on.bars(on.series.steps, count, first), on.stop - first
    squares = _squares(lambda index: steps[index : index + windows], mean, count)
    return np.sqrt(squares / (count - 1)) * PERCENT


def _vol_pct_per_year(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    bars_per_year = YEAR_MS / on.series.columns.bars[0].interval_ms
    return _vol_pct_per_bar(on, spec, first) * math.sqrt(bars_per_year)


def _wilder_atr(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    period = _window(spec)
    moves = (WILDER_PERIODS - 1) * period
    windows = on.stop - first
    ranges = on.series.true_ranges(first - WILDER_PERIODS * period + 1, on.stop)
    atr = SlidingSums(ranges[: windows + period - 1]).of(period) / period
    for index in range(period, period + moves):
        atr = (atr * (period - 1) + ranges[index : index + windows]) / period
    return atr


def _wilder_natr_pct(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    return _wilder_atr(on, spec, first) / on.series.columns.close[first : on.stop] * PERCENT


def _vwap_distance_pct(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    count, columns = _window(spec), on.series.columns
    paid = np.where(np.isnan(columns.vwap), 0.0, columns.vwap) * columns.volume
    sums = on.sliding("paid", paid, count, first)
    volume = on.sliding("volume", columns.volume, count, first)
    distance = (columns.close[first : on.stop] / (sums / volume) - 1.0) * PERCENT
    known = _whole(on.bars(columns.vwap, count, first), count) & (volume > 0.0)
    return np.where(known, distance, np.nan)


def _of_bars(read: Callable[[BarColumns], Floats]) -> Callable[[Stretch, FeatureSpec, int], Floats]:
    return lambda on, _, first: read(on.series.columns)[first : on.stop]


def _of_integers(
    read: Callable[[SnapshotIntegers], Floats],
) -> Callable[[Stretch, FeatureSpec, int], Floats]:
    return lambda on, _, first: read(on.integers)[first - on.stop :]


def _range_score_capped(integers: SnapshotIntegers) -> Floats:
    capped: Floats = np.minimum(integers.score, RANGE_SCORE_CAP) / RANGE_SCORE_CAP
    return capped


def _mean(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    return on.source_sums(spec, first) / spec.rows_read


def _std(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    count = spec.rows_read
    _, squares = _mean_and_squares(_difference, on.source(spec, first), count)
    return np.sqrt(squares / count)


def _trend(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    items, count, windows = on.source(spec, first), spec.rows_read, on.stop - first
    newest = items[count - 1 :]

    def weighted(index: int) -> Floats:
        distances: Floats = (2 * index - count + 1) * (items[index : index + windows] - newest)
        return distances

    sums = _summed(weighted, count, windows)
    return 6.0 * sums / (count * (count - 1) * (count + 1))


def _rate_of_change(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    items, windows = on.source(spec, first), on.stop - first
    before, newest = items[:windows], items[-windows:]
    whole = _whole(items, spec.rows_read) & (np.abs(before) > 0.0)
    return np.where(whole, (newest - before) / before, np.nan)


def _lag(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    items = on.source(spec, first)
    return np.where(_whole(items, spec.rows_read), items[: on.stop - first], np.nan)


def _product(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    left, right = on.parts(spec, first)
    return left * right


def _absent(on: Stretch, spec: FeatureSpec, first: int) -> Floats:
    """Give nothing: a series of bars has no quotes, no books, and no caller."""
    del spec
    return np.full(on.stop - first, np.nan)


_OF: dict[FeatureTransform, Callable[[Stretch, FeatureSpec, int], Floats]] = dict.fromkeys(
    FeatureTransform, _absent
) | {
    FeatureTransform.RETURN_PCT: _return_pct,
    FeatureTransform.DEVIATION_PCT: _deviation_pct,
    FeatureTransform.CLOSE_ZSCORE: _close_zscore,
    FeatureTransform.REALISED_VOL_PCT_PER_BAR: _vol_pct_per_bar,
    FeatureTransform.REALISED_VOL_PCT_PER_YEAR: _vol_pct_per_year,
    FeatureTransform.WILDER_ATR: _wilder_atr,
    FeatureTransform.WILDER_NATR_PCT: _wilder_natr_pct,
    FeatureTransform.VOLUME_ZSCORE: _volume_zscore,
    FeatureTransform.VWAP_DISTANCE_PCT: _vwap_distance_pct,
    FeatureTransform.CLOSE: _of_bars(lambda columns: columns.close),
    FeatureTransform.HIGH: _of_bars(lambda columns: columns.high),
    FeatureTransform.LOW: _of_bars(lambda columns: columns.low),
    FeatureTransform.VOLUME: _of_bars(lambda columns: columns.volume),
    FeatureTransform.FUNDING_RATE_BPS: _of_bars(lambda columns: columns.funding_rate * BPS_ONE),
    FeatureTransform.NATR_PCT: _of_integers(lambda held: held.natr_bps / BPS_PER_PERCENT),
    FeatureTransform.SUM_ABS_RETURNS_PCT: _of_integers(
        lambda held: held.path_bps / BPS_PER_PERCENT
    ),
    FeatureTransform.NET_RETURN_PCT: _of_integers(lambda held: held.net_bps / BPS_PER_PERCENT),
    FeatureTransform.RANGE_SCORE_CAPPED: _of_integers(_range_score_capped),
    FeatureTransform.ROLLING_MEAN: _mean,
    FeatureTransform.ROLLING_STD: _std,
    FeatureTransform.ROLLING_TREND: _trend,
    FeatureTransform.RATE_OF_CHANGE: _rate_of_change,
    FeatureTransform.LAG: _lag,
    FeatureTransform.PRODUCT: _product,
}
# What is read from snapshots.
FROM_SNAPSHOT = frozenset(
    {
        FeatureTransform.NATR_PCT,
        FeatureTransform.SUM_ABS_RETURNS_PCT,
        FeatureTransform.NET_RETURN_PCT,
        FeatureTransform.RANGE_SCORE_CAPPED,
    }
)
