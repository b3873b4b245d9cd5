"""Holds the histories of all symbols and the model input of each newest bar, ready to be read.

Feature sets with one engine share histories, and bindings with one feature set share inputs:
whatever several models have in common is held and computed once.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from detent.contracts.calls.feature import FeatureRow, MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import DetentError, InvalidField, Overloaded
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import Reason
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import NOTHING_SAID, build_model_input
from detent.core.features.past_rows import PastRows, past_rows_of

SYMBOLS_MAX = 10_000


class MarketState:
    """Takes market data of many symbols and reads model inputs as of an instant."""

    def __init__(
        self, feature_sets: Iterable[FeatureSet], *, symbols_max: int = SYMBOLS_MAX
    ) -> None:
        """Start without data.

        Args:
            feature_sets: What models will be given; repeats are held once.
            symbols_max: Symbols beyond which a new one is refused.
        """
        by_version = {held.feature_version: held for held in feature_sets}
        self._feature_sets = tuple(by_version.values())
        self._symbols_max = symbols_max
        self._histories: dict[EngineConfig, dict[str, SymbolHistory]] = {
            held.engine: {} for held in self._feature_sets
        }
        self._symbols: set[str] = set()
        self._touched: set[str] = set()
        self._newest: dict[tuple[str, str], tuple[int, FeatureRow]] = {}
        self._past: dict[tuple[str, str], PastRows | None] = {}

    def take(self, event: MarketEvent) -> bool:
        """Take one item of market data into every engine that it concerns.

        Returns:
            True when it changed anything, False when it was known already.

        Raises:
            Overloaded: The symbol is new and there are as many as may be held.
            DetentError: No engine takes the item; the first engine's reason.
        """
        item = event.bar or event.quote or event.book
        assert item is not None, "an event is valid by construction"
        if item.symbol not in self._symbols and len(self._symbols) >= self._symbols_max:
            raise Overloaded(
                f"symbol: found {item.symbol}, expected one of the {self._symbols_max} held",
                symbol=item.symbol,
                symbols_max=self._symbols_max,
            )
        is_new, refusal = None, None
        for engine in self._engines_of(item):
            try:
                is_new = self._take_into(engine, item) or bool(is_new)
            except DetentError as error:
                refusal = refusal or error
        if is_new is None:
            assert refusal is not None, "there is an engine, and it takes or refuses"
            raise refusal
        self._symbols.add(item.symbol)
        self._touched.add(item.symbol)
        return is_new

    def refresh(self) -> list[FeatureRow]:
        """Compute the inputs of the newest bars, so that a decision only has to look them up.

        Returns:
            Those that are new, in no order.
        """
        renewed: list[FeatureRow] = []
        for symbol in self._touched:
            for held in self._feature_sets:
                history = self._histories[held.engine].get(symbol)
                if history is not None and history.bar_count > 0:
                    renewed += self._renew(held, history)
        self._touched.clear()
        return renewed

    def knows(self, feature_set: FeatureSet, symbol: str) -> bool:
        """Say whether data of the symbol were ever taken for the feature set."""
        return symbol in self._histories[feature_set.engine]

    def reaches(self, feature_set: FeatureSet, symbol: str, as_of_ts_ms: int) -> bool:
        """Say whether the data of a known symbol are whole up to an instant."""
        return self._histories[feature_set.engine][symbol].reach_ts_ms >= as_of_ts_ms

    def watermark_ts_ms(self, symbol: str) -> int:
        """Give the close of the last bar of a symbol, of its slowest engine; 0 before any."""
        histories = (held.get(symbol) for held in self._histories.values())
        closes = [history.watermark_ts_ms for history in histories if history is not None]
        return min((close for close in closes if close > 0), default=0)

    def model_input(
        self,
        feature_set: FeatureSet,
        symbol: str,
        *,
        as_of_ts_ms: int,
        view: SnapshotView,
        caller_values: Mapping[str, Decimal] = NOTHING_SAID,
        max_age_ms: int | None = None,
    ) -> ModelInput | Reason:
        """Give what `feature_row` gives, without the row around it."""
        row = self.feature_row(
            feature_set,
            symbol,
            as_of_ts_ms=as_of_ts_ms,
            view=view,
            caller_values=caller_values,
            max_age_ms=max_age_ms,
        )
        outcome = row.model_input or row.refusal
        assert outcome is not None, "a row is valid by construction"
        return outcome

    def feature_row(
        self,
        feature_set: FeatureSet,
        symbol: str,
        *,
        as_of_ts_ms: int,
        view: SnapshotView,
        caller_values: Mapping[str, Decimal] = NOTHING_SAID,
        max_age_ms: int | None = None,
    ) -> FeatureRow:
        """Give the model input of a symbol as of an instant, or say why there is none.

        The row of a newest close is the same object each time, and so is written once.

        Args:
            feature_set: What the model is given.
            symbol: Instrument.
            as_of_ts_ms: The instant, Unix milliseconds UTC.
            view: Whether the snapshot comes along.
            max_age_ms: How old the newest bar and quote may be at the instant; None for any
                age that the feature set allows.
            caller_values: What the strategist said of the instant, by the name of the feature.
        """
        history = self._histories[feature_set.engine].get(symbol)
        if history is None:
            return FeatureRow(symbol=symbol, refusal=Reason.SYMBOL_UNKNOWN)
        ready = self._newest.get((feature_set.feature_version, symbol))
        if view is SnapshotView.INPUT and ready is not None and ready[0] == as_of_ts_ms:
            row = ready[1]
        else:
            row = self._built(
                feature_set,
                history,
                as_of_ts_ms=as_of_ts_ms,
                view=view,
                caller_values=caller_values,
            )
        if row.refusal is not None or max_age_ms is None:
            return row
        is_stale = _age_ms(history, as_of_ts_ms) > max_age_ms
        return FeatureRow(symbol=symbol, refusal=Reason.FEATURES_STALE) if is_stale else row

    def _built(
        self,
        feature_set: FeatureSet,
        history: SymbolHistory,
        *,
        as_of_ts_ms: int,
        view: SnapshotView,
        caller_values: Mapping[str, Decimal],
    ) -> FeatureRow:
        if history.reach_ts_ms < as_of_ts_ms:
            is_warm = history.bar_count >= feature_set.warmup_bars_min
            reason = Reason.FEATURES_STALE if is_warm else Reason.FEATURES_WARMING_UP
            return FeatureRow(symbol=history.symbol, refusal=reason)
        outcome = build_model_input(
            feature_set,
            history,
            as_of_ts_ms=as_of_ts_ms,
            view=view,
            caller_values=caller_values,
            past=self._past_of(feature_set, history.symbol),
        )
        return _row_of(history.symbol, outcome)

    def oldest_close_ms(
        self, feature_set: FeatureSet, symbol: str, *, as_of_ts_ms: int, bars: int
    ) -> int | None:
        """Give the close of the oldest of the last bars as of an instant; None if fewer are held.

        Args:
            feature_set: Whose engine is meant.
            symbol: A known symbol.
            as_of_ts_ms: The instant.
            bars: How many bars.
        """
        history = self._histories[feature_set.engine][symbol]
        window = history.window(as_of_ts_ms, bars_wanted=bars)
        return window.bars[0].ts_ms if len(window.bars) == bars else None

    def _engines_of(self, item: Bar | Quote | Book) -> list[EngineConfig]:
        if isinstance(item, Book):
            engines = [engine for engine in self._histories if engine.book is not None]
            if not engines:
                raise InvalidField("book", item.symbol, "no books: no feature set held reads them")
            return engines
        if isinstance(item, Quote):
            engines = list(self._histories)
            if not engines:
                raise InvalidField("quote", item.symbol, "no quotes: no feature set is held")
            return engines
        ready_made = [
            engine for engine in self._histories if engine.bar_source is BarSource.READY_MADE
        ]
        engines = [engine for engine in ready_made if engine.bar_interval_ms == item.interval_ms]
        if not engines:
            intervals = sorted({engine.bar_interval_ms for engine in ready_made})
            expected = f"one that a feature set held here takes bars of: {intervals or 'none'}"
            raise InvalidField("interval_ms", item.interval_ms, expected)
        return engines

    def _take_into(self, engine: EngineConfig, item: Bar | Quote | Book) -> bool:
        held = self._histories[engine]
        history = held.get(item.symbol)
        if history is None:
            history = SymbolHistory(item.symbol, engine)
        is_new = history.add(item)
        # Kept only once something was taken: what is refused must not use up a symbol.
        held[item.symbol] = history
        return is_new

    def _renew(self, feature_set: FeatureSet, history: SymbolHistory) -> tuple[FeatureRow, ...]:
        if feature_set.caller_names:
            # Not known before somebody asks.
            return ()
        key = feature_set.feature_version, history.symbol
        close_ts_ms = history.watermark_ts_ms
        ready = self._newest.get(key)
        if ready is not None and ready[0] == close_ts_ms:
            return ()
        fresh = build_model_input(
            feature_set,
            history,
            as_of_ts_ms=close_ts_ms,
            view=SnapshotView.INPUT,
            past=self._past_of(feature_set, history.symbol),
        )
        row = _row_of(history.symbol, fresh)
        self._newest[key] = close_ts_ms, row
        return (row,)

    def _past_of(self, feature_set: FeatureSet, symbol: str) -> PastRows | None:
        key = feature_set.feature_version, symbol
        if key not in self._past:
            self._past[key] = past_rows_of(feature_set)
        return self._past[key]


def _row_of(symbol: str, outcome: ModelInput | Reason) -> FeatureRow:
    if isinstance(outcome, Reason):
        return FeatureRow(symbol=symbol, refusal=outcome)
    return FeatureRow(symbol=symbol, model_input=outcome)


def _age_ms(history: SymbolHistory, as_of_ts_ms: int) -> int:
    """Give the age of the oldest of newest bar, quote and book at an instant; there is a bar."""
    window = history.window(as_of_ts_ms, bars_wanted=1)
    newest_ts_ms = [window.bars[-1].ts_ms]
    if window.quote is not None:
        newest_ts_ms.append(window.quote.ts_ms)
    if window.l2_snapshot is not None:
        newest_ts_ms.append(window.l2_snapshot.ts_ms)
    return as_of_ts_ms - min(newest_ts_ms)
