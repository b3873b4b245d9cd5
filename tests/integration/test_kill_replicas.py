"""Proves over three replicas and a real database that off is off everywhere, and stays off."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.fakes import PolicyHost
from tests.postgres_server import PostgresServer, postgres_server
from tests.service.policy_calls import ask, open_plan

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.kill_store import KillStore
from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.errors import KillEpochStale
from detent.contracts.kill_switch import KillPosition, KillScope
from detent.contracts.reasons import Reason
from detent.core.rollout.kill_state import STALE_S, KillState
from detent.servers.policy.kill_switches import KillSwitches, SharedKills

REPLICAS = 3
PATIENCE_S = 60.0
MakeReader = Callable[[ControlDatabase, str], Any]
DRILL = {"actor": "ops", "reason": "drill"}


class Seen:
    """Holds one answer: when it was asked for, when it came, and whose it is."""

    def __init__(self, replica: int, asked_s: float, came_s: float, decision: Any) -> None:
        self.replica = replica
        self.asked_s = asked_s
        self.came_s = came_s
        self.is_model = decision.signal_source is SignalSource.MODEL
        self.reason: Reason | None = decision.fallback_reason


class DeafReader(KillSwitchReader):
    """Reads nothing and believes itself fresh: what the tests below must notice."""

    def start(self) -> None:
        self.state = KillState(read_s=time.monotonic())


class Fleet:
    """Runs replicas that decide all the time."""

    def __init__(self, folder: Path, binding: ModelBinding, url: str, make: MakeReader) -> None:
        self.seen: list[Seen] = []
        self._folder, self._binding, self._url, self._make = folder, binding, url, make
        self._stacks: dict[int, AsyncExitStack] = {}
        self.kills: dict[int, KillSwitches] = {}
        self._bars = itertools.count()
        self._names = itertools.count()

    async def start(self, index: int) -> None:
        database = ControlDatabase(self._url)
        reader = self._make(database, f"replica-{index}-{next(self._names)}")
        kills = KillSwitches(shared=SharedKills(KillStore(database), reader), clock=time.monotonic)
        stack = self._stacks[index] = AsyncExitStack()
        host = PolicyHost(self._folder / f"{index}.sqlite", self._binding, kills=kills)
        await stack.enter_async_context(host)
        plan = plan_of(f"plan-{index}")
        await open_plan(host, plan, self._binding)
        task = asyncio.create_task(self._decide(index, host, plan))

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)
        self.kills[index] = kills

    async def stop(self, index: int) -> None:
        await self._stacks.pop(index).aclose()

    async def close(self) -> None:
        for index in list(self._stacks):
            await self.stop(index)

    async def _decide(self, index: int, host: PolicyHost, plan: Any) -> None:
        while True:
            ts_ms = START_MS + next(self._bars) * HOUR_MS
            asked_s = time.monotonic()
            answer = await ask(host, row_of(), plan=plan, ts_ms=ts_ms, timeout_s=30.0)
            decision = answer.results[0].decision
            assert decision is not None
            self.seen.append(Seen(index, asked_s, time.monotonic(), decision))
            await asyncio.sleep(0.05)

    async def until_all(self, *, is_model: bool) -> None:
        """Wait until every replica answers so."""
        since_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                now = {
                    one.replica
                    for one in self.seen
                    if one.asked_s > since_s and one.is_model is is_model
                }
                if len(now) == REPLICAS:
                    return
                await asyncio.sleep(0.05)

    def model_asked_after(self, instant_s: float) -> list[Seen]:
        return [one for one in self.seen if one.is_model and one.asked_s > instant_s]


@pytest.fixture(name="own_postgres")
def _own_postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def control_of(server: PostgresServer) -> str:
    url = server.url(server.fresh_database())
    ControlDatabase(url).migrate()
    return url


async def killed(
    fleet: Fleet, chance: random.Random, server: PostgresServer, *, trouble: str
) -> Any:
    """Switch off at a random moment, with the database in trouble or not; check the promise."""
    await asyncio.sleep(chance.uniform(0.0, 0.2))
    if trouble:
        server.pause()
    # Whoever asked before the last process of it stood may well have been answered.
    paused_s = time.monotonic()
    changing = asyncio.create_task(
        fleet.kills[chance.randrange(REPLICAS)].change(
            KillScope.GLOBAL, position=KillPosition.OFF, **DRILL
        )
    )
    if trouble:
        await asyncio.sleep(STALE_S + 0.4 if trouble == "stopped" else chance.uniform(0.1, 0.6))
        if trouble == "stopped":
            await fleet.until_all(is_model=False)
            late = [one for one in fleet.seen if one.asked_s > paused_s + STALE_S]
            assert {one.reason for one in late} == {Reason.KILL_STATE_STALE}
        server.resume()
    done = await changing
    acknowledged_s = time.monotonic()
    await asyncio.sleep(0.3)
    assert fleet.model_asked_after(acknowledged_s) == []
    return done, acknowledged_s


async def drill(fleet: Fleet, server: PostgresServer, *, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    for index in range(REPLICAS):
        await fleet.start(index)
    troubles = itertools.cycle(["", "stopped", "", "slow"])
    for number in range(rounds):
        await fleet.until_all(is_model=True)
        done, acknowledged_s = await killed(fleet, chance, server, trouble=next(troubles))
        epoch = done.kill_switch.epoch
        if number % 4 == 0:
            order = list(range(REPLICAS))
            chance.shuffle(order)
            for index in order:
                await fleet.stop(index)
                await fleet.start(index)
            await fleet.until_all(is_model=False)
        store = next(iter(fleet.kills.values()))
        for old in (epoch - 1, epoch + 1):
            with pytest.raises(KillEpochStale):
                await store.change(
                    KillScope.GLOBAL, position=KillPosition.RELEASED, seen_epoch=old, **DRILL
                )
        assert fleet.model_asked_after(acknowledged_s) == []
        fleet.seen.clear()
        await store.change(
            KillScope.GLOBAL, position=KillPosition.RELEASED, seen_epoch=epoch, **DRILL
        )


@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="sample"), pytest.param(1_000, marks=pytest.mark.long, id="all")]
)
async def test_off_is_off_everywhere_once_acknowledged_and_nothing_revives_it(
    tmp_path: Path, binding: ModelBinding, own_postgres: PostgresServer, rounds: int
) -> None:
    """No model decision begins after the acknowledgement; the promise leaves it a second more."""
    fleet = Fleet(tmp_path, binding, control_of(own_postgres), KillSwitchReader)
    try:
        await drill(fleet, own_postgres, rounds=rounds, seed=7)
    finally:
        own_postgres.resume()
        await fleet.close()


async def test_the_drill_notices_replicas_that_do_not_read(
    tmp_path: Path, binding: ModelBinding, own_postgres: PostgresServer
) -> None:
    fleet = Fleet(tmp_path, binding, control_of(own_postgres), DeafReader)
    try:
        with pytest.raises(AssertionError, match=r"model_asked_after|Seen"):
            await drill(fleet, own_postgres, rounds=1, seed=7)
    finally:
        await fleet.close()


async def test_a_database_that_is_gone_for_good_leaves_the_proxy(
    tmp_path: Path, binding: ModelBinding, own_postgres: PostgresServer
) -> None:
    fleet = Fleet(tmp_path, binding, control_of(own_postgres), KillSwitchReader)
    try:
        for index in range(REPLICAS):
            await fleet.start(index)
        await fleet.until_all(is_model=True)
        own_postgres.stop_at_once()
        gone_s = time.monotonic()
        await asyncio.sleep(STALE_S + 0.5)
        late = [one for one in fleet.seen if one.asked_s > gone_s + STALE_S]
        own_postgres.start()
        await fleet.until_all(is_model=True)
    finally:
        with contextlib.suppress(Exception):
            await fleet.close()

    assert {one.replica for one in late} == set(range(REPLICAS))
    assert {one.reason for one in late} == {Reason.KILL_STATE_STALE}
