"""Serves `FeatureService`: takes market data, and gives model inputs once the data reach.

The state is core's; what stands here is waiting, counting and the check of the binding.
"""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

from detent.contracts.calls.feature import (
    DescribeFeatureSetRequest,
    DescribeFeatureSetResponse,
    FeatureRow,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    MarketRefusal,
    RefusalCount,
    Watermark,
)
from detent.contracts.checks import check_hash64
from detent.contracts.errors import BarFromFuture, BindingMismatch, DetentError, InvalidField
from detent.contracts.reasons import ErrorReason
from detent.contracts.wire import write_ahead
from detent.core.features.feature_set import FeatureSet
from detent.core.features.market_state import SYMBOLS_MAX, MarketState
from detent.core.features.model_input import NOTHING_SAID
from detent.rpc.call import Call
from detent.servers.feature.shared_state import SharedState

Take = Callable[[MarketEvent], bool]
T = TypeVar("T")
REFUSALS_LISTED_MAX = 100
# As many as are worked on before other calls get their turn: some milliseconds.
ITEMS_PER_TURN = 32
# What two machines' clocks may differ by.
FUTURE_MS_MAX = 5_000


class FeatureHandler:
    """Answers for the feature sets of the bindings that are held here, and for no others."""

    def __init__(
        self,
        feature_sets: Mapping[str, FeatureSet],
        *,
        symbols_max: int = SYMBOLS_MAX,
        now_ms: Callable[[], int] | None = None,
        shared: SharedState | None = None,
    ) -> None:
        """Start without market data.

        Args:
            feature_sets: The feature set of each binding, by `binding_hash`.
            symbols_max: Symbols beyond which a new one is refused.
            now_ms: Wall clock, Unix milliseconds; live, it refuses data from the future,
                which would otherwise push the watermark past everything that follows.
            shared: State that other replicas have too; None keeps it in this process alone.
        """
        for binding_hash in feature_sets:
            check_hash64("binding_hash", binding_hash)
        self._feature_sets = dict(feature_sets)
        self._own_state = MarketState(feature_sets.values(), symbols_max=symbols_max)
        self._now_ms = now_ms
        self._shared = shared
        self._moved = asyncio.Condition() if shared is None else shared.moved

    @property
    def _state(self) -> MarketState:
        return self._own_state if self._shared is None else self._shared.state

    async def ingest_market_data(
        self, batches: AsyncIterator[IngestMarketDataRequest], call: Call
    ) -> IngestMarketDataResponse:
        """Take market data item by item and say how far the data reach.

        A refused item, malformed ones included, is reported and stops nothing. The next message
        is not asked for before this one is done. Inputs of new bars are computed and written
        here, so that a decision only looks them up. Where the state is shared, an item is durable
        before it is taken, and what is not acknowledged may be sent again.

        Raises:
            ServiceUnavailable: The shared store cannot be reached.
            Overloaded: The shared store is full.
        """
        del call  # A feed may last as long as the process; there is no deadline to divide.
        tally = _Tally()
        async for batch in batches:
            for events in _turns(batch.events):
                take = self._state.take if self._shared is None else await self._durable(events)
                for event in events:
                    self._judge(event, tally, take)
                write_ahead(GetFeatureSnapshotsResponse, self._state.refresh())
                async with self._moved:
                    self._moved.notify_all()
                await asyncio.sleep(0)
        watermarks = tuple(
            Watermark(symbol=symbol, ts_ms=self._state.watermark_ts_ms(symbol))
            for symbol in sorted(tally.symbols)
        )
        return tally.response(watermarks)

    async def get_feature_snapshots(
        self, query: GetFeatureSnapshotsRequest, call: Call
    ) -> GetFeatureSnapshotsResponse:
        """Give the model inputs of many symbols as of one instant.

        Waits within the deadline until the data of every symbol that was ever seen reach the
        instant; a symbol whose data do not is answered with its reason.

        Raises:
            BindingMismatch: The binding is not held here.
            InvalidField: A caller feature is given that the feature set does not declare.
            DeadlineExceeded: Data are missing and too little time is left to wait for them.
        """
        feature_set = self._bound(query.binding_hash)
        said = _said(feature_set, query)
        await self._wait(feature_set, query, call)
        rows: list[FeatureRow] = []
        for symbols in _turns(query.symbols):
            rows.extend(
                self._row(feature_set, symbol, query, said.get(symbol, NOTHING_SAID))
                for symbol in symbols
            )
            await asyncio.sleep(0)
        return GetFeatureSnapshotsResponse(
            binding_hash=query.binding_hash,
            feature_version=feature_set.feature_version,
            rows=tuple(rows),
        )

    async def describe_feature_set(
        self, query: DescribeFeatureSetRequest, call: Call
    ) -> DescribeFeatureSetResponse:
        """Describe the feature set that a binding names.

        Raises:
            BindingMismatch: The binding is not held here.
        """
        del call  # Nothing is waited for.
        feature_set = self._bound(query.binding_hash)
        return DescribeFeatureSetResponse(
            binding_hash=query.binding_hash,
            feature_version=feature_set.feature_version,
            feature_names=feature_set.feature_names,
            warmup_bars_min=feature_set.warmup_bars_min,
            feature_set_json=feature_set.canonical_json.decode("ascii"),
        )

    def _bound(self, binding_hash: str) -> FeatureSet:
        feature_set = self._feature_sets.get(binding_hash)
        if feature_set is None:
            held = ", ".join(sorted(self._feature_sets)[:2]) or "none"
            expected = f"64 lowercase hex of one of {len(self._feature_sets)} held here: {held}"
            raise BindingMismatch(binding_hash, expected)
        return feature_set

    async def _durable(self, events: Sequence[MarketEvent | InvalidField]) -> Take:
        """Make durable what is worth it; give what says of each event what became of it."""
        assert self._shared is not None, "there is a store to make it durable in"
        kept = [
            event
            for event in events
            if not isinstance(event, InvalidField)
            and self._shared.keeps(event)
            and self._is_due(event)
        ]
        known = zip(map(id, kept), await self._shared.take(kept), strict=True)
        outcomes = dict(known)

        def take(event: MarketEvent) -> bool:
            outcome = outcomes.get(id(event))
            if isinstance(outcome, DetentError):
                raise outcome
            # What no store keeps, no engine takes: the state only says why.
            return self._state.take(event) if outcome is None else outcome

        return take

    def _is_due(self, event: MarketEvent) -> bool:
        item = event.bar or event.quote or event.book
        assert item is not None, "an event is valid by construction"
        try:
            self._check_not_from_future(item.symbol, item.known_ts_ms)
        except BarFromFuture:
            return False
        return True

    def _judge(self, event: MarketEvent | InvalidField, tally: "_Tally", take: Take) -> None:
        if isinstance(event, InvalidField):
            facts = event.metadata
            tally.refuse(facts.get("symbol", ""), int(facts.get("ts_ms", 0)), event)
            return
        item = event.bar or event.quote or event.book
        assert item is not None, "an event is valid by construction"
        try:
            self._check_not_from_future(item.symbol, item.known_ts_ms)
            is_new = take(event)
        except DetentError as error:
            tally.refuse(item.symbol, item.ts_ms, error)
        else:
            tally.take(item.symbol, is_new=is_new)

    def _check_not_from_future(self, symbol: str, ts_ms: int) -> None:
        if self._now_ms is None:
            return
        limit_ms = self._now_ms() + FUTURE_MS_MAX
        if ts_ms > limit_ms:
            raise BarFromFuture(
                f"time of {symbol}: found {ts_ms}, expected at most {limit_ms}",
                found=ts_ms,
                expected=f"at most {limit_ms}",
            )

    async def _wait(
        self, feature_set: FeatureSet, query: GetFeatureSnapshotsRequest, call: Call
    ) -> None:
        pending = self._behind(feature_set, query.symbols, query.as_of_ts_ms)
        if not pending:
            return
        try:
            async with asyncio.timeout(call.budget_s()), self._moved:
                # Asked again under the lock: the data may have come while it was taken.
                while pending := self._behind(feature_set, pending, query.as_of_ts_ms):
                    await self._moved.wait()
        except TimeoutError:
            # Whoever is still behind says so in its own row.
            return

    def _behind(
        self, feature_set: FeatureSet, symbols: Sequence[str], as_of_ts_ms: int
    ) -> list[str]:
        if self._shared is not None and not self._shared.is_current:
            # Nothing is going to come; the rows say so.
            return []
        return [
            symbol
            for symbol in symbols
            if self._state.knows(feature_set, symbol)
            and not self._state.reaches(feature_set, symbol, as_of_ts_ms)
        ]

    def _row(
        self,
        feature_set: FeatureSet,
        symbol: str,
        query: GetFeatureSnapshotsRequest,
        caller_values: Mapping[str, Decimal],
    ) -> FeatureRow:
        if self._shared is not None:
            refusal = self._shared.refusal(feature_set, symbol, query.as_of_ts_ms)
            if refusal is not None:
                return FeatureRow(symbol=symbol, refusal=refusal)
        return self._state.feature_row(
            feature_set,
            symbol,
            as_of_ts_ms=query.as_of_ts_ms,
            view=query.view,
            caller_values=caller_values,
            max_age_ms=query.max_age_ms,
        )


