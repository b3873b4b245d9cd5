"""A strategist that follows a rollout has its arms by every share, and is off a bad one at once."""

import asyncio
import itertools
from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS
from tests.rollout_host import (
    CANDIDATE,
    PLAN,
    STABLE,
    SYMBOLS,
    RolloutHost,
    client_of,
    decide,
    roll_back,
    set_percent,
    start_request,
)

from detent.contracts.plan import Plan
from detent.contracts.rollout import Rollout
from detent_client.rollout_following import follow_rollout


@pytest.mark.proves("R119", "R333")
async def test_who_follows_is_moved_by_every_change_and_back_at_once(tmp_path: Path) -> None:
    numbers = itertools.count(2)

    def next_plan(rollout: Rollout) -> tuple[Plan, int]:
        number = next(numbers)
        return structs.replace(PLAN, plan_id=f"plan-{number}"), START_MS + number * HOUR_MS

    async with (
        RolloutHost(tmp_path) as rig,
        client_of(rig, tmp_path) as strategist,
        client_of(rig, tmp_path, "operator") as operator,
    ):
        rollout = (await operator.start_rollout(start_request(SYMBOLS))).rollout
        opened = await strategist.open_under_rollout(PLAN, "r1")
        following = follow_rollout(strategist, opened, "r1", next_plan=next_plan)
        async with asyncio.timeout(30.0):
            moved = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0.5)
            # In shadow nothing moves: the first look was suppressed.
            assert not moved.done()
            rollout = await set_percent(operator, rollout, 5_000)
            split = await moved
            for arm in split:
                await decide(strategist, arm, bar=5)
            moved = asyncio.ensure_future(anext(following))
            await roll_back(operator)
            back = await moved
        await following.aclose()

    assert [one.binding_hash for one in split] == [STABLE.binding_hash, CANDIDATE.binding_hash]
    assert [(one.plan.symbols, one.binding_hash) for one in back] == [
        (SYMBOLS, STABLE.binding_hash)
    ]
