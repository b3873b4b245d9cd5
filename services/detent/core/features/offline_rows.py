"""Gives training the rows that live serving would have given, by the same code.

There is no second implementation to drift from: a bar goes into the same history, and the
row is read as of its close before the next one is known.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import Reason
from detent.core.features.event_rows import iter_event_rows
from detent.core.features.feature_set import FeatureSet
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import NOTHING_SAID, build_model_input

NOTHING_EVER_SAID: Mapping[int, Mapping[str, Decimal]] = {}


def iter_model_inputs(
    feature_set: FeatureSet,
    bars: Iterable[Bar],
    *,
    view: SnapshotView = SnapshotView.INPUT,
    caller_values: Mapping[int, Mapping[str, Decimal]] = NOTHING_EVER_SAID,
) -> Iterator[ModelInput | Reason]:
    """Yield one model input, or the reason why there is none, per bar of one symbol.

    Args:
        feature_set: What the model is given; its engine takes ready-made bars.
        bars: Bars of one symbol, oldest first.
        view: Whether the snapshots come along.
        caller_values: What a strategist said at the close of a bar, by close time and name.

    Raises:
        InvalidField: A bar is another symbol's or interval's, or repeated.
        BarOutOfOrder: A bar closes before the one in front of it.
    """
    history: SymbolHistory | None = None
    for bar in bars:
        if history is None:
            history = SymbolHistory(bar.symbol, feature_set.engine)
        if not history.add_bar(bar):
            raise InvalidField("ts_ms", bar.ts_ms, "each bar once")
        yield build_model_input(
            feature_set,
            history,
            as_of_ts_ms=bar.ts_ms,
            view=view,
            caller_values=caller_values.get(bar.ts_ms, NOTHING_SAID),
        )


def iter_event_inputs(
    feature_set: FeatureSet,
    events: Iterable[Bar | Quote | Book],
    *,
    view: SnapshotView = SnapshotView.INPUT,
) -> Iterator[ModelInput | Reason]:
    """Yield one model input, or the reason why there is none, per bar that market data close.

    A row is read as soon as the data reach the close of its bar: with bars built from quotes,
    once a quote, and a book where books are read, has come that is no older.

    Args:
        feature_set: What the model is given.
        events: Bars, quotes and books of one symbol in order of arrival.
        view: Whether the snapshots come along.

    Raises:
        DetentError: An event is refused; data that are read back come in order.
    """
    for _, row in iter_event_rows(feature_set, events, view=view):
        yield row