def _said(
    feature_set: FeatureSet, query: GetFeatureSnapshotsRequest
) -> dict[str, dict[str, Decimal]]:
    """Give what the caller said by symbol and name, and refuse what nobody asked (R45)."""
    names = frozenset(feature_set.caller_names)
    for index, said in enumerate(query.caller_features):
        for place, one in enumerate(said.features):
            if one.name not in names:
                declared = ", ".join(feature_set.caller_names) or "none"
                path = f"caller_features[{index}].features[{place}].name"
                expected = f"a caller feature of the feature set: {declared}"
                raise InvalidField(path, one.name, expected)
    return {
        said.symbol: {one.name: one.value for one in said.features}
        for said in query.caller_features
    }


class _Tally:
    """Counts what became of the items of one stream."""

    def __init__(self) -> None:
        self.symbols: set[str] = set()
        self._accepted_count = 0
        self._known_count = 0
        self._refused = collections.Counter[ErrorReason]()
        self._refusals: list[MarketRefusal] = []

    def take(self, symbol: str, *, is_new: bool) -> None:
        self.symbols.add(symbol)
        self._accepted_count += is_new
        self._known_count += not is_new

    def refuse(self, symbol: str, ts_ms: int, error: DetentError) -> None:
        index = self._accepted_count + self._known_count + self._refused.total()
        self._refused[error.reason] += 1
        if len(self._refusals) < REFUSALS_LISTED_MAX:
            refusal = MarketRefusal(
                symbol=symbol,
                ts_ms=ts_ms,
                reason=error.reason,
                message=error.message,
                index=index,
            )
            self._refusals.append(refusal)

    def response(self, watermarks: tuple[Watermark, ...]) -> IngestMarketDataResponse:
        return IngestMarketDataResponse(
            accepted_count=self._accepted_count,
            known_count=self._known_count,
            refused_count=self._refused.total(),
            refusals=tuple(self._refusals),
            watermarks=watermarks,
            refusal_counts=tuple(
                RefusalCount(reason=reason, count=self._refused[reason])
                for reason in ErrorReason
                if reason in self._refused
            ),
        )


def _turns(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), ITEMS_PER_TURN):
        yield items[start : start + ITEMS_PER_TURN]
