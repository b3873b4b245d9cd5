"""Roll a candidate out, take it back, and follow how rollouts stand."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from detent.contracts.calls.rollout import (
    GetRolloutRequest,
    GetRolloutResponse,
    ListRolloutsRequest,
    ListRolloutsResponse,
    PromoteRolloutRequest,
    PromoteRolloutResponse,
    RollBackRequest,
    RollBackResponse,
    SetCanaryPercentRequest,
    SetCanaryPercentResponse,
    StartRolloutRequest,
    StartRolloutResponse,
    WatchRolloutRequest,
    WatchRolloutResponse,
)
from detent_client.kill_calls import CHANGE_S

T = TypeVar("T")


class RolloutCalls(ABC):
    """Is the part of the client that asks `RolloutService` about rollouts."""

    @abstractmethod
    async def _ask_rollouts(
        self, request: Any, response_type: type[T], *, deadline_s: float | None = None
    ) -> T:
        """Make one call of `RolloutService`, with deadlines and typed errors."""

    @abstractmethod
    def _follow_rollouts(self, request: Any, response_type: type[T]) -> AsyncGenerator[T, None]:
        """Make one call of `RolloutService` that is answered again and again."""

    async def start_rollout(self, request: StartRolloutRequest) -> StartRolloutResponse:
        """Start a rollout in shadow; the same one again changes nothing.

        Raises:
            RolloutArmEmpty: Its first share gives the candidate no symbol.
            RolloutConflict: The name was used, or the book has a rollout under way.
            DetentError: A binding is not held, or the service refused or did not answer.
        """
        return await self._ask_rollouts(request, StartRolloutResponse, deadline_s=CHANGE_S)

    async def set_canary_percent(
        self, request: SetCanaryPercentRequest
    ) -> SetCanaryPercentResponse:
        """Set the candidate's share of the symbols, for plans that are opened afterwards.

        Raises:
            RolloutRevisionStale: Somebody has changed the rollout since it was looked at.
            RolloutHold: The present step has not lasted, or one would be left out.
            RolloutArmEmpty: The share is of no symbol.
        """
        return await self._ask_rollouts(request, SetCanaryPercentResponse, deadline_s=CHANGE_S)

    async def promote_rollout(self, request: PromoteRolloutRequest) -> PromoteRolloutResponse:
        """Make the candidate what all symbols use; errors as for `set_canary_percent`."""
        return await self._ask_rollouts(request, PromoteRolloutResponse, deadline_s=CHANGE_S)

    async def roll_back(self, request: RollBackRequest) -> RollBackResponse:
        """Take the candidate back; after the answer no replica decides by it under the rollout.

        Raises:
            RolloutNotFound: There is no such rollout.
            DetentError: The service did not answer: the rollback may or may not hold.
        """
        return await self._ask_rollouts(request, RollBackResponse, deadline_s=CHANGE_S)

    async def get_rollout(self, rollout_id: str) -> GetRolloutResponse:
        """Give a rollout with its history."""
        request = GetRolloutRequest(rollout_id=rollout_id)
        return await self._ask_rollouts(request, GetRolloutResponse)

    async def list_rollouts(self, book: str = "") -> ListRolloutsResponse:
        """List the rollouts of a book, or of all, newest change first."""
        return await self._ask_rollouts(ListRolloutsRequest(book=book), ListRolloutsResponse)

    def watch_rollouts(
        self, book: str = "", *, after_revision: int = 0
    ) -> AsyncGenerator[WatchRolloutResponse, None]:
        """Give the rollouts of a book, or of all, as they change, until one stops asking.

        Go on with the `revision` of the last answer where the call ended.

        Raises:
            DetentError: The call ended: the service ends, or does not read its database.
        """
        request = WatchRolloutRequest(book=book, after_revision=after_revision)
        return self._follow_rollouts(request, WatchRolloutResponse)
