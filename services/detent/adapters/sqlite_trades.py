"""Keep fills and outcomes beside the records that they belong to, in the ledger's file."""

from collections.abc import Sequence

from detent.adapters.sqlite_facts import FactTable, SqliteFacts
from detent.adapters.sqlite_file import SqliteFile
from detent.contracts.trades import Fill, Outcome

FILLS = FactTable(
    name="fills",
    columns=("fill_id", "plan_id", "book", "symbol", "ts_ms"),
    key=("fill_id",),
)
_OUTCOMES = FactTable(
    name="outcomes",
    columns=("plan_id", "symbol", "ts_ms"),
    key=("plan_id", "symbol", "ts_ms"),
)


class SqliteTrades:
    """Holds what happened after the decisions; every write is durable when it returns."""

    def __init__(self, file: SqliteFile) -> None:
        """Share the file, its thread and its commits with the ledger."""
        self._fills = SqliteFacts(file, FILLS)
        self._outcomes = SqliteFacts(file, _OUTCOMES)

    async def add_fills(self, fills: Sequence[Fill]) -> int:
        """Make fills durable, all or none; gives how many were new.

        Raises:
            DataConflict: A fill of this name is held with other content.
            LedgerUnavailable: Nothing was written.
        """
        return await self._fills.add(fills)

    async def add_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable, all or none; gives how many were new; raises as `add_fills`."""
        return await self._outcomes.add(outcomes)
