"""Name what the monitor asks of others."""

from typing import Protocol

from detent.contracts.calls.policy import RecordOutcomesRequest, RecordOutcomesResponse
from detent.rpc.call import Call


class Outcomes(Protocol):
    """Keeps outcomes on the durable record."""

    async def record_outcomes(
        self, query: RecordOutcomesRequest, call: Call
    ) -> RecordOutcomesResponse:
        """Record outcomes of one plan; the same ones again change nothing."""
        ...
