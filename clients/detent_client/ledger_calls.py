"""Read the ledger: one record, pages of them, verification, replay."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

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

T = TypeVar("T")


class LedgerCalls(ABC):
    """Is the part of the client that asks `LedgerService`."""

    @abstractmethod
    async def _read_ledger(
        self, request: Any, response_type: type[T], *, deadline_s: float | None = None
    ) -> T:
        """Make one call of `LedgerService`, with deadlines and typed errors."""

    async def get_decision(self, record_hash: str) -> GetDecisionResponse:
        """Give one record of the ledger."""
        request = GetDecisionRequest(record_hash=record_hash)
        return await self._read_ledger(request, GetDecisionResponse)

    async def list_decisions(self, request: ListDecisionsRequest) -> ListDecisionsResponse:
        """Give a page of records."""
        return await self._read_ledger(request, ListDecisionsResponse)

    async def verify_ledger(
        self, plan_id: str = "", *, deadline_s: float | None = None
    ) -> VerifyLedgerResponse:
        """Have every hash and link recomputed, of one plan or of all."""
        request = VerifyLedgerRequest(plan_id=plan_id)
        return await self._read_ledger(request, VerifyLedgerResponse, deadline_s=deadline_s)

    async def replay_decision(self, record_hash: str) -> ReplayDecisionResponse:
        """Have one recorded bar decided again."""
        request = ReplayDecisionRequest(record_hash=record_hash)
        return await self._read_ledger(request, ReplayDecisionResponse)
