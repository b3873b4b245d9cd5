"""Replan whenever a rollout changes: a share applies to plans that are opened afterwards."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from detent.contracts.errors import DeadlineExceeded, ServiceUnavailable
from detent.contracts.plan import Plan
from detent.contracts.replanning import ReplanOutcome
from detent.contracts.rollout import Rollout
from detent_client.client import DetentClient
from detent_client.opened_plan import OpenedPlan

# Gives the next plan, under a name of its own, and the instant of the replan in data time.
NextPlan = Callable[[Rollout], tuple[Plan, int]]
AGAIN_S = 1.0


async def follow_rollout(
    client: DetentClient,
    opened: tuple[OpenedPlan, ...],
    rollout_id: str,
    *,
    next_plan: NextPlan,
    again_s: float = AGAIN_S,
) -> AsyncGenerator[tuple[OpenedPlan, ...], None]:
    """Give the arms that decide from here on, whenever a change of a rollout moved them.

    A replan that comes too early is made with the next change, or by the caller; one that
    moves no symbol is suppressed. Where the service is away it is asked again for as long as
    one likes, and nothing that changed meanwhile is missed.

    Args:
        client: Asks the service.
        opened: The arms that decide now.
        rollout_id: The rollout that they are of.
        next_plan: Says what is asked for when the rollout stands so.
        again_s: How long to wait where the service is away.

    Raises:
        DetentError: The service refused a replan.
    """
    book, revision = opened[0].plan.book, 0
    while True:
        try:
            async for change in client.watch_rollouts(book, after_revision=revision):
                for rollout in change.rollouts:
                    if rollout.rollout_id != rollout_id:
                        continue
                    plan, ts_ms = next_plan(rollout)
                    response, arms = await client.replace_under_rollout(
                        opened[0], plan, rollout_id, ts_ms=ts_ms, note="the rollout changed"
                    )
                    if response.outcome is ReplanOutcome.REPLACED:
                        opened = arms
                        yield arms
                revision = change.revision
        except (ServiceUnavailable, DeadlineExceeded):
            await asyncio.sleep(again_s)
