"""Composes replicas of the feature service, as processes would, over one real Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from opentelemetry.context import Context
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    SYMBOL,
)

from detent.adapters.redis_market import RedisMarket
from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    SnapshotView,
)
from detent.contracts.market import Bar, Quote
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.market_state import MarketState
from detent.rpc.call import Call
from detent.servers.feature.handler import FeatureHandler
from detent.servers.feature.shared_state import SharedState, lengths_of

DIRECTION = direction_bars_v1(MINUTE_MS)
MIDS = FeatureSet(
    name="mids", features=(feature(FeatureTransform.RETURN_PCT, 1),), engine=FROM_QUOTES
)
SHORT = FeatureSet(
    name="short",
    features=(feature(FeatureTransform.RETURN_PCT, 1),),
    engine=EngineConfig(bar_interval_ms=MINUTE_MS, max_bars=20),
)
BARS, QUOTES = "a" * 64, "b" * 64
SETS = {BARS: DIRECTION, QUOTES: MIDS}
Items = Sequence[Bar | Quote]
PATIENCE_S = 20.0


def call_for(seconds: float) -> Call:
    return Call(
        deadline_s=time.monotonic() + seconds, clock=time.monotonic, identity="", trace=Context()
    )


class Replica:
    """Is one feature service, as a process would compose it."""

    def __init__(
        self,
        url: str,
        prefix: str,
        sets: dict[str, FeatureSet],
        *,
        quotes_max: int = 5_000,
        symbols_max: int = 100,
        log_entries_max: int = 10_000,
    ) -> None:
        self.store = RedisMarket(
            url,
            prefix=prefix,
            lengths=lengths_of(sets.values(), quotes_max=quotes_max),
            symbols_max=symbols_max,
            log_entries_max=log_entries_max,
        )
        self.shared = SharedState(
            self.store,
            lambda: MarketState(sets.values(), symbols_max=symbols_max),
            clock=time.monotonic,
        )
        self.handler = FeatureHandler(sets, symbols_max=symbols_max, shared=self.shared)

    async def ingest(self, items: Items, *, size: int = 200) -> IngestMarketDataResponse:
        events = [
            MarketEvent(bar=item) if isinstance(item, Bar) else MarketEvent(quote=item)
            for item in items
        ]

        async def batches() -> AsyncIterator[IngestMarketDataRequest]:
            for start in range(0, len(events), size):
                yield IngestMarketDataRequest(events=tuple(events[start : start + size]))

        return await self.handler.ingest_market_data(batches(), call_for(30))

    async def row(
        self, as_of_ts_ms: int, *, symbol: str = SYMBOL, binding: str = BARS, seconds: float = 5
    ) -> FeatureRow:
        query = GetFeatureSnapshotsRequest(
            binding_hash=binding,
            as_of_ts_ms=as_of_ts_ms,
            symbols=(symbol,),
            view=SnapshotView.FULL,
        )
        return (await self.handler.get_feature_snapshots(query, call_for(seconds))).rows[0]

    async def until_current(self, *, is_current: bool = True) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.shared.is_current is not is_current:  # noqa: ASYNC110  Time decides it.
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def replica(
    url: str, prefix: str, sets: dict[str, FeatureSet] | None = None, **options: int
) -> AsyncIterator[Replica]:
    """Run a replica and wait until it follows the log."""
    one = Replica(url, prefix, sets or SETS, **options)
    following = asyncio.create_task(one.shared.run())
    try:
        await one.until_current()
        yield one
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await one.shared.close()
