"""Counts what leaves on a full disk under a model that is sure: exits, and nothing that adds."""

import random
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, row_of
from tests.fakes import PolicyHost
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.integration.test_exit_reserve import fill, small_disk

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.decision import Decision, DecisionRow
from detent.contracts.plan import TriggerState
from detent_client import ClientOptions, DetentClient

SYMBOLS = (SYMBOL, OTHER_SYMBOL)
RESERVE_BYTES = 1024 * 1024
STATES = tuple(TriggerState)


def row_at(chance: random.Random, symbol: str) -> DecisionRow:
    """Hold anything on the side that the trigger allows, or nothing."""
    state = chance.choice(STATES)
    side = {TriggerState.LONG_ALLOWED: 1, TriggerState.SHORT_ALLOWED: -1}.get(state, 1)
    held_ppm = side * chance.choice([0, 50_000, 200_000])
    return row_of(symbol, trigger_state=state, weight_ppm=held_ppm)


def adds(row: DecisionRow, decision: Decision) -> bool:
    """Say whether a decision asks for more than is held, or for the other side."""
    held_ppm, final_ppm = row.position.current_weight_ppm, decision.target_weight_final_ppm
    return abs(final_ppm) > abs(held_ppm) or final_ppm * held_ppm < 0


async def assert_only_exits_leave(folder: Path, binding: ModelBinding, *, bars: int) -> None:
    """Decide so many bars on a disk without a byte left, at last without a reserve either."""
    chance = random.Random(bars)
    released: dict[tuple[str, int], Decision] = {}
    exits = local = 0
    with small_disk(folder) as disk:
        ledger_file = disk / "ledger.sqlite"
        async with PolicyHost(ledger_file, binding, reserve_bytes=RESERVE_BYTES) as host:
            options = ClientOptions(
                journal_file=folder / "journal.jsonl",
                policy_target=host.target,
                deadline_s=5.0,
                attempts_max=1,
                breaker_failures=1_000_000,
            )
            async with DetentClient(options) as client:
                opened = await client.open_plan(plan_of("plan", SYMBOLS), binding)
                host.inference.p_hat_bps = 10_000
                # The control: with space, the same model adds.
                first = tuple(row_of(symbol) for symbol in SYMBOLS)
                for result in await client.decide_many(opened, ts_ms=START_MS, rows=first):
                    assert result.decision is not None
                    assert adds(row_of(result.symbol), result.decision)
                    released[result.symbol, START_MS] = result.decision
                fill(disk)
                for bar in range(1, bars + 1):
                    host.inference.p_hat_bps = chance.choice([0, 10_000])
                    rows = tuple(row_at(chance, symbol) for symbol in SYMBOLS)
                    ts_ms = START_MS + bar * HOUR_MS
                    results = await client.decide_many(opened, ts_ms=ts_ms, rows=rows)
                    for row, result in zip(rows, results, strict=True):
                        decision = result.decision
                        assert decision is not None, result.refusal
                        released[row.symbol, ts_ms] = decision
                        local += not decision.record_hash
                        if row.trigger_state is TriggerState.INACTIVE:
                            assert decision.target_weight_final_ppm == 0
                            exits += row.position.current_weight_ppm != 0
                        if not decision.record_hash:
                            assert not adds(row, decision)
                            assert decision.signal_source is SignalSource.PROXY
        records = read_records(ledger_file)
    assert_chains_whole(records)
    kept = {(row["symbol"], row["ts_ms"]): row["record_hash"] for row in records}
    # Whatever left as the service's own has its record: what the model moved, above all.
    answered = {key: one.record_hash for key, one in released.items() if one.record_hash}
    assert answered == kept
    assert exits > bars // 10
    assert local > bars // 2, "the disk was never full"


async def test_on_a_full_disk_only_exits_leave(tmp_path: Path, binding: ModelBinding) -> None:
    await assert_only_exits_leave(tmp_path, binding, bars=60)


@pytest.mark.long
async def test_on_a_full_disk_only_exits_leave_in_two_thousand_bars(
    tmp_path: Path, binding: ModelBinding
) -> None:
    await assert_only_exits_leave(tmp_path, binding, bars=2_000)
