"""Switch models off, release them, and see what is off."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from detent.contracts.calls.rollout import (
    GetKillSwitchesRequest,
    GetKillSwitchesResponse,
    SetKillSwitchRequest,
    SetKillSwitchResponse,
)

T = TypeVar("T")
# A change is answered after a second at the latest; a busy machine gets more.
CHANGE_S = 10.0


class KillCalls(ABC):
    """Is the part of the client that asks `RolloutService` about kill switches."""

    @abstractmethod
    async def _ask_rollouts(
        self, request: Any, response_type: type[T], *, deadline_s: float | None = None
    ) -> T:
        """Make one call of `RolloutService`, with deadlines and typed errors."""

    async def set_kill_switch(
        self, request: SetKillSwitchRequest, *, deadline_s: float = CHANGE_S
    ) -> SetKillSwitchResponse:
        """Change a switch; after the answer no replica decides by a model that is off.

        A call that found no service is made again, so that an epoch may count twice.

        Raises:
            KillEpochStale: A release names another epoch than the newest; nothing changed.
            DetentError: The service refused or did not answer: the change may or may not hold.
        """
        return await self._ask_rollouts(request, SetKillSwitchResponse, deadline_s=deadline_s)

    async def get_kill_switches(self) -> GetKillSwitchesResponse:
        """Give the switches as the service knows them, and what it has off by itself."""
        return await self._ask_rollouts(GetKillSwitchesRequest(), GetKillSwitchesResponse)
