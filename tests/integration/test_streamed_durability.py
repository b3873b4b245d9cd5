"""Proves that what a stream answered is in the ledger once, however often its process ends."""

import asyncio
import random
import signal
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.integration.test_ledger_durability import Policy, policy_process

from detent.contracts.binding import PROXY_BINDING
from detent_client import ClientOptions, DecisionStream, DetentClient, OpenedPlan

PLANS = 6
PATIENCE_S = 60.0
Answered = dict[tuple[str, int], str]


def client_of(target: str, folder: Path) -> DetentClient:
    """Give a client that waits for a process to come back rather than answer by itself."""
    options = ClientOptions(
        journal_file=folder / "journal.jsonl",
        policy_target=target,
        deadline_s=20.0,
        attempts_max=1_000,
        backoff_s=0.0005,
        breaker_failures=1_000_000,
    )
    return DetentClient(options)


async def ask_on(stream: DecisionStream, opened: list[OpenedPlan], stop: asyncio.Event) -> None:
    """Ask bar after bar of every plan, as many at once as the stream lets us."""
    bar = 0
    while not stop.is_set():
        for plan in opened:
            row = row_of(close=str(100 + bar % 13))
            await stream.ask(plan, ts_ms=START_MS + bar * HOUR_MS, rows=(row,))
        bar += 1
    stream.end()


async def take(stream: DecisionStream, answered: Answered, moved: asyncio.Event) -> None:
    last: dict[str, int] = {}
    async for answer in stream:
        assert answer.error is None, answer.error
        decision = answer.results[0].decision
        assert decision is not None, answer.results
        assert decision.record_hash, "the client had to answer by itself"
        # In the order of the bars, whatever was sent again in between.
        assert answer.ts_ms == last.get(answer.plan_id, START_MS - HOUR_MS) + HOUR_MS
        last[answer.plan_id] = answer.ts_ms
        answered[answer.plan_id, answer.ts_ms] = decision.record_hash
        moved.set()


async def end_it(policy: Policy, moved: asyncio.Event, *, times: int) -> None:
    """End policy at random moments: killed, or asked to end, whichever comes."""
    chance = random.Random(times)
    for _ in range(times):
        moved.clear()
        async with asyncio.timeout(PATIENCE_S):
            while not moved.is_set():
                policy.revive()
                await asyncio.sleep(0.005)
        await asyncio.sleep(chance.uniform(0.0, 0.08))
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        await asyncio.to_thread(policy.kill, number)
        policy.start()


async def assert_nothing_lost(folder: Path, *, times: int) -> None:
    answered: Answered = {}
    moved, stop = asyncio.Event(), asyncio.Event()
    with policy_process(folder, "full") as policy:
        async with client_of(policy.target, folder) as client, client.stream_decisions() as stream:
            opened = [
                await client.open_plan(plan_of(f"plan-{number}"), PROXY_BINDING)
                for number in range(PLANS)
            ]
            async with asyncio.TaskGroup() as group:
                group.create_task(ask_on(stream, opened, stop))
                group.create_task(take(stream, answered, moved))
                await end_it(policy, moved, times=times)
                stop.set()

    records = read_records(folder / "ledger.sqlite")
    assert_chains_whole(records)
    kept = {(row["plan_id"], row["ts_ms"]): row["record_hash"] for row in records}
    assert kept == answered
    assert len(answered) >= times


async def test_a_stream_outlives_its_process_and_loses_nothing(tmp_path: Path) -> None:
    await assert_nothing_lost(tmp_path, times=4)


@pytest.mark.long
async def test_a_stream_outlives_its_process_two_hundred_times(tmp_path: Path) -> None:
    await assert_nothing_lost(tmp_path, times=200)
