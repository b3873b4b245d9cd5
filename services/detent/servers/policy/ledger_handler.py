"""Serve the auditor: read, verify and replay what was decided."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from detent.adapters.ledger_auditing import Audit, audit
from detent.adapters.ledger_reading import LedgerReader, PostgresReader, SqliteReader, token_of
from detent.adapters.ledger_replaying import find_record, replay_one
from detent.adapters.sqlite_file import Row
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.calls.ledger import (
    GetDecisionRequest,
    GetDecisionResponse,
    ListDecisionsRequest,
    ListDecisionsResponse,
    ReplayDecisionRequest,
    ReplayDecisionResponse,
    VerifyLedgerRequest,
    VerifyLedgerResponse,
)
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import from_json
from detent.core.ledger.anchor import Anchored
from detent.rpc.call import Call

# Half of what a message may hold: a record's text is longer than its message.
PAGE_BYTES_MAX = 8 * 2**20


class LedgerHandler:
    """Answers from what is durable: PostgreSQL where records are shipped to, else the file.

    A record that was asked for by its hash and has not arrived yet is read from the file. The
    readers are its own: nobody's commit waits for an auditor.
    """

    def __init__(
        self,
        *,
        ledger: SqliteLedger,
        shared: PostgresReader | None = None,
        anchored: Callable[[], Awaitable[Anchored]] | None = None,
    ) -> None:
        """Take where to read.

        Args:
            ledger: The file that decisions are written to.
            shared: What owners ship to; None when nothing is shipped.
            anchored: Reads the anchors; None when there are none.
        """
        file = SqliteReader(ledger.path)
        self._readers: Sequence[LedgerReader] = (file,) if shared is None else (shared, file)
        self._anchored = anchored

    async def get_decision(self, query: GetDecisionRequest, call: Call) -> GetDecisionResponse:
        """Give one record."""
        written = await asyncio.to_thread(find_record, self._readers, query.record_hash)
        return GetDecisionResponse(
            record=written.record, canonical_json=written.canonical.decode("ascii")
        )

    async def list_decisions(
        self, query: ListDecisionsRequest, call: Call
    ) -> ListDecisionsResponse:
        """List records in the order in which they were written, one ledger after the other."""
        reader = self._readers[0]
        after = token_of(query.page_token)
        found = await asyncio.to_thread(reader.list_records, query, *after)
        rows = _fitting(found)
        records = tuple(
            from_json(DecisionRecord, parse_json("record", canonical.encode()))
            for _, canonical in rows
        )
        more = len(rows) < len(found) or len(found) == query.page_size
        return ListDecisionsResponse(
            records=records, next_page_token=str(rows[-1][0]) if more else ""
        )

    async def verify_ledger(self, query: VerifyLedgerRequest, call: Call) -> VerifyLedgerResponse:
        """Recompute every hash and link, and hold them against the anchors."""
        anchored = [await self._anchored()] if self._anchored is not None else []
        found = await asyncio.to_thread(self._audit, anchored, query.plan_id)
        return found.response

    def _audit(self, anchored: Sequence[Anchored], plan_id: str) -> Audit:
        return audit(self._readers[0], anchored, plan_id, shipped_from=self._readers[1:])

    async def replay_decision(
        self, query: ReplayDecisionRequest, call: Call
    ) -> ReplayDecisionResponse:
        """Decide one recorded bar again, from its probabilities on, and give both bytes."""
        return await asyncio.to_thread(replay_one, self._readers, query.record_hash)


def _fitting(rows: Sequence[Row]) -> Sequence[Row]:
    """Give the first rows of a page that fit in one message, at least one."""
    size = 0
    for index, (_, canonical) in enumerate(rows):
        size += len(canonical)
        if size > PAGE_BYTES_MAX and index > 0:
            return rows[:index]
    return rows
