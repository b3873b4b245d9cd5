"""Proves rollouts with the database stopped, and arms in processes that share nothing."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.builders import plan_of
from tests.postgres_server import postgres_server
from tests.rollout_host import (
    PLAN,
    SYMBOLS,
    RolloutHost,
    client_of,
    decide,
    roll_back,
    set_percent,
    start_request,
)

from detent.adapters.control_database import ControlDatabase
from detent.contracts.errors import DeadlineExceeded, ServiceUnavailable
from detent.contracts.reasons import Reason
from detent.core.rollout.kill_state import is_stale


async def test_with_the_database_stopped_changes_are_refused_and_plans_go_on_by_the_proxy(
    tmp_path: Path,
) -> None:
    """Stale is off within a second; when the database is back, so are both arms."""
    with postgres_server() as server:
        url = server.url(server.fresh_database())
        ControlDatabase(url).migrate()
        async with RolloutHost(tmp_path, url=url) as rig, client_of(rig, tmp_path) as client:
            rollout = (await client.start_rollout(start_request(SYMBOLS))).rollout
            await set_percent(client, rollout, 5_000)
            opened = await client.open_under_rollout(PLAN, "r1")
            server.stop_at_once()
            stopped_s = time.monotonic()
            with pytest.raises((ServiceUnavailable, DeadlineExceeded)):
                await roll_back(client)
            other = plan_of("other", SYMBOLS, book="book-plan")
            with pytest.raises((ServiceUnavailable, DeadlineExceeded)):
                await client.open_under_rollout(other, "r1")
            await asyncio.sleep(max(0.0, stopped_s + 1.3 - time.monotonic()))
            stale = [await decide(client, arm) for arm in opened]
            server.start()
            async with asyncio.timeout(30.0):
                while is_stale(rig.reader.state, time.monotonic()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            fresh = [await decide(client, arm, bar=1) for arm in opened]

    assert {one.fallback_reason for arm in stale for one in arm} == {Reason.KILL_STATE_STALE}
    assert {one.fallback_reason for arm in fresh for one in arm} == {None}


ASK = """
import sys
from msgspec import structs
from tests.builders import plan_of
from tests.rollout_host import CANDIDATE, RAMP, STABLE
from detent.contracts.rollout import Rollout, RolloutStage
from detent.core.rollout.plan_arms import arm_plans

symbols = tuple(f"SYM{number}" for number in range(1_000))
rollout = Rollout(
    rollout_id="r1", book="book-plan", symbols=symbols, stable_binding=STABLE,
    candidate_binding=CANDIDATE, salt="r1", ramp=RAMP, since_ms=1_700_000_000_000,
    stage=RolloutStage.CANARY,
)
held = set()
for canary_bps in range(0, 10_001, 500):
    bounds = arm_plans(plan_of("plan", symbols), structs.replace(rollout, canary_bps=canary_bps))
    mine = [set(one.plan.symbols) for one in bounds if one.plan.plan_id == "plan:candidate"]
    now = mine[0] if mine else set()
    assert held <= now, canary_bps
    assert sorted(s for one in bounds for s in one.plan.symbols) == sorted(symbols)
    held = now
    print(canary_bps, ",".join(sorted(now)))
"""


@pytest.mark.proves("R116", "R322")
def test_the_arms_of_a_plan_are_the_same_in_every_process_and_only_grow() -> None:
    """Twenty-one shares of 1,000 symbols under five hash seeds: 0 flips, 0 removals."""
    found = set()
    for seed in ("0", "1", "42", "1000", "random"):
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)

    assert len(found) == 1
    assert len(found.pop().splitlines()) == 21
