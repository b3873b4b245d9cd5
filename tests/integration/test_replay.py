"""Proves that the same stream gives the same bytes: again, in other batches, over a restart."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    emergency,
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost, raises
from tests.integration.ledger_audit import assert_chains_whole, read_records

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.errors import DecisionNotFound, ServiceUnavailable
from detent.contracts.plan import TriggerState
from detent_client import ClientOptions, DetentClient

BARS = 90
SYMBOLS = (SYMBOL, OTHER_SYMBOL)
RESTARTS = (13, 14, 60, 77)
# From this bar on the market was closed for forty days: longer than a proxy may look back.
GAP_AT = 75


def close_ms(index: int) -> int:
    """Give the close time of a bar of the stream."""
    return START_MS + (index + (40 * 24 if index >= GAP_AT else 0)) * HOUR_MS


def rows_of(index: int) -> list[DecisionRow]:
    """Give the rows of one bar: every state, some exits, some missing volatilities."""
    chance = random.Random(index)
    return [
        row_of(
            symbol,
            close=str(100 + chance.randrange(1_000) / 100),
            trigger_state=chance.choice(list(TriggerState)),
            weight_ppm=chance.choice([0, 120_000, -80_000]),
            vol_hat_ppm=chance.choice([None, 150_000, 400_000]),
            exit_intent=emergency() if chance.random() < 0.1 else None,
        )
        for symbol in SYMBOLS
    ]


def behave(host: PolicyHost, index: int) -> None:
    """Let the fakes do on this bar what they do on it in every run."""
    chance = random.Random(1_000 + index)
    host.inference.p_hat_bps = chance.randrange(10_001)
    fails = chance.random() < 0.2
    host.inference.behavior = (
        raises(ServiceUnavailable("gone")) if fails else host.inference.answers
    )


async def streamed(
    folder: Path,
    binding: ModelBinding,
    *,
    restarts: Sequence[int] = (),
    alone: bool = False,
    asked_twice: bool = False,
) -> list[bytes]:
    """Stream all bars under two plans and give the records' bytes, chain by chain."""
    plans = (plan_of("modelled", SYMBOLS), plan_of("proxied", SYMBOLS))
    first = 0
    for last in (*restarts, BARS):
        host = PolicyHost(folder / "ledger.sqlite", binding)
        async with host, client_at(host, folder) as client:
            opened = [
                await client.open_plan(plans[0], binding),
                await client.open_plan(plans[1], PROXY_BINDING),
            ]
            for index in range(first, last):
                behave(host, index)
                for plan in opened:
                    # Where some runs restart, all of them have an emergency on the last bar.
                    if index in RESTARTS:
                        await client.decide(
                            plan,
                            ts_ms=close_ms(index - 1),
                            row=row_of(SYMBOL, close="900", exit_intent=emergency()),
                            kind=DecisionKind.EMERGENCY,
                        )
                    rows = rows_of(index)
                    batches = [[row] for row in reversed(rows)] if alone else [rows]
                    for batch in batches * (1 + asked_twice):
                        results = await client.decide_many(plan, ts_ms=close_ms(index), rows=batch)
                        assert all(result.decision for result in results)
        first = last
    records = read_records(folder / "ledger.sqlite")
    assert_chains_whole(records)
    records.sort(key=lambda row: (row["plan_id"], row["symbol"], row["sequence"]))
    return [row["canonical"].encode() for row in records]


def client_at(host: PolicyHost, folder: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=folder / "journal.jsonl", policy_target=host.target, deadline_s=10.0
        )
    )


@pytest.mark.proves("R51")
async def test_the_same_stream_gives_the_same_bytes(tmp_path: Path, binding: ModelBinding) -> None:
    first = await streamed(tmp_path / "first", binding)

    assert len(first) == 2 * (2 * BARS + len(RESTARTS))
    assert await streamed(tmp_path / "again", binding) == first
    assert await streamed(tmp_path / "alone", binding, alone=True) == first
    assert await streamed(tmp_path / "restarted", binding, restarts=RESTARTS) == first
    assert await streamed(tmp_path / "twice", binding, asked_twice=True) == first


@pytest.mark.proves("R51", "R212")
async def test_every_record_replays_to_its_own_bytes_over_the_wire(
    tmp_path: Path, binding: ModelBinding
) -> None:
    await streamed(tmp_path / "run", binding)
    records = read_records(tmp_path / "run" / "ledger.sqlite")

    host = PolicyHost(tmp_path / "run" / "ledger.sqlite", binding)
    async with host, client_at(host, tmp_path / "run") as client:
        for row in records:
            answer = await client.replay_decision(row["record_hash"])

            assert answer.recorded_json == answer.replayed_json == row["canonical"]
            assert answer.replayed_hash == answer.record_hash == row["record_hash"]
        with pytest.raises(DecisionNotFound):
            await client.replay_decision("0" * 64)


async def test_an_emergency_between_bars_does_not_change_what_the_bars_compute(
    tmp_path: Path, binding: ModelBinding
) -> None:
    """The proxy counts bars, not records: an emergency adds no close."""
    host = PolicyHost(tmp_path / "ledger.sqlite", binding)
    async with host, client_at(host, tmp_path) as client:
        calm = await client.open_plan(plan_of("calm"), PROXY_BINDING)
        busy = await client.open_plan(plan_of("busy"), PROXY_BINDING)
        for index in range(75):
            ts_ms = START_MS + index * HOUR_MS
            row = row_of(close=str(100 + index * index % 19))
            one = await client.decide(calm, ts_ms=ts_ms, row=row)
            other = await client.decide(busy, ts_ms=ts_ms, row=row)
            await client.decide(
                busy,
                ts_ms=ts_ms,
                row=row_of(close="500", exit_intent=emergency()),
                kind=DecisionKind.EMERGENCY,
            )
            assert one.p_hat_bps == other.p_hat_bps
    assert one.p_hat_bps != 5_000
