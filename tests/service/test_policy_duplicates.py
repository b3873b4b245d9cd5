"""Proves that a bar is decided once, however many ask, and whatever they ask."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.fakes import PolicyHost
from tests.integration.ledger_audit import assert_chains_whole, read_records

from detent.contracts.decision import Decision
from detent.contracts.errors import DecisionConflict
from detent_client import ClientOptions, DetentClient

CLIENTS = 8
BARS = 40


@pytest.mark.proves("R218")
async def test_many_clients_on_the_same_bars_get_one_record_each_and_one_answer(
    host: PolicyHost, tmp_path: Path
) -> None:
    """Half of them ask something else under the same keys: somebody is first, the rest agree."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client_of(host, tmp_path / f"{number}.jsonl"))
            for number in range(CLIENTS)
        ]
        opened = await clients[0].open_plan(plan_of("plan"), host.binding)
        answers: dict[int, set[str]] = {}
        outcomes: Counter[str] = Counter()

        async def ask(number: int, bar: int) -> None:
            row = row_of(close=("100", "101")[number % 2])
            try:
                decision: Decision = await clients[number].decide(
                    opened, ts_ms=START_MS + bar * HOUR_MS, row=row
                )
            except DecisionConflict as error:
                outcomes[f"conflict in {error.metadata['field']}"] += 1
            else:
                outcomes["answer"] += 1
                answers.setdefault(bar, set()).add(decision.record_hash)

        for bar in range(BARS):
            await asyncio.gather(*(ask(number, bar) for number in range(CLIENTS)))

    half = BARS * CLIENTS // 2
    assert outcomes == {"answer": half, "conflict in bar_close": half}
    assert all(len(hashes) == 1 for hashes in answers.values())
    records = read_records(host.ledger_file)
    assert_chains_whole(records)
    assert {row["record_hash"] for row in records} == {hash_ for (hash_,) in answers.values()}


def client_of(host: PolicyHost, journal_file: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(journal_file=journal_file, policy_target=host.target, deadline_s=10.0)
    )
