"""Keep the stand-downs of this process; what it holds is always what the ledger says."""

import asyncio

from detent.adapters.sqlite_ledger import SqliteLedger, StandDownChange
from detent.contracts.calls.policy import SetStandDownRequest
from detent.contracts.errors import LedgerUnavailable, Overloaded
from detent.contracts.plan import StandDown, StandDownSource
from detent.core.policy.stand_down import stand_down_in_force

WHOLE_BOOK = ""
# Scopes, each a book or a symbol of one under one source; some fifty megabytes of them.
SCOPES_MAX = 200_000
# Book, symbol, source.
Scope = tuple[str, str, StandDownSource]


class StandDowns:
    """Holds for every scope and source the stand-down that it set last and did not lift.

    One that has ended stays until it is replaced or lifted: its end is data time, and who
    decides old bars again must find what was in force on them.
    """

    def __init__(self, ledger: SqliteLedger) -> None:
        """Start empty; `restore` reads the ledger."""
        self._ledger = ledger
        self._standing: dict[Scope, StandDown] = {}
        # How many scopes a book has: a book without any costs a bar one look.
        self._counts: dict[str, int] = {}
        self._changing = asyncio.Lock()

    async def restore(self) -> None:
        """Take up what was in force when the last process ended."""
        for change in await self._ledger.standing_stand_downs():
            self._put((change.book, change.symbol, change.source), change.stand_down)

    def in_force(self, book: str, symbol: str, ts_ms: int) -> StandDown | None:
        """Give the stand-down that holds for a symbol at a bar and ends last, or None."""
        if book not in self._counts:
            return None
        candidates = [
            self._standing.get((book, scope, source))
            for scope in (WHOLE_BOOK, symbol)
            for source in StandDownSource
        ]
        return stand_down_in_force(candidates, ts_ms)

    async def change(self, query: SetStandDownRequest, *, at_ms: int) -> tuple[int, int]:
        """Set or lift; it is obeyed at once, and durable when this returns.

        What is computed from here on obeys it. Decisions that were computed before are durable
        before it is, because both go through one queue; nothing computed earlier comes later.

        Returns:
            How many scopes changed, and how many were so already.

        Raises:
            Overloaded: There would be more scopes than a process keeps.
            LedgerUnavailable: Nothing was written, and nothing changed.
        """
        source = query.lift if query.stand_down is None else query.stand_down.source
        assert source is not None
        async with self._changing:
            scopes: list[Scope] = [
                (query.book, symbol, source) for symbol in query.symbols or (WHOLE_BOOK,)
            ]
            before = {
                scope: self._standing.get(scope)
                for scope in scopes
                if self._standing.get(scope) != query.stand_down
            }
            if before:
                self._check_room(before, query.stand_down)
                await self._write(before, query.stand_down, at_ms=at_ms)
        return len(before), len(scopes) - len(before)

    async def _write(
        self, before: dict[Scope, StandDown | None], after: StandDown | None, *, at_ms: int
    ) -> None:
        changes = [
            StandDownChange(at_ms=at_ms, book=book, symbol=symbol, source=source, stand_down=after)
            for book, symbol, source in before
        ]
        for scope in before:
            self._put(scope, after)
        try:
            await self._ledger.add_stand_downs(changes)
        except LedgerUnavailable:
            for scope, stand_down in before.items():
                self._put(scope, stand_down)
            raise

    def _check_room(self, before: dict[Scope, StandDown | None], after: StandDown | None) -> None:
        new = [scope for scope, stand_down in before.items() if stand_down is None]
        if after is not None and len(self._standing) + len(new) > SCOPES_MAX:
            raise Overloaded(
                f"{len(self._standing)} stand-downs are kept; lift what is over",
                limit=SCOPES_MAX,
            )

    def _put(self, scope: Scope, stand_down: StandDown | None) -> None:
        book = scope[0]
        known = scope in self._standing
        if stand_down is not None:
            self._standing[scope] = stand_down
            self._counts[book] = self._counts.get(book, 0) + (not known)
        elif known:
            del self._standing[scope]
            self._counts[book] -= 1
            if self._counts[book] == 0:
                del self._counts[book]
