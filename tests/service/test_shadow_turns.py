"""Proves when a shadow is asked: between bursts, and in spite of them where there is no pause."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.builders import HOUR_MS, START_MS, model_binding, plan_of, record_of, row_of, written_of
from tests.fakes import FakeFeatures, FakeInference
from tests.service.shadows import shadowing_of

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.rollout import PlanRollout, RolloutArm
from detent.core.ledger.record import bind_plan
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.shadowing import (
    BARS_PER_TURN,
    QUIET_S_MAX,
    ROWS_PER_COMMIT,
    Shadowing,
    ShadowLimits,
)

CANDIDATE = model_binding()
# The clock of the shadow runs so much faster than ours.
HASTE = 10.0
# More rows in a turn than a commit holds.
SYMBOLS = tuple(f"S{number:02d}" for number in range(10))
PLACE = PlanRollout(rollout_id="r1", arm=RolloutArm.STABLE, canary_bps=500, revision=2)
BOUND = bind_plan(plan_of("plan", SYMBOLS), PROXY_BINDING, rollout=PLACE, shadow_binding=CANDIDATE)


class Desk:
    """Decides bars, is busy when it says so, and has one shadow behind it."""

    def __init__(self, folder: Path) -> None:
        self.is_busy = True
        self.asked = FakeInference(CANDIDATE)
        self.ledger = SqliteLedger(folder / "ledger.sqlite")
        self.shadowing: Shadowing = shadowing_of(
            self.ledger,
            FixedRoutes(FakeFeatures(CANDIDATE), self.asked),
            limits=ShadowLimits(deadline_s=2.0 * HASTE, calls_max=1),
            clock=self.now_s,
            is_busy=lambda: self.is_busy,
        )
        self._bars = 0

    def now_s(self) -> float:
        return time.monotonic() * HASTE

    def decide(self, count: int) -> None:
        for _ in range(count):
            ts_ms = START_MS + self._bars * HOUR_MS
            self._bars += 1
            records = [
                record_of(bound=BOUND, row=row_of(symbol), ts_ms=ts_ms) for symbol in SYMBOLS
            ]
            self.shadowing.offer(BOUND, [written_of(record) for record in records])

    async def seconds(self, count: float) -> None:
        await asyncio.sleep(count / HASTE)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(10.0):
            while len(self.asked.asked) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    here = Desk(folder)
    try:
        yield here
    finally:
        await here.shadowing.close(10.0)
        await here.ledger.close()


async def test_nobody_is_asked_while_decisions_are_under_way(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        here.decide(3)
        await here.seconds(QUIET_S_MAX / 2)
        during = len(here.asked.asked)
        here.is_busy = False
        await here.until_asked(3)

    assert during == 0


async def test_a_process_that_never_rests_asks_bars_in_turns(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        counts = here.shadowing.counts
        begun_s = here.now_s()
        here.decide(BARS_PER_TURN + 1)
        await here.until_asked(BARS_PER_TURN)
        first_s, written_first = here.now_s() - begun_s, counts.written
        await here.until_asked(BARS_PER_TURN + 1)
        second_s, written_second = here.now_s() - begun_s, counts.written

    assert first_s >= QUIET_S_MAX
    assert second_s >= 2 * QUIET_S_MAX
    # What one turn said is written when the next begins, in as many commits as it takes.
    assert BARS_PER_TURN * len(SYMBOLS) > ROWS_PER_COMMIT
    assert (written_first, written_second) == (0, BARS_PER_TURN * len(SYMBOLS))
    assert counts.written == (BARS_PER_TURN + 1) * len(SYMBOLS)
