"""Proves the shadow path: asked after the answer, within its own bounds, on the record, unused."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, emergency, plan_of, row_of
from tests.conftest import Artifacts
from tests.fakes import hangs, raises, signals_of
from tests.strategist import ledger_rows
from tests.test_enablement_guards import SHADOW, Running, running

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_shadows import SqliteShadows
from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import DataConflict, InternalError
from detent.contracts.json_codec import from_json
from detent.contracts.reasons import Reason
from detent.contracts.shadow import ShadowSignal
from detent.rpc.call import Call
from detent.servers.policy.shadowing import ShadowCounts

BARS = 12


@contextlib.asynccontextmanager
async def shadowed(
    artifacts: Artifacts, folder: Path, **settings: Any
) -> AsyncIterator[tuple[Running, ModelBinding]]:
    binding = artifacts.stable_binding
    given = SHADOW | settings
    async with running(artifacts.stable.parent, folder, binding, **given) as one:
        yield one, binding


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def counts_of(one: Running) -> ShadowCounts:
    assert one.policy.shadowing is not None
    return one.policy.shadowing.counts


def shadows_in(folder: Path) -> list[dict[str, Any]]:
    rows = ledger_rows(folder / "ledger.sqlite", "SELECT * FROM shadow_signals ORDER BY id")
    return [row | json.loads(row["canonical"]) for row in rows]


def stream_in(folder: Path) -> list[dict[str, Any]]:
    """Give all that a decision left, byte for byte."""
    return ledger_rows(folder / "ledger.sqlite", "SELECT * FROM decision_records ORDER BY id")


@pytest.mark.proves("R85", "R115")
async def test_every_bar_gets_the_unused_answer_beside_its_record(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with shadowed(artifacts, tmp_path) as (one, binding):
        decisions = await one.decisions("plan", binding)
    rows = shadows_in(tmp_path)

    assert {decision.fallback_reason for decision in decisions} == {Reason.ACTIVE_DISABLED}
    assert [row["record_hash"] for row in rows] == [one.record_hash for one in decisions]
    assert [row["used_p_hat_bps"] for row in rows] == [one.p_hat_bps for one in decisions]
    assert {row["used_source"] for row in rows} == {SignalSource.PROXY.value}
    assert {row["binding_hash"] for row in rows} == {binding.binding_hash}
    assert {(row["p_hat_bps"], row["reason"]) for row in rows} == {(9_000, None)}
    assert all(row["latency_us"] > 0 for row in rows)
    assert counts_of(one) == ShadowCounts(asked=BARS, answered=BARS, written=BARS)


async def test_nobody_is_asked_before_the_answer_has_left(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with shadowed(artifacts, tmp_path) as (one, binding):
        opened = await one.client.open_plan(plan_of("plan"), binding)
        await one.decide(opened, 0)
        before = len(one.inference.asked)

    assert (before, len(one.inference.asked)) == (0, 1)


@pytest.mark.proves("R84", "R85")
@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        pytest.param(raises(InternalError("broken")), Reason.INFERENCE_ERROR, id="broken"),
        pytest.param(raises(ZeroDivisionError()), Reason.INFERENCE_ERROR, id="a defect"),
        pytest.param(hangs, Reason.INFERENCE_DEADLINE, id="hanging"),
    ],
)
async def test_a_shadow_in_trouble_costs_rows_of_its_own_and_no_byte_of_a_decision(
    artifacts: Artifacts, tmp_path: Path, behavior: Any, reason: Reason
) -> None:
    for name in ("sound", "trouble"):
        limits = {"shadow_deadline_ms": 20}
        async with shadowed(artifacts, tmp_path / name, **limits) as (one, binding):
            if name == "trouble":
                one.inference.behavior = behavior
            await one.decisions("plan", binding)

    assert stream_in(tmp_path / "sound") == stream_in(tmp_path / "trouble")
    rows = shadows_in(tmp_path / "trouble")
    assert {(row["p_hat_bps"], row["reason"]) for row in rows} == {(None, reason.value)}
    assert len(rows) == BARS


async def test_what_the_queue_does_not_hold_is_dropped_and_counted(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    limits = {"shadow_rows_max": 3, "shadow_calls_max": 1, "shadow_deadline_ms": 60_000}
    async with shadowed(artifacts, tmp_path, drain_grace_s=0.0, **limits) as (one, binding):
        one.inference.behavior = hangs
        opened = await one.client.open_plan(plan_of("plan"), binding)
        await one.decide(opened, 0)
        await until(lambda: one.inference.asked)
        # One is under way; three wait; what comes now finds no place.
        for bar in range(1, 9):
            await one.decide(opened, bar)
        assert counts_of(one).dropped == 5

    assert counts_of(one).dropped == 8
    assert shadows_in(tmp_path) == []
    assert len(stream_in(tmp_path)) == 9


async def test_a_queue_of_nothing_asks_nobody(artifacts: Artifacts, tmp_path: Path) -> None:
    async with shadowed(artifacts, tmp_path, shadow_rows_max=0) as (one, binding):
        await one.decisions("plan", binding)

    assert one.inference.asked == []
    assert counts_of(one) == ShadowCounts(dropped=BARS)


async def test_a_process_that_ends_asks_about_what_waits(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with shadowed(artifacts, tmp_path, drain_grace_s=10.0) as (one, binding):

        async def slow(query: InferSignalsRequest, _call: Call) -> InferSignalsResponse:
            await asyncio.sleep(0.05)
            return signals_of(query, binding, p_hat_bps=4_000)

        one.inference.behavior = slow
        await one.decisions("plan", binding)
        written = len(shadows_in(tmp_path))

    assert written < BARS
    assert len(shadows_in(tmp_path)) == BARS


async def test_a_process_that_ends_waits_no_longer_than_its_grace(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    started_s = 0.0
    limits = {"shadow_deadline_ms": 60_000, "drain_grace_s": 0.2}
    async with shadowed(artifacts, tmp_path, **limits) as (one, binding):
        one.inference.behavior = hangs
        await one.decisions("plan", binding)
        started_s = time.monotonic()

    assert time.monotonic() - started_s < 5.0
    # Two were under way when it ended.
    assert counts_of(one).dropped == BARS - 2


async def test_a_kill_switch_holds_for_a_shadow(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shadowed(artifacts, tmp_path) as (one, binding):
        opened = await one.client.open_plan(plan_of("plan"), binding)
        monkeypatch.setenv("ML_KILL_SWITCH", "1")
        await one.decide(opened, 0)
        await until(lambda: counts_of(one).asked)
        monkeypatch.delenv("ML_KILL_SWITCH")

    (row,) = shadows_in(tmp_path)
    assert (row["reason"], row["p_hat_bps"]) == (Reason.KILL_SWITCH_ENV.value, None)
    assert one.inference.asked == []


async def test_neither_a_proxy_plan_nor_an_emergency_nor_a_repeated_bar_has_a_shadow(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with shadowed(artifacts, tmp_path) as (one, binding):
        await one.decisions("proxy", PROXY_BINDING)
        opened = await one.client.open_plan(plan_of("plan"), binding)
        row = row_of(exit_intent=emergency())
        for _ in range(2):
            await one.client.decide(opened, ts_ms=START_MS, row=row, kind=DecisionKind.EMERGENCY)
        for _ in range(2):
            await one.decide(opened, 1)

    (kept,) = shadows_in(tmp_path)
    assert (kept["plan_id"], kept["ts_ms"]) == ("plan", START_MS + HOUR_MS)


async def test_a_second_answer_under_a_key_must_be_the_first(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with shadowed(artifacts, tmp_path) as (one, binding):
        await one.decisions("plan", binding)
    held = [
        from_json(ShadowSignal, parse_json("shadow", row["canonical"].encode()))
        for row in shadows_in(tmp_path)
    ]
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    store = SqliteShadows(ledger.file)
    other = structs.replace(held[0], p_hat_bps=1, p_hat_raw_bps=1)
    again = await store.add_shadows(held)
    with pytest.raises(DataConflict):
        await store.add_shadows([other])
    await ledger.close()

    assert again == 0
    assert len(shadows_in(tmp_path)) == BARS


async def test_shadows_share_no_commit_with_decisions(artifacts: Artifacts, tmp_path: Path) -> None:
    statements: list[str] = []
    async with shadowed(artifacts, tmp_path) as (one, binding):
        await one.policy.ledger.file.use(lambda db: db.set_trace_callback(statements.append))
        await one.decisions("plan", binding)
    commits = " ".join(statements).split("BEGIN IMMEDIATE")
    both = [
        commit
        for commit in commits
        if "INTO decision_records" in commit and "INTO shadow_signals" in commit
    ]

    assert sum("INTO shadow_signals" in commit for commit in commits) > 0
    assert both == []
