"""Holds the client's stream to the promises of `decide`: an answer in time, whoever is there."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, plan_of, row_of
from tests.fakes import PolicyHost, RawServer, hangs
from tests.integration.ledger_audit import assert_chains_whole, read_records

from detent.contracts.binding import PROXY_BINDING_HASH
from detent.contracts.decision import Decision
from detent.contracts.errors import BindingMismatch, InvalidField, Overloaded
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import ErrorReason, Reason
from detent.servers.policy import streaming
from detent_cli.stack import free_port
from detent_client import (
    ClientOptions,
    DecisionStream,
    DetentClient,
    OpenedPlan,
    StreamedDecisions,
    decision_stream,
)

OPENED = OpenedPlan(plan=plan_of("plan"), binding_hash=PROXY_BINDING_HASH)


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost, host_client: DetentClient) -> OpenedPlan:
    return await host_client.open_plan(plan_of("plan"), host.binding)


@pytest.fixture(name="stream")
async def _stream(host_client: DetentClient) -> AsyncIterator[DecisionStream]:
    async with host_client.stream_decisions() as stream:
        yield stream


async def ask(stream: DecisionStream, opened: OpenedPlan, bar: int, **options: Any) -> int:
    options = {"rows": (row_of(opened.plan.symbols[0]),)} | options
    return await stream.ask(opened, ts_ms=START_MS + bar * HOUR_MS, **options)


def decision_of(answer: StreamedDecisions) -> Decision:
    assert answer.error is None, answer.error
    (result,) = answer.results
    assert result.decision is not None, result.refusal
    return result.decision


async def test_bars_are_answered_in_order_and_as_unary_calls_answer_them(
    host: PolicyHost, host_client: DetentClient, stream: DecisionStream, opened: OpenedPlan
) -> None:
    numbers = [await ask(stream, opened, bar) for bar in range(100)]
    stream.end()
    answers = [answer async for answer in stream]

    assert [answer.item_id for answer in answers] == numbers
    assert [answer.ts_ms for answer in answers] == [START_MS + bar * HOUR_MS for bar in range(100)]
    again = await host_client.decide(opened, ts_ms=START_MS + 99 * HOUR_MS, row=row_of())
    assert again == decision_of(answers[99])
    records = read_records(host.ledger_file)
    assert_chains_whole(records)
    assert [row["record_hash"] for row in records] == [decision_of(a).record_hash for a in answers]
    with pytest.raises(InvalidField):
        await ask(stream, opened, 100)


async def test_who_asks_too_much_waits_and_is_never_refused(
    host: PolicyHost, host_client: DetentClient, stream: DecisionStream, opened: OpenedPlan
) -> None:
    other = await host_client.open_plan(plan_of("other", (OTHER_SYMBOL,)), host.binding)
    most = 0

    async def behavior(query: Any, call: Any) -> Any:
        nonlocal most
        most = max(most, host.handler._streams.items)
        return await host.inference.answers(query, call)

    host.inference.behavior = behavior
    for bar in range(100):
        await ask(stream, opened, bar)
        await ask(stream, other, bar)
    stream.end()
    answers = [answer async for answer in stream]

    assert all(decision_of(answer).record_hash for answer in answers)
    assert len(answers) == 200
    assert 2 <= most <= decision_stream.UNANSWERED_MAX < streaming.ITEMS_MAX


async def test_answers_that_nobody_takes_are_bounded(
    stream: DecisionStream, opened: OpenedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_stream, "UNTAKEN_MAX", 3)
    for bar in range(3):
        await ask(stream, opened, bar)
    while stream._answers.qsize() < 3:  # noqa: ASYNC110  There is nothing to be told by.
        await asyncio.sleep(0.01)

    with pytest.raises(Overloaded):
        await ask(stream, opened, 3)
    await anext(stream)
    await ask(stream, opened, 3)


async def test_a_question_at_fault_is_an_error_of_its_own(
    stream: DecisionStream, opened: OpenedPlan
) -> None:
    wrong = OpenedPlan(plan=opened.plan, binding_hash="0" * 64)
    await ask(stream, wrong, 0)
    await ask(stream, opened, 0, rows=(row_of(OTHER_SYMBOL),))
    await ask(stream, opened, 0)
    mismatched, refused, decided = [await anext(stream) for _ in range(3)]

    assert isinstance(mismatched.error, BindingMismatch)
    assert refused.results[0].refusal is not None
    assert refused.results[0].refusal.reason is ErrorReason.SYMBOL_NOT_IN_PLAN
    assert decision_of(decided).record_hash


async def test_a_late_service_is_answered_for_and_told_later(
    host: PolicyHost, host_client: DetentClient, stream: DecisionStream, opened: OpenedPlan
) -> None:
    recall = host.plans.recall
    going = asyncio.Event()

    async def stuck(*asked: Any, **named: Any) -> None:
        await going.wait()
        await recall(*asked, **named)

    host.plans.recall = stuck  # type: ignore[method-assign]
    begun_s = time.monotonic()
    held = row_of(weight_ppm=100_000, trigger_state=TriggerState.EXIT_ONLY)
    await ask(stream, opened, 0, rows=(held,), deadline_s=0.2)
    local = decision_of(await anext(stream))
    took_s = time.monotonic() - begun_s
    going.set()
    await host.handler.settle()
    await ask(stream, opened, 1)
    after = decision_of(await anext(stream))

    assert 0.19 <= took_s < 1.0
    assert local.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert local.target_weight_final_ppm == 70_000
    assert after.record_hash
    async with asyncio.timeout(5):
        while host_client.unreported_count:  # noqa: ASYNC110  There is nothing to be told by.
            await asyncio.sleep(0.01)


async def test_without_any_service_every_item_is_answered_locally_and_soon(tmp_path: Path) -> None:
    options = ClientOptions(
        journal_file=tmp_path / "journal.jsonl",
        policy_target=f"127.0.0.1:{free_port()}",
        deadline_s=0.5,
        attempts_max=2,
        backoff_s=0.01,
    )
    async with DetentClient(options) as client, client.stream_decisions() as stream:
        for bar in range(12):
            begun_s = time.monotonic()
            await ask(stream, OPENED, bar, rows=(row_of(weight_ppm=50_000),))
            decision = decision_of(await anext(stream))
            assert time.monotonic() - begun_s < 1.0
            assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE
            assert decision.target_weight_final_ppm == 50_000
        assert client.unreported_count == 12
        assert client._policy_breaker.is_open


async def test_a_service_that_has_no_streams_is_answered_for(tmp_path: Path) -> None:
    async with RawServer("PolicyService", {}) as server:
        options = ClientOptions(
            journal_file=tmp_path / "journal.jsonl", policy_target=server.target, deadline_s=2.0
        )
        async with DetentClient(options) as client, client.stream_decisions() as stream:
            begun_s = time.monotonic()
            await ask(stream, OPENED, 0)
            decision = decision_of(await anext(stream))

    assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert time.monotonic() - begun_s < 1.5


async def test_who_leaves_a_stream_leaves_nothing_running(
    host: PolicyHost, host_client: DetentClient, opened: OpenedPlan
) -> None:
    host.inference.behavior = hangs
    before = asyncio.all_tasks()
    async with host_client.stream_decisions() as stream:
        for bar in range(5):
            await ask(stream, opened, bar, deadline_s=1.0)
        while host.handler._streams.items < 5:  # noqa: ASYNC110  Nothing tells.
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while host.handler._streams.items:  # noqa: ASYNC110  Nothing tells.
            await asyncio.sleep(0.01)
    host.inference.behavior = host.inference.answers
    decided = await host_client.decide(opened, ts_ms=START_MS + 9 * HOUR_MS, row=row_of())

    assert decided.record_hash
    assert not {task for task in asyncio.all_tasks() - before if "Stream" in repr(task.get_coro())}
