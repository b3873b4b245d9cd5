"""Keep what models said unused beside the decisions, in the ledger's file."""

from collections.abc import Sequence

from detent.adapters.sqlite_facts import FactTable, SqliteFacts
from detent.adapters.sqlite_file import SqliteFile
from detent.contracts.shadow import ShadowSignal

_KEY = ("ts_ms", "plan_id", "symbol", "kind", "binding_hash")
# No decision shares a commit with them: neither their number nor their faults are its business.
_SHADOWS = FactTable(name="shadow_signals", columns=_KEY, key=_KEY, beside_decisions=False)


class SqliteShadows:
    """Holds shadow answers; every write is durable when it returns, in a commit of its own."""

    def __init__(self, file: SqliteFile) -> None:
        """Share the file and its thread with the ledger, but no commit."""
        self._facts = SqliteFacts(file, _SHADOWS)

    async def add_shadows(self, signals: Sequence[ShadowSignal]) -> int:
        """Make answers durable, all or none; gives how many were new.

        Raises:
            DataConflict: An answer of this key is held with other content.
            LedgerUnavailable: Nothing was written.
        """
        return await self._facts.add(signals)
