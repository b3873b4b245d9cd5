"""State what the feature service asks of a store that its replicas share."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from detent.contracts.calls.feature import MarketEvent
from detent.contracts.stored import StoredMarketData


class MarketStore(Protocol):
    """Keeps market data durably and in one order for all.

    A position is a word of the store's own: empty before the first entry. Every call is over in
    bounded time and raises `ServiceUnavailable` or `Overloaded` when it did not do as asked.
    """

    def keeps(self, event: MarketEvent) -> bool:
        """Say whether events of this kind are kept."""
        ...

    async def check(self) -> None:
        """Refuse a store that may forget by itself."""
        ...

    async def append(self, events: Sequence[MarketEvent]) -> tuple[str, str]:
        """Append events as one piece; give the positions before and after them."""
        ...

    async def tip(self) -> str:
        """Give the newest position."""
        ...

    async def after(self, position: str) -> list[tuple[str, MarketEvent]] | None:
        """Give some of the next entries; None when what follows the position is not known."""
        ...

    async def wait(self, position: str) -> None:
        """Wait a fraction of a second for something behind a position."""
        ...

    def stored(self, until: str) -> AsyncIterator[StoredMarketData]:
        """Give what is kept of each symbol, up to a position."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
