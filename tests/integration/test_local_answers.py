"""Proves that what a client answered by itself reaches the ledger, once, whoever crashes."""

import asyncio
from pathlib import Path

import pytest
from tests.conftest import Artifacts, client_of
from tests.strategist import Strategist, feed, ledger_rows, recorded

from detent.contracts.binding import SignalSource
from detent.contracts.plan import OrderStyle, TriggerState
from detent.contracts.reasons import Reason
from detent_cli.stack import Stack


@pytest.mark.proves("R102", "R318")
async def test_bars_without_any_service_are_held_journalled_and_reported_once(
    stack: Stack, artifacts: Artifacts, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    async with client_of(stack, journal) as client:
        await feed(client, artifacts.bars)
        strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
        before = await strategist.decide(300)
        strategist.weight_ppm = 120_000
        stack.kill("policy")
        held = [await strategist.decide(index, deadline_s=0.5) for index in range(301, 304)]
        out = await strategist.decide(304, TriggerState.INACTIVE, deadline_s=0.5)
        assert client.unreported_count == 4
    # The client crashes too, and its last words survive; so does a copy of them.
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(journal.read_bytes())
    stack.start("policy")

    async with client_of(stack, journal) as client:
        assert client.unreported_count == 4
        again = Strategist(client, strategist.bars, strategist.opened)
        after = await again.decide(305)
        async with asyncio.timeout(10):
            await client.report_local_answers()
        assert client.unreported_count == 0
    async with client_of(stack, copy) as client:
        # Reported before it was forgotten: the service has them already, and says so.
        assert await client.report_local_answers() == 4

    assert before.signal_source is after.signal_source is SignalSource.MODEL
    assert {decision.fallback_reason for decision in (*held, out)} == {Reason.CLIENT_NO_SERVICE}
    assert [decision.target_weight_final_ppm for decision in held] == [120_000] * 3
    assert (out.target_weight_final_ppm, out.order_style) == (0, OrderStyle.TAKER)
    sql = "SELECT ts_ms FROM local_answers WHERE plan_id = ? ORDER BY ts_ms"
    reported = [row["ts_ms"] for row in ledger_rows(stack.ledger_file, sql, strategist.plan_id)]
    assert reported == [strategist.bars[index].ts_ms for index in range(301, 305)]
    decided = [row["ts_ms"] for row in recorded(stack.ledger_file, strategist.plan_id)]
    assert decided == [strategist.bars[index].ts_ms for index in (300, 305)]
