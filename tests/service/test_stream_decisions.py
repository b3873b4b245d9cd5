"""Proves that an item of a stream is a unary call: the same records, refusals and deadlines."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.builders import OTHER_SYMBOL, SYMBOL, plan_of, row_of
from tests.fakes import PolicyHost, hangs
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.service.decision_streams import Talk, hash_of, item_of, talk_to
from tests.service.policy_calls import ask, decide, open_plan

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.decision_stream import StreamDecisionsResponse
from detent.contracts.errors import ServiceUnavailable
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import ErrorReason
from detent.contracts.wire import from_wire, to_wire
from detent.rpc.status import from_rpc_error
from detent.servers.policy import streaming

PLANS = (plan_of("plan"), plan_of("other", (OTHER_SYMBOL,)))
STATES = (TriggerState.LONG_ALLOWED, TriggerState.EXIT_ONLY, TriggerState.SHORT_ALLOWED)


@pytest.fixture(name="talk")
async def _talk(host: PolicyHost) -> AsyncIterator[Talk]:
    """Give a stream to a host on which two plans are open."""
    for plan in PLANS:
        await open_plan(host, plan, host.binding)
    async with talk_to(host.target) as talk:
        yield talk


def reason_of(answer: StreamDecisionsResponse) -> ErrorReason:
    assert answer.refusal is not None, answer.results
    return answer.refusal.reason


def rows_at(bar: int) -> Any:
    state = STATES[bar // 5 % 3]
    return (row_of(SYMBOL, close=str(100 + bar * bar % 17), trigger_state=state),)


async def eventually(holds: Any) -> None:
    async with asyncio.timeout(10.0):
        while not holds():  # noqa: ASYNC110  There is nothing to be told by.
            await asyncio.sleep(0.005)


async def test_a_stream_writes_the_records_that_unary_calls_write(
    host: PolicyHost, talk: Talk, tmp_path: Path, binding: ModelBinding
) -> None:
    bars = range(40)
    await talk.send(
        *(item_of(bar + 1, host.binding.binding_hash, bar=bar, rows=rows_at(bar)) for bar in bars)
    )
    answers = await talk.answers(len(bars))
    async with PolicyHost(tmp_path / "unary.sqlite", binding) as unary:
        await open_plan(unary, PLANS[0], binding)
        hashes = [
            (await decide(unary, *rows_at(bar), bar=bar, plan=PLANS[0])).record_hash for bar in bars
        ]
    await talk.end()

    assert [answer.item_id for answer in answers] == [bar + 1 for bar in bars]
    assert [hash_of(answer) for answer in answers] == hashes
    streamed, asked = read_records(host.ledger_file), read_records(tmp_path / "unary.sqlite")
    assert [row["canonical"] for row in streamed] == [row["canonical"] for row in asked]
    assert_chains_whole(streamed)


async def test_a_bar_has_one_record_whichever_way_it_is_asked(host: PolicyHost, talk: Talk) -> None:
    binding_hash = host.binding.binding_hash
    first = await decide(host, row_of(), plan=PLANS[0])
    await talk.send(item_of(1, binding_hash), item_of(2, binding_hash, bar=1))
    repeated, second = await talk.answers(2)
    again = await decide(host, row_of(), plan=PLANS[0], bar=1)
    await talk.send(item_of(3, binding_hash, rows=(row_of(close="99.5"),)))
    conflict = (await talk.read()).results[0].refusal

    assert hash_of(repeated) == first.record_hash
    assert again.record_hash == hash_of(second)
    assert conflict is not None
    assert conflict.reason is ErrorReason.DECISION_CONFLICT
    assert len(read_records(host.ledger_file)) == 2


async def test_plans_do_not_wait_for_each_other_and_each_keeps_its_order(
    host: PolicyHost, talk: Talk
) -> None:
    going = asyncio.Event()

    async def behavior(query: Any, call: Any) -> Any:
        if SYMBOL in (query.columns.symbols if query.columns else ()):
            await going.wait()
        return await host.inference.answers(query, call)

    host.inference.behavior = behavior
    binding_hash = host.binding.binding_hash
    await talk.send(
        *(item_of(1 + bar, binding_hash, bar=bar, timeout_ms=60_000) for bar in range(3))
    )
    other = (row_of(OTHER_SYMBOL),)
    await talk.send(
        *(item_of(11 + bar, binding_hash, plan_id="other", bar=bar, rows=other) for bar in range(3))
    )

    assert [answer.item_id for answer in await talk.answers(3)] == [11, 12, 13]
    going.set()
    assert [answer.item_id for answer in await talk.answers(3)] == [1, 2, 3]


async def test_a_malformed_item_is_refused_alone_and_noted(host: PolicyHost, talk: Talk) -> None:
    binding_hash = host.binding.binding_hash
    spoilt = to_wire(item_of(2, binding_hash))
    spoilt.rows[0].bar_close = "NaN"
    late = to_wire(item_of(3, binding_hash, bar=1))
    late.timeout_ms = 0
    await talk.send(
        item_of(1, binding_hash),
        spoilt.SerializeToString(),
        late.SerializeToString(),
        b"\xff\xff",
        item_of(4, "0" * 64, bar=1),
        item_of(5, binding_hash, plan_id="nobody"),
        item_of(6, binding_hash, bar=1),
    )
    answers = {answer.item_id: answer for answer in await talk.answers(7)}

    assert hash_of(answers[1])
    assert hash_of(answers[6])
    invalid = ErrorReason.INVALID_FIELD
    assert [reason_of(answers[number]) for number in (2, 3, 0)] == [invalid] * 3
    assert answers[2].refusal is not None
    assert answers[2].refusal.metadata["field"] == "rows[0].bar_close"
    assert answers[0].binding_hash == ""
    assert reason_of(answers[4]) is ErrorReason.BINDING_MISMATCH
    assert reason_of(answers[5]) is ErrorReason.PLAN_NOT_FOUND
    with contextlib.closing(sqlite3.connect(host.ledger_file)) as db:
        sql = "SELECT reason, plan_id FROM block_events WHERE method = ?"
        noted = db.execute(sql, ("PolicyService/StreamDecisions",)).fetchall()
    assert sorted(noted) == sorted(
        [(str(invalid), "plan")] * 2
        + [(str(invalid), "")]
        + [(str(ErrorReason.BINDING_MISMATCH), "plan")]
        + [(str(ErrorReason.PLAN_NOT_FOUND), "nobody")]
    )


async def test_an_item_has_a_deadline_of_its_own_and_is_recorded_all_the_same(
    host: PolicyHost, talk: Talk
) -> None:
    binding_hash = host.binding.binding_hash
    going = asyncio.Event()

    recall = host.plans.recall

    async def stuck(*asked: Any, **named: Any) -> None:
        await going.wait()
        await recall(*asked, **named)

    # The model's path keeps its own time; this does not.
    host.plans.recall = stuck  # type: ignore[method-assign]
    begun_s = time.monotonic()
    await talk.send(item_of(1, binding_hash, timeout_ms=100))
    late = await talk.read()
    took_s = time.monotonic() - begun_s
    going.set()
    await host.handler.settle()
    await talk.send(item_of(2, binding_hash), item_of(3, binding_hash, bar=1))
    recorded, following = await talk.answers(2)

    assert reason_of(late) is ErrorReason.DEADLINE_EXCEEDED
    assert took_s >= 0.09
    records = read_records(host.ledger_file)
    assert [row["record_hash"] for row in records] == [hash_of(recorded), hash_of(following)]
    with contextlib.closing(sqlite3.connect(host.ledger_file)) as db:
        assert db.execute("SELECT COUNT(*) FROM late_answers").fetchone() == (1,)


async def test_an_item_that_waited_too_long_is_not_begun(host: PolicyHost, talk: Talk) -> None:
    binding_hash = host.binding.binding_hash
    host.inference.behavior = hangs
    await talk.send(
        item_of(1, binding_hash, timeout_ms=300),
        item_of(2, binding_hash, bar=1, timeout_ms=1),
    )
    await talk.answers(1)

    assert reason_of(await talk.read()) is ErrorReason.DEADLINE_EXCEEDED
    await host.handler.settle()
    assert len(read_records(host.ledger_file)) == 1


async def test_one_item_too_many_is_refused_at_once(host: PolicyHost, talk: Talk) -> None:
    binding_hash = host.binding.binding_hash
    host.inference.behavior = hangs
    count = streaming.ITEMS_MAX
    await talk.send(
        *(item_of(1 + bar, binding_hash, bar=bar, timeout_ms=1_500) for bar in range(count + 20))
    )
    refusals = await talk.answers(20)

    assert {reason_of(answer) for answer in refusals} == {ErrorReason.OVERLOADED}
    assert [answer.item_id for answer in refusals] == [*range(count + 1, count + 21)]
    assert host.handler._streams.items == count
    host.inference.behavior = host.inference.answers
    answers = await talk.answers(count)
    assert [answer.item_id for answer in answers] == [*range(1, count + 1)]
    await eventually(lambda: (host.handler._streams.items, host.handler._streams.rows) == (0, 0))


@pytest.mark.parametrize("name", ["ITEMS_ALL_MAX", "ROWS_ALL_MAX"])
async def test_streams_together_hold_no_more_than_the_process_takes(
    host: PolicyHost, talk: Talk, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(streaming, name, 2)
    host.inference.behavior = hangs
    binding_hash = host.binding.binding_hash
    await talk.send(*(item_of(bar, binding_hash, bar=bar, timeout_ms=500) for bar in (1, 2)))
    await eventually(lambda: host.handler._streams.items == 2)
    async with talk_to(host.target) as second:
        other = (row_of(OTHER_SYMBOL),)
        await second.send(item_of(1, binding_hash, plan_id="other", rows=other))
        assert reason_of(await second.read()) is ErrorReason.OVERLOADED
        await talk.answers(2)
        host.inference.behavior = host.inference.answers
        await second.send(item_of(2, binding_hash, plan_id="other", rows=other))
        assert hash_of(await second.read())


async def test_who_leaves_leaves_nothing_behind_and_what_was_begun_is_recorded(
    host: PolicyHost, talk: Talk
) -> None:
    binding_hash = host.binding.binding_hash
    going = asyncio.Event()

    async def behavior(query: Any, call: Any) -> Any:
        await going.wait()
        return await host.inference.answers(query, call)

    host.inference.behavior = behavior
    await talk.send(*(item_of(1 + bar, binding_hash, bar=bar) for bar in range(5)))
    await eventually(lambda: host.inference.asked and host.handler._streams.items == 5)
    talk.call.cancel()
    await eventually(lambda: host.handler._streams.items == 0)
    going.set()
    await host.handler.settle()

    assert [row["ts_ms"] for row in read_records(host.ledger_file)] == [
        item_of(1, binding_hash).ts_ms
    ]
    assert host.handler._streams.rows == 0


async def test_who_does_not_read_is_not_read(host: PolicyHost, talk: Talk) -> None:
    """Who reads none of his refusals gets no more once the buffers between are full.

    How many that are is the kernel's choice, so it is not counted here: they come to an end.
    """
    binding_hash = host.binding.binding_hash
    going = asyncio.Event()

    async def behavior(query: Any, call: Any) -> Any:
        await going.wait()
        return await host.inference.answers(query, call)

    host.inference.behavior = behavior
    made = 0
    refused = streaming.refused

    def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return refused(*arguments)

    held = [
        item_of(1 + bar, binding_hash, bar=bar, timeout_ms=60_000)
        for bar in range(streaming.ITEMS_MAX)
    ]
    await talk.send(*held)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "refused", counted)
        flood = item_of(9_999, binding_hash, bar=9_999, tracestate="x" * 500)

        async def pour() -> None:
            while True:
                await talk.send(flood)

        pouring = asyncio.create_task(pour())
        before = 0
        async with asyncio.timeout(30.0):
            while made == 0 or made != before:
                before = made
                await asyncio.sleep(0.5)
        assert not pouring.done()
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    going.set()


async def test_a_process_that_ends_answers_what_it_has_begun(host: PolicyHost, talk: Talk) -> None:
    binding_hash = host.binding.binding_hash
    going = asyncio.Event()

    async def behavior(query: Any, call: Any) -> Any:
        await going.wait()
        return await host.inference.answers(query, call)

    host.inference.behavior = behavior
    await talk.send(item_of(1, binding_hash), item_of(2, binding_hash, bar=1))
    await eventually(lambda: host.handler._streams.items == 2)
    draining = asyncio.create_task(host._server.drain())
    await asyncio.sleep(0.05)
    begun_s = time.monotonic()
    going.set()
    answers = await talk.answers(2)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await talk.call.read()
    await draining

    assert [answer.item_id for answer in answers] == [1, 2]
    assert isinstance(from_rpc_error("PolicyService", ended.value), ServiceUnavailable)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    # Not to the end of the grace: the stream itself is what ended.
    assert time.monotonic() - begun_s < 0.9


async def _raised(call: Any) -> None:
    async for _ in call:
        raise AssertionError("an answer after the end")


async def test_too_many_streams_are_refused(
    host: PolicyHost, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk.send(item_of(1, host.binding.binding_hash))
    await talk.read()
    monkeypatch.setattr("detent.rpc.conversation.CONVERSATIONS_MAX", 1)
    async with talk_to(host.target) as second:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _raised(second.call)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await ask(host, row_of(), plan=PLANS[0], bar=1)).results[0].decision is not None


async def test_a_published_client_without_a_loop_is_answered(host: PolicyHost, talk: Talk) -> None:
    del talk
    binding_hash = host.binding.binding_hash

    def use() -> list[int]:
        with grpc.insecure_channel(host.target) as channel:
            items = [to_wire(item_of(1 + bar, binding_hash, bar=bar)) for bar in range(5)]
            call: Any = channel.stream_stream(
                "/detent.api.v1.PolicyService/StreamDecisions",
                request_serializer=type(items[0]).SerializeToString,
                response_deserializer=type(
                    to_wire(streaming.refused(item_of(1, binding_hash), ServiceUnavailable("")))
                ).FromString,
            )
            return [
                from_wire(StreamDecisionsResponse, answer).item_id
                for answer in call(iter(items), timeout=10)
            ]

    assert await asyncio.to_thread(use) == [1, 2, 3, 4, 5]


async def test_an_item_has_a_trace_of_its_own(tmp_path: Path, binding: ModelBinding) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("test")
    async with PolicyHost(tmp_path / "traced.sqlite", binding, tracer=tracer) as host:
        await open_plan(host, PLANS[0], binding)
        kept.clear()
        async with talk_to(host.target, metadata=(("traceparent", traceparent("c")),)) as talk:
            own = {"traceparent": traceparent("a"), "tracestate": "vendor=1"}
            await talk.send(
                item_of(1, binding.binding_hash, **own),
                item_of(2, binding.binding_hash, bar=1),
                item_of(3, binding.binding_hash, bar=2, traceparent="nonsense"),
            )
            await talk.answers(3)
    served = [span for span in kept.get_finished_spans() if span.name == streaming.METHOD]
    parents = [f"{span.parent.span_id:x}" if span.parent else "" for span in served]
    steps = {span.name for span in kept.get_finished_spans()}

    assert parents == ["a" * 16, "c" * 16, ""]
    assert served[0].context.trace_state.get("vendor") == "1"
    assert served[0].attributes is not None
    assert served[0].attributes["plan_id"] == "plan"
    assert {"decide", "record"} <= steps


def traceparent(digit: str) -> str:
    return f"00-{digit * 32}-{digit * 16}-01"
