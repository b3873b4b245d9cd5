"""Replays market data of every kind and reads a row as of the close of each bar.

Data are replayed in the order in which they were known, so that a row sees what the live service
saw. Whatever file an item is from, the order is one: at one instant books come before quotes and
quotes before bars, because a bar closes the past up to it.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.errors import DetentError, InvalidField
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input

Item = Bar | Quote | Book
OneKind = TypeVar("OneKind", Bar, Quote, Book)
OnRefusal = Callable[[Item, DetentError], None]
# Items that happened and are not known yet, of one kind and symbol.
DELAYED_MAX = 1_000_000


def iter_event_rows(
    feature_set: FeatureSet,
    events: Iterable[Item],
    *,
    view: SnapshotView = SnapshotView.INPUT,
    on_refusal: OnRefusal | None = None,
) -> Iterator[tuple[int, ModelInput | Reason]]:
    """Yield the close of each bar with its model input, or the reason why there is none.

    A row is read as soon as the data reach the close of its bar: with bars built from quotes,
    once a quote, and a book where books are read, has come that is no older.

    Args:
        feature_set: What the model is given.
        events: Bars, quotes and books of one symbol in order of arrival.
        view: Whether the snapshots come along.
        on_refusal: Told of an event that the live service would refuse, which is then left out
            as it would be there; None raises instead.

    Raises:
        DetentError: An event is refused.
    """
    history: SymbolHistory | None = None
    unread: deque[int] = deque(maxlen=feature_set.engine.max_bars)
    closed_ts_ms = 0
    for event in events:
        if history is None:
            history = SymbolHistory(event.symbol, feature_set.engine)
        try:
            history.add(event)
        except DetentError as error:
            if on_refusal is None:
                raise
            on_refusal(event, error)
            continue
        if history.watermark_ts_ms > closed_ts_ms:
            closed_ts_ms = history.watermark_ts_ms
            unread.append(closed_ts_ms)
        while unread and unread[0] <= history.reach_ts_ms:
            as_of_ts_ms = unread.popleft()
            row = build_model_input(feature_set, history, as_of_ts_ms=as_of_ts_ms, view=view)
            yield as_of_ts_ms, row


def by_availability(
    *, books: Iterable[Book] = (), quotes: Iterable[Quote] = (), bars: Iterable[Bar] = ()
) -> Iterator[Item]:
    """Merge data of one symbol into the order in which they were known.

    Args:
        books: Books in order of event time.
        quotes: Quotes in order of event time.
        bars: Bars in order of event time.

    Raises:
        InvalidField: More items than `DELAYED_MAX` wait to be known.
    """
    kinds: tuple[Iterable[Item], ...] = (_known(books), _known(quotes), _known(bars))
    # The merge is stable: of equal instants, the kind that is named first comes first.
    return heapq.merge(*kinds, key=lambda item: item.known_ts_ms)


def _known(items: Iterable[OneKind]) -> Iterator[OneKind]:
    """Put items of one kind from the order of event time into that of availability."""
    waiting: list[tuple[int, int, OneKind]] = []
    for number, item in enumerate(items):
        # Whatever follows happened no earlier, and so was known no earlier.
        while waiting and waiting[0][0] < item.ts_ms:
            yield heapq.heappop(waiting)[2]
        if len(waiting) >= DELAYED_MAX:
            found = f"{DELAYED_MAX} items that are not known by {item.ts_ms}"
            raise InvalidField("available_ts_ms", found, f"fewer than {DELAYED_MAX}")
        heapq.heappush(waiting, (item.known_ts_ms, number, item))
    while waiting:
        yield heapq.heappop(waiting)[2]
