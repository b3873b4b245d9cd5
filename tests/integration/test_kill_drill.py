"""Proves over processes that are killed that off is off within a second, and that it stays so.

The long count is 1,000 switches by default; `DETENT_KILL_DRILL=50` makes a short one of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Artifacts
from tests.integration.kill_fleet import REPLICAS, SYMBOLS, Fleet, Kill, plan_name
from tests.integration.kill_forker import LEASELESS
from tests.postgres_server import PostgresServer, postgres_server

from detent.adapters.control_database import ControlDatabase
from detent.contracts.kill_switch import KillScope
from detent.core.rollout.kill_state import STALE_S

LONG_KILLS = int(os.environ.get("DETENT_KILL_DRILL", "1000"))
KILLS_AT_ONCE = 4
RESTARTS_EVERY = 4
WATCHED_S = 0.25
# How often the database ends with the processes that follow it.
DATABASE_DIES = 0.3
# More than half of the rounds have trouble; what is cut is cut for some replicas only.
TROUBLES = ("", "stopped", "", "slow", "cut")


class Drill:
    """Switches models off at random moments, and counts what must not be.

    Attributes:
        kills: Switches that were acknowledged, by the trouble that there was.
        restarts: Processes that were killed and came back under a switch.
        database_restarts: How often the database was ended and started with them.
        slowest_s: Longest time to an acknowledgement, by the trouble.
    """

    def __init__(self, fleet: Fleet, server: PostgresServer, *, seed: int) -> None:
        """Take what is drilled; nothing is switched yet."""
        self._fleet, self._server = fleet, server
        self._chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.restarts = 0
        self.database_restarts = 0
        self.slowest_s: dict[str, float] = {}

    async def run(self, kills: int, troubles: tuple[str, ...] = TROUBLES) -> None:
        """Go round until so many switches were set, released between the rounds."""
        for number, trouble in enumerate(itertools.cycle(troubles)):
            if self.kills.total() >= kills:
                return
            await self.round(trouble, restarts=number % RESTARTS_EVERY == 0)

    async def round(self, trouble: str, *, restarts: bool) -> None:
        """Switch off, make trouble, check, and release."""
        fleet, chance = self._fleet, self._chance
        await fleet.until_all((), is_model=True)
        fleet.seen.clear()
        kills = self._drawn()
        deaf = chance.sample(range(REPLICAS), chance.randint(1, REPLICAS - 1))
        heard = [one for one in range(REPLICAS) if trouble != "cut" or one not in deaf]
        spoiling = asyncio.create_task(self._spoil(trouble, deaf))
        began = [self._set(kill, trouble, by=chance.choice(heard)) for kill in kills]
        epochs = dict(await asyncio.gather(*began))
        # Trouble that outlives its switch: who cannot hear is watched while it lasts.
        await spoiling
        if restarts:
            await self._restart(kills)
        for kill, (epoch, acknowledged_s) in epochs.items():
            assert fleet.model_after(acknowledged_s, kill) == [], (kill, epoch, trouble)
        await asyncio.gather(
            *(
                fleet.switch(kill, by=chance.randrange(REPLICAS), seen_epoch=epoch)
                for kill, (epoch, _) in epochs.items()
            )
        )

    def _drawn(self) -> list[Kill]:
        """Draw what is switched off: mostly symbols, sometimes something wider."""
        chance = self._chance
        wide = [(KillScope.GLOBAL, ""), (KillScope.MODEL, self._fleet.binding.model_id)]
        wide.append((KillScope.PLAN, plan_name(chance.randrange(REPLICAS))))
        if chance.random() < 1 / KILLS_AT_ONCE:
            return [chance.choice(wide)]
        return [(KillScope.SYMBOL, one) for one in chance.sample(SYMBOLS, KILLS_AT_ONCE)]

    async def _set(self, kill: Kill, trouble: str, *, by: int) -> tuple[Kill, tuple[int, float]]:
        """Switch off at a random moment; give the epoch, and when it was acknowledged."""
        await asyncio.sleep(self._chance.uniform(0.0, 0.3))
        asked_s = time.monotonic()
        answer = await self._fleet.switch(kill, by=by)
        acknowledged_s = time.monotonic()
        took_s = acknowledged_s - asked_s
        self.kills[trouble] += 1
        self.slowest_s[trouble] = max(took_s, self.slowest_s.get(trouble, 0.0))
        await asyncio.sleep(WATCHED_S)
        return kill, (answer.kill_switch.epoch, acknowledged_s)

    async def _spoil(self, trouble: str, deaf: list[int]) -> None:
        """Make the trouble of one round, and end it."""
        replicas = self._fleet.replicas
        if trouble == "stopped":
            await asyncio.to_thread(self._server.pause)
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * STALE_S)
            await asyncio.to_thread(self._server.resume)
        elif trouble == "slow":
            for replica in replicas:
                replica.link.delay_s = self._chance.uniform(0.02, 0.3)
            await asyncio.sleep(STALE_S)
        elif trouble == "cut":
            for index in deaf:
                replicas[index].link.stall()
            await asyncio.sleep(2 * STALE_S)
        for replica in replicas:
            replica.link.heal()

    async def _restart(self, kills: list[Kill]) -> None:
        """End every process, start all in another order; the switches hold from the start.

        Now and then the database is among them, which is ended as by a power cut.
        """
        order = list(self._fleet.replicas)
        self._chance.shuffle(order)
        for replica in order:
            await replica.kill()
        dies = self._chance.random() < DATABASE_DIES
        if dies:
            await asyncio.to_thread(self._server.stop_at_once)
        self._chance.shuffle(order)
        for replica in order:
            await replica.start()
        if dies:
            await asyncio.to_thread(self._server.start)
            self.database_restarts += 1
        self.restarts += len(order)
        await self._fleet.until_all(kills, is_model=False)
        await asyncio.sleep(WATCHED_S)


@pytest.fixture(name="database")
def _database() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def fleet_of(folder: Path, artifacts: Artifacts, database: PostgresServer) -> Fleet:
    """Give replicas that share a fresh control database."""
    url = database.url(database.fresh_database())
    ControlDatabase(url).migrate()
    return Fleet(folder, artifacts.stable, artifacts.stable_binding, url)


async def drilled(
    folder: Path, artifacts: Artifacts, database: PostgresServer, *, kills: int
) -> Drill:
    """Run a drill over sound replicas."""
    fleet = fleet_of(folder, artifacts, database)
    async with fleet.running():
        drill = Drill(fleet, database, seed=kills)
        try:
            await drill.run(kills)
        finally:
            database.resume()
    return drill


@pytest.mark.proves("R93")
async def test_processes_that_are_killed_come_back_switched_off(
    tmp_path: Path, artifacts: Artifacts, database: PostgresServer
) -> None:
    """A sample of the count below: one restart, then each trouble once."""
    fleet = fleet_of(tmp_path, artifacts, database)
    async with fleet.running():
        drill = Drill(fleet, database, seed=7)
        for number, trouble in enumerate(("stopped", "slow", "cut")):
            await drill.round(trouble, restarts=number == 0)

    assert set(drill.kills) == {"stopped", "slow", "cut"}
    assert drill.restarts == REPLICAS


@pytest.mark.long
async def test_no_model_answers_after_any_of_a_thousand_switches(
    tmp_path: Path, artifacts: Artifacts, database: PostgresServer
) -> None:
    began_s = time.monotonic()
    drill = await drilled(tmp_path, artifacts, database, kills=LONG_KILLS)
    took_s = time.monotonic() - began_s
    slowest = {name or "none": f"{value:.2f} s" for name, value in drill.slowest_s.items()}
    restarts = f"{drill.restarts} restarts, {drill.database_restarts} of the database"
    sys.stdout.write(f"{drill.kills}, {restarts}, {took_s:.0f} s, slowest {slowest}\n")

    assert drill.kills.total() >= LONG_KILLS
    assert 2 * sum(drill.kills[one] for one in TROUBLES if one) >= drill.kills.total()


async def test_the_drill_finds_replicas_that_believe_an_old_reading(
    tmp_path: Path, artifacts: Artifacts, database: PostgresServer
) -> None:
    """The control: cut off from the database, such a replica goes on with its model."""
    fleet = fleet_of(tmp_path, artifacts, database)
    async with fleet.running(LEASELESS):
        with pytest.raises(AssertionError, match="cut"):
            await Drill(fleet, database, seed=1).round("cut", restarts=False)
