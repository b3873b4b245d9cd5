"""Reads the rows of a model input: the features at the instant and at the bars before it.

A feature that is made of others asks for their values bar by bar; each value is computed once.
What is absent makes its row absent, and with it the input (D7).
"""

import math
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal

from detent.contracts.errors import InvalidField
from detent.contracts.market import Quote
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.core.features.book_values import book_value, is_stale
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import BOOK_TRANSFORMS, FeatureSpec, FeatureTransform
from detent.core.features.feature_values import OF_ONE_ROW, feature_value
from detent.core.features.history import HistoryWindow
from detent.core.features.past_rows import PastRow, PastRows
from detent.core.features.snapshot import build_feature_snapshot
from detent.core.features.transforms.bar_values import OF_BAR, OF_BARS
from detent.core.features.transforms.quote_values import OF_QUOTE
from detent.core.features.transforms.series import OF_SERIES


class RowReader:
    """Computes the features of one symbol at any bar of a window, each once."""

    def __init__(
        self,
        feature_set: FeatureSet,
        window: HistoryWindow,
        snapshot: FeatureSnapshot,
        *,
        caller_values: Mapping[str, Decimal],
        past: PastRows | None = None,
    ) -> None:
        """Start at an instant.

        Args:
            feature_set: What the model is given.
            window: What was known as of the instant.
            snapshot: Snapshot of the instant.
            caller_values: What the strategist said of the instant, by name.
            past: Rows of this symbol and set that earlier readings left; None for none.
        """
        self._set = feature_set
        self._window = window
        self._closes = [float(bar.close) for bar in window.bars]
        self._caller = caller_values
        self._newest = snapshot
        self._snapshots: dict[int, FeatureSnapshot | None] = {}
        self._known: defaultdict[int, dict[str, float | None]] = defaultdict(dict)
        self._past = {} if past is None else past.as_of_bar(window.ordinal)
        self._names_kept = frozenset() if past is None else past.names
        # What is read between two bars is no bar's row; what is read at a close is.
        self._back_kept = int(window.bars[-1].ts_ms != window.as_of_ts_ms)

    def packed(self) -> bytes | None:
        """Give the input as little-endian float32, oldest row first; None if a value is absent."""
        rows = []
        for back in range(self._set.window_rows - 1, -1, -1):
            row = self._packed(back)
            if not row:
                return None
            rows.append(row)
        return b"".join(rows)

    def value(self, spec: FeatureSpec, back: int) -> float | None:
        """Give a feature, before normalisation, as it stood some bars before the newest.

        Args:
            spec: Which feature.
            back: Bars before the newest; 0 is the instant itself.
        """
        if spec.name in self._names_kept and back >= self._back_kept:
            values = self._row(back).values
        else:
            values = self._known[back]
        if spec.name not in values:
            try:
                values[spec.name] = self._computed(spec, back)
            except (OverflowError, ValueError):
                # A sum beyond what a float holds, or of infinities.
                values[spec.name] = None
        return values[spec.name]

    def _packed(self, back: int) -> bytes:
        """Give one row; empty where a value cannot be had."""
        if self._set.window_rows == 1 or back < self._back_kept:
            # Read once, or of an instant between two bars.
            return self._pack(back)
        row = self._row(back)
        if row.packed is None:
            row.packed = self._pack(back)
        return row.packed

    def _pack(self, back: int) -> bytes:
        values = []
        for spec in self._set.features:
            value = _normalised(spec, self.value(spec, back))
            if value is None:
                return b""
            values.append(value)
        try:
            return struct.pack(f"<{len(values)}f", *values)
        except OverflowError:
            return b""

    def _row(self, back: int) -> PastRow:
        ordinal = self._window.ordinal - back
        row = self._past.get(ordinal)
        if row is None:
            row = self._past[ordinal] = PastRow()
        return row

    def _computed(self, spec: FeatureSpec, back: int) -> float | None:
        if back == 0 and spec.transform in OF_ONE_ROW:
            # What most features of most sets are; the window holds enough bars for the newest row.
            return feature_value(spec, self._closes, self._newest)
        if spec.sources:
            return self._derived(spec, back)
        if spec.transform is FeatureTransform.CALLER:
            said = self._caller.get(spec.name)
            return None if said is None or back > 0 else float(said)
        if spec.transform in OF_QUOTE:
            quote = self._quote(back)
            return None if quote is None else OF_QUOTE[spec.transform](quote)
        if spec.transform in BOOK_TRANSFORMS:
            book = self._book(back)
            return None if book is None else book_value(spec.transform, book)
        needed = spec.bars_needed(self._set.engine)
        end = len(self._window.bars) - back
        if end < needed:
            return None
        if spec.transform in OF_BAR:
            return OF_BAR[spec.transform](self._window.bars[end - 1])
        if spec.transform in OF_BARS:
            assert spec.window_bars is not None, "checked when it was built"
            return OF_BARS[spec.transform](self._window.bars[end - needed : end], spec.window_bars)
        if spec.window_bars is None:
            snapshot = self._snapshot(back)
            return None if snapshot is None else feature_value(spec, (), snapshot)
        return feature_value(spec, self._closes[end - needed : end], self._newest)

    def _derived(self, spec: FeatureSpec, back: int) -> float | None:
        if spec.transform is FeatureTransform.PRODUCT:
            left, right = (self.value(self._set.specs[name], back) for name in spec.sources)
            return None if left is None or right is None else left * right
        source = self._set.specs[spec.sources[0]]
        read = range(back + spec.rows_read - 1, back - 1, -1)
        series = _whole([self.value(source, step) for step in read])
        return None if series is None else OF_SERIES[spec.transform](series)

    def _quote(self, back: int) -> Quote | None:
        return self._window.quote if back == 0 else self._window.quotes[-1 - back]

    def _book(self, back: int) -> L2FeatureSnapshot | None:
        """Give what the last book before the close of a bar said, unless it was stale by then."""
        window = self._window
        book = window.l2_snapshot if back == 0 else window.l2_snapshots[-1 - back]
        read_ts_ms = window.as_of_ts_ms if back == 0 else window.bars[-1 - back].ts_ms
        return None if book is None or is_stale(book, read_ts_ms, self._set.engine) else book

    def _snapshot(self, back: int) -> FeatureSnapshot | None:
        """Give the snapshot as it stood at the close of an earlier bar."""
        if back not in self._snapshots:
            engine = self._set.engine
            bars = self._window.bars[: len(self._window.bars) - back]
            newest = bars[-engine.snapshot_bars :]
            try:
                self._snapshots[back] = build_feature_snapshot(
                    engine,
                    symbol=newest[-1].symbol,
                    ts_ms=newest[-1].ts_ms,
                    bars=newest,
                    warmup_bars=len(newest),
                    quote=self._quote(back),
                )
            except InvalidField:
                self._snapshots[back] = None
        return self._snapshots[back]


def _normalised(spec: FeatureSpec, value: float | None) -> float | None:
    if value is None or spec.normalisation is None:
        return value if value is not None and math.isfinite(value) else None
    scaled = (value - float(spec.normalisation.offset)) / float(spec.normalisation.scale)
    return scaled if math.isfinite(scaled) else None


def _whole(values: Sequence[float | None]) -> list[float] | None:
    held = [value for value in values if value is not None]
    return held if len(held) == len(values) else None
