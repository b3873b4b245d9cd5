"""Finds readings of the past that change when the future arrives."""

import contextlib
from collections.abc import Callable, Iterable

from detent.contracts.errors import DetentError
from detent.contracts.market import Bar, Book, Quote
from detent.core.features.history import SymbolHistory


def changed_instants(
    history: SymbolHistory,
    events: Iterable[Bar | Quote | Book],
    read: Callable[[SymbolHistory, int], object],
) -> set[int]:
    """Feed events one by one and list the instants whose reading changed afterwards.

    Args:
        history: An empty history.
        events: Market data in order of arrival; what is refused is left out.
        read: Reads the history as of an instant.
    """
    first: dict[int, object] = {}
    changed = set()
    for event in events:
        with contextlib.suppress(DetentError):
            history.add(event)
        changed |= {at for at, before in first.items() if read(history, at) != before}
        for at in (history.watermark_ts_ms, history.reach_ts_ms):
            if at > 0:
                first.setdefault(at, read(history, at))
    return changed
