"""Follows a shared store: what is in memory is what the store's log says, in its order.

Nothing is taken into memory before it is durable, and everything in the order of the log, so all
replicas hold the same state at the same position. A replica that could not make sure of its
position for a second does not know what it misses, and then nothing of it is served; one whose
position is gone from the log starts again from what the store holds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from detent.contracts import events as names
from detent.contracts.calls.feature import GetFeatureSnapshotsResponse, MarketEvent
from detent.contracts.errors import DetentError, ServiceUnavailable
from detent.contracts.reasons import Reason
from detent.contracts.stored import StoredMarketData
from detent.contracts.wire import write_ahead
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet
from detent.core.features.market_state import MarketState
from detent.servers.feature.ports import MarketStore

# Older than this, what is known of the log is not known: the same rule as for the kill switch.
SILENCE_S_MAX = 1.0
BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
EVENTS_PER_TURN = 256

log = logging.getLogger(__name__)
Outcome = bool | DetentError
T = TypeVar("T")


class SharedState:
    """Holds the state of one replica, and keeps it at the end of the log.

    Attributes:
        state: What the log says up to the position; another object after a new start.
        moved: Notified whenever the state moved or could not.
    """

    def __init__(
        self,
        store: MarketStore,
        new_state: Callable[[], MarketState],
        *,
        clock: Callable[[], float],
    ) -> None:
        """Begin with nothing; `run` does the rest.

        Args:
            store: What the replicas share.
            new_state: Gives a state without data.
            clock: Monotonic clock in seconds.
        """
        self.state = new_state()
        self.moved = asyncio.Condition()
        self._store = store
        self._new_state = new_state
        self._clock = clock
        self._position: str | None = None
        self._heard_s: float | None = None
        self._cuts: dict[str, StoredMarketData] = {}
        self._turn = asyncio.Lock()
        self._begun: set[asyncio.Task[list[Outcome]]] = set()

    @property
    def is_current(self) -> bool:
        """Say whether the position was confirmed within the last second."""
        return self._heard_s is not None and self._clock() - self._heard_s <= SILENCE_S_MAX

    async def run(self) -> None:
        """Follow the store until cancelled; begin again, ever more patiently, when it fails."""
        pause_s = BACKOFF_S_MIN
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        # Asked each time: a store's library may swallow a cancellation while it connects.
        while not task.cancelling():
            try:
                await self._store.check()
                async with self._turn:
                    await self._catch_up()
                log.info(names.MARKET_STORE_FOLLOWED, extra={"position": self._position})
                pause_s = BACKOFF_S_MIN
                while not task.cancelling():
                    await self._store.wait(self._position or "")
                    async with self._turn:
                        await self._catch_up()
            except DetentError as error:
                await self._lose()
                facts = {"reason": error.reason.value, "error": error.message}
                log.warning(names.MARKET_STORE_LOST, extra=facts)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, BACKOFF_S_MAX)

    async def take(self, events: Sequence[MarketEvent]) -> list[Outcome]:
        """Make events durable, take them, and say of each whether it was new, or why not.

        Raises:
            ServiceUnavailable: The store cannot be reached; nothing new is acknowledged.
            Overloaded: The store is full.
        """
        # What was begun is finished when the caller leaves: a reply must not be left unread.
        task = asyncio.create_task(self._take(events))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)

    def refusal(self, feature_set: FeatureSet, symbol: str, as_of_ts_ms: int) -> Reason | None:
        """Say why a symbol cannot be read as of an instant, as far as the store is the cause.

        Returns:
            `FEATURES_UNAVAILABLE` while it is not known what the log says; `FEATURES_WARMING_UP`
            where the reading would touch what the store held no longer when this replica began,
            and which others may hold; None where the state may be asked.
        """
        if not self.is_current:
            return Reason.FEATURES_UNAVAILABLE
        cut = self._cuts.get(symbol)
        if cut is None or not self.state.knows(feature_set, symbol):
            return None
        if not self.state.reaches(feature_set, symbol, as_of_ts_ms):
            return None
        return None if self._is_whole(feature_set, cut, as_of_ts_ms) else Reason.FEATURES_WARMING_UP

    def _is_whole(self, feature_set: FeatureSet, cut: StoredMarketData, as_of_ts_ms: int) -> bool:
        engine = feature_set.engine
        is_built = engine.bar_source is BarSource.FROM_QUOTES
        is_short = engine.bar_interval_ms in cut.short_intervals_ms
        if not cut.cut_ts_ms and not is_short:
            return True
        bars = max(feature_set.warmup_bars_min, engine.snapshot_bars)
        if is_built or is_short:
            # How many bars there were before is a number in the snapshot, up to this many.
            bars = engine.max_bars
        oldest_ms = self.state.oldest_close_ms(
            feature_set, cut.symbol, as_of_ts_ms=as_of_ts_ms, bars=bars
        )
        return oldest_ms is not None and oldest_ms - engine.bar_interval_ms > cut.cut_ts_ms

    async def _take(self, events: Sequence[MarketEvent]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for turn in _turns(events):
            async with self._turn:
                outcomes += await self._take_turn(turn)
        return outcomes

    async def _take_turn(self, events: Sequence[MarketEvent]) -> list[Outcome]:
        if self._position is None or not self.is_current:
            raise ServiceUnavailable(
                "the market store is not being followed: nothing could be made durable",
                service="market store",
            )
        before, last = await self._store.append(events)
        if before != self._position:
            # Other replicas wrote in between: theirs come first.
            return await self._outcomes_until(before, last, events)
        outcomes = self._apply(events)
        self._position = last
        await self._confirm()
        return outcomes

    async def _outcomes_until(
        self, before: str, last: str, events: Sequence[MarketEvent]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        is_ours = False
        while self._position != last:
            entries = await self._store.after(self._position or "")
            if not entries:
                # The log was lost under our hands. `run` begins again; ours may be there or not.
                await self._lose()
                raise ServiceUnavailable("the market log was lost", service="market store")
            for position, event in entries:
                is_ours = is_ours or self._position == before
                found = self._apply([event])
                self._position = position
                outcomes += found if is_ours and len(outcomes) < len(events) else []
                if position == last:
                    # What others wrote behind ours since is for the next who follows.
                    break
        await self._confirm()
        return outcomes

    async def _catch_up(self) -> None:
        """Take what the log has behind the position; begin again where the position is gone."""
        while True:
            entries = None
            if self._position is not None:
                entries = await self._store.after(self._position)
            if entries is None:
                await self._begin_again()
                continue
            for turn in _turns(entries):
                self._apply([event for _, event in turn])
                self._position = turn[-1][0]
                await asyncio.sleep(0)
            await self._confirm(is_news=bool(entries))
            if not entries:
                return

    async def _begin_again(self) -> None:
        """Read all that the store keeps into a new state."""
        await self._lose()
        self._position = None
        position = await self._store.tip()
        state, cuts = self._new_state(), {}
        async for stored in self._store.stored(position):
            for turn in _turns(stored.events):
                _apply_to(state, turn)
                state.refresh()
                await asyncio.sleep(0)
            if stored.cut_ts_ms or stored.short_intervals_ms:
                cuts[stored.symbol] = stored
        self.state, self._cuts, self._position = state, cuts, position
        log.info(names.MARKET_STORE_READ, extra={"position": position, "cut": len(cuts)})

    def _apply(self, events: Sequence[MarketEvent]) -> list[Outcome]:
        outcomes = _apply_to(self.state, events)
        write_ahead(GetFeatureSnapshotsResponse, self.state.refresh())
        return outcomes

    async def _confirm(self, *, is_news: bool = True) -> None:
        was_current, self._heard_s = self.is_current, self._clock()
        if is_news or not was_current:
            async with self.moved:
                self.moved.notify_all()

    async def _lose(self) -> None:
        self._heard_s = None
        async with self.moved:
            self.moved.notify_all()

    async def close(self) -> None:
        """Let what was begun end, and let go of the store."""
        await asyncio.gather(*self._begun, return_exceptions=True)
        await self._store.close()

    def keeps(self, event: MarketEvent) -> bool:
        """Say whether the store keeps events of this kind; no feature set needs the others."""
        return self._store.keeps(event)


def lengths_of(feature_sets: Iterable[FeatureSet], *, quotes_max: int) -> dict[str, int]:
    """Say how many events of one symbol a store should keep, by kind.

    Of bars, twice what a history holds: then every bar that a restarted replica holds has as many
    before it as it has elsewhere, and its snapshot says the same.

    Args:
        feature_sets: What is served.
        quotes_max: How many of whatever else there is.
    """
    engines = [held.engine for held in feature_sets]
    kinds = [name for name in MarketEvent.__struct_fields__ if name != "bar"]
    lengths = dict.fromkeys(kinds, quotes_max) if engines else {}
    for engine in engines:
        if engine.bar_source is BarSource.READY_MADE:
            kind = f"bar{engine.bar_interval_ms}"
            lengths[kind] = max(lengths.get(kind, 0), 2 * engine.max_bars)
    return lengths


def _apply_to(state: MarketState, events: Sequence[MarketEvent]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for event in events:
        try:
            outcomes.append(state.take(event))
        except DetentError as error:
            outcomes.append(error)
    return outcomes


def _turns(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), EVENTS_PER_TURN):
        yield items[start : start + EVENTS_PER_TURN]
