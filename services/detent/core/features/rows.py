"""Reads the rows of a model input: the features at the instant and at the bars before it.

A feature that is made of others asks for their values bar by bar; each value is computed once.
What is absent makes its row absent, and with it the input (D7).
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from detent.contracts.errors import InvalidField
from detent.contracts.market import Quote
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.core.features.book_values import book_value
from detent.core.features.feature_set import (
    BOOK_TRANSFORMS,
    FeatureSet,
    FeatureSpec,
    FeatureTransform,
)
from detent.core.features.feature_values import OF_ONE_ROW, feature_value
from detent.core.features.history import HistoryWindow
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
        book: L2FeatureSnapshot | None,
        caller_values: Mapping[str, Decimal],
    ) -> None:
        """Start at an instant.

        Args:
            feature_set: What the model is given.
            window: What was known as of the instant.
            snapshot: Snapshot of the instant.
            book: Book snapshot of the instant, where a feature reads it.
            caller_values: What the strategist said of the instant, by name.
        """
        self._set = feature_set
        self._window = window
        self._closes = [float(bar.close) for bar in window.bars]
        self._book = book
        self._caller = caller_values
        self._newest = snapshot
        self._snapshots: dict[int, FeatureSnapshot | None] = {}
        self._known: dict[tuple[str, int], float | None] = {}

    def values(self) -> list[float] | None:
        """Give all values of the input, oldest row first; None when one cannot be had."""
        values = []
        try:
            for back in range(self._set.window_rows - 1, -1, -1):
                for spec in self._set.features:
                    value = _normalised(spec, self.value(spec, back))
                    if value is None:
                        return None
                    values.append(value)
        except (OverflowError, ValueError):
            # A sum beyond what a float holds, or of infinities.
            return None
        return values

    def value(self, spec: FeatureSpec, back: int) -> float | None:
        """Give a feature, before normalisation, as it stood some bars before the newest.

        Args:
            spec: Which feature.
            back: Bars before the newest; 0 is the instant itself.
        """
        key = spec.name, back
        if key not in self._known:
            self._known[key] = self._computed(spec, back)
        return self._known[key]

    def _computed(self, spec: FeatureSpec, back: int) -> float | None:
        if spec.transform in OF_ONE_ROW:
            return self._of_one_row(spec, back)
        if spec.transform in BOOK_TRANSFORMS:
            # Held for the instant alone; a set that asks for its past is refused when built.
            book = self._book if back == 0 else None
            return None if book is None else book_value(spec.transform, book)
        if spec.sources:
            return self._derived(spec, back)
        if spec.transform is FeatureTransform.CALLER:
            said = self._caller.get(spec.name)
            return None if said is None or back > 0 else float(said)
        if spec.transform in OF_QUOTE:
            quote = self._quote(back)
            return None if quote is None else OF_QUOTE[spec.transform](quote)
        needed = spec.bars_needed(self._set.engine)
        end = len(self._window.bars) - back
        if end < needed:
            return None
        if spec.transform in OF_BAR:
            return OF_BAR[spec.transform](self._window.bars[end - 1])
        assert spec.window_bars is not None, "checked when it was built"
        return OF_BARS[spec.transform](self._window.bars[end - needed : end], spec.window_bars)

    def _of_one_row(self, spec: FeatureSpec, back: int) -> float | None:
        """Compute what reads the closes or the snapshot of its row."""
        if back == 0:
            return feature_value(spec, self._closes, self._newest)
        if spec.window_bars is None:
            snapshot = self._snapshot(back)
            return None if snapshot is None else feature_value(spec, (), snapshot)
        end = len(self._closes) - back
        needed = spec.bars_needed(self._set.engine)
        if end < needed:
            return None
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
