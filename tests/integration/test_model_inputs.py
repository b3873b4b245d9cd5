"""Proves that what a model was given is kept under the hash that its record cites."""

import asyncio
import sqlite3
from contextlib import closing

from tests.builders import SYMBOL, plan_of, row_of
from tests.conftest import Artifacts
from tests.strategist import Bars

from detent.contracts.binding import SignalSource
from detent.contracts.canonical import parse_json, sha256_hex
from detent_cli.stack import Stack
from detent_client import DetentClient


async def test_an_input_is_kept_under_the_hash_of_its_record(
    stack: Stack, client: DetentClient, artifacts: Artifacts, bars: Bars
) -> None:
    opened = await client.open_plan(plan_of("inputs-kept"), artifacts.stable_binding)
    last = bars[SYMBOL][-1]
    row = row_of(SYMBOL, close=last.close)
    decision = await client.decide(opened, ts_ms=last.ts_ms, row=row)
    record = (await client.get_decision(decision.record_hash)).record
    await client.close_plan(opened)

    assert decision.signal_source is SignalSource.MODEL
    cited = record.signal.features_hash
    async with asyncio.timeout(10):
        # It is written when the answer has left.
        while not (rows := kept(stack, str(cited))):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    ((canonical, model_input),) = rows
    assert sha256_hex(canonical.encode()) == cited
    assert parse_json("input", canonical.encode())["input_sha256"] == sha256_hex(model_input)


def kept(stack: Stack, features_hash: str) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(f"file:{stack.ledger_file}?mode=ro", uri=True)) as db:
        sql = "SELECT canonical, model_input FROM model_inputs WHERE features_hash = ?"
        return db.execute(sql, (features_hash,)).fetchall()
