"""Proves that a book stands down with every replica that owns a part of it, or that one says so."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.integration.test_plan_owners import PLANS, REPLICAS, Fleet, until_serving

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.calls.policy import SetStandDownRequest
from detent.contracts.errors import ServiceUnavailable
from detent.contracts.plan import StandDown, StandDownSource
from detent.contracts.reasons import Reason
from detent_client import DetentClient, OpenedPlan

BOOK = "shared"
FOR_EVER = StandDown(until_ts_ms=9_999_999_999_999, reason="news", source=StandDownSource.OPS)
SET = SetStandDownRequest(book=BOOK, stand_down=FOR_EVER)
LIFT = SetStandDownRequest(book=BOOK, lift=StandDownSource.OPS)


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path, ledger_url: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack, ledger_url)


async def opened_all(client: DetentClient) -> list[OpenedPlan]:
    """Open plans of one book whose owners are all replicas."""
    plans = [plan_of(name, (f"S{at}",), book=BOOK) for at, name in enumerate(PLANS)]
    return [await client.open_plan(plan, PROXY_BINDING) for plan in plans]


async def standing(client: DetentClient, plans: list[OpenedPlan], *, bar: int) -> set[str]:
    """Decide a bar of every plan; give those whose record says that their book stands down."""
    ts_ms = START_MS + bar * HOUR_MS
    asked = [client.decide(one, ts_ms=ts_ms, row=row_of(one.plan.symbols[0])) for one in plans]
    decisions = await asyncio.gather(*asked)
    assert all(one.record_hash for one in decisions)
    return {
        plan.plan.plan_id
        for plan, decision in zip(plans, decisions, strict=True)
        if Reason.STAND_DOWN in decision.reasons
    }


@pytest.mark.proves("R220")
async def test_a_book_stands_down_with_every_replica(fleet: Fleet, tmp_path: Path) -> None:
    """Whichever replica is asked; and so it is lifted."""
    await until_serving(fleet, tmp_path / "journal.jsonl")
    async with fleet.client(1, tmp_path / "journal.jsonl") as client:
        plans = await opened_all(client)
        assert await standing(client, plans, bar=0) == set()
        done = await client.set_stand_down(SET)
        assert (done.changed_count, done.known_count, done.other_targets) == (1, 0, ())
        assert await standing(client, plans, bar=1) == set(PLANS)
        again = await client.set_stand_down(SET)
        assert (again.changed_count, again.known_count) == (0, 1)
        await client.set_stand_down(LIFT)
        assert await standing(client, plans, bar=2) == set()


async def test_who_is_not_told_is_named_and_told_when_asked_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    await until_serving(fleet, tmp_path / "journal.jsonl")
    async with fleet.client(0, tmp_path / "journal.jsonl") as client:
        plans = await opened_all(client)
        await asyncio.to_thread(fleet.policies[2].kill)
        with pytest.raises(ServiceUnavailable) as refused:
            await client.set_stand_down(SET)
        assert refused.value.metadata["untold_targets"] == fleet.targets[2]
        assert f"1 of {REPLICAS} replicas were not told" in refused.value.message

        fleet.policies[2].start()
        await until_serving(fleet, tmp_path / "other.jsonl")
        done = await client.set_stand_down(SET)
        assert (done.changed_count, done.known_count) == (1, 0), "one had not heard of it"
        assert await standing(client, plans, bar=1) == set(PLANS)
