"""Speaks `StreamDecisions` with the published client, raw messages included."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tests.builders import HOUR_MS, START_MS, SYMBOL, row_of

from detent.contracts.calls.decision_stream import (
    StreamDecisionsRequest,
    StreamDecisionsResponse,
)
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.wire import from_wire, message_class, to_wire

PATH = "/detent.api.v1.PolicyService/StreamDecisions"
PATIENCE_S = 10.0
RESPONSE = message_class("StreamDecisionsResponse")


def item_of(
    item_id: int,
    binding_hash: str,
    *,
    plan_id: str = "plan",
    bar: int = 0,
    rows: tuple[DecisionRow, ...] | None = None,
    timeout_ms: int = 5_000,
    **changes: Any,
) -> StreamDecisionsRequest:
    """Give one item: bar number `bar` of a plan."""
    return StreamDecisionsRequest(
        binding_hash=binding_hash,
        plan_id=plan_id,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=DecisionKind.BAR,
        rows=rows if rows is not None else (row_of(SYMBOL),),
        item_id=item_id,
        timeout_ms=timeout_ms,
        **changes,
    )


class Talk:
    """Is one stream of a published client."""

    def __init__(self, channel: grpc.aio.Channel, **options: Any) -> None:
        self.call: Any = channel.stream_stream(PATH)(**options)

    async def send(self, *items: Any) -> None:
        """Send items; bytes are sent as they are."""
        for item in items:
            content = item if isinstance(item, bytes) else to_wire(item).SerializeToString()
            await self.call.write(content)

    async def read(self) -> StreamDecisionsResponse:
        async with asyncio.timeout(PATIENCE_S):
            content = await self.call.read()
        assert content is not grpc.aio.EOF, "the stream ended"
        return from_wire(StreamDecisionsResponse, RESPONSE.FromString(content))

    async def answers(self, count: int) -> list[StreamDecisionsResponse]:
        return [await self.read() for _ in range(count)]

    async def end(self) -> None:
        """Say that nothing more comes, and see the stream end well."""
        await self.call.done_writing()
        async with asyncio.timeout(PATIENCE_S):
            assert await self.call.read() is grpc.aio.EOF
            assert await self.call.code() is grpc.StatusCode.OK


@contextlib.asynccontextmanager
async def talk_to(target: str, **options: Any) -> AsyncIterator[Talk]:
    """Open a stream, and leave it."""
    async with grpc.aio.insecure_channel(target) as channel:
        talk = Talk(channel, **options)
        try:
            yield talk
        finally:
            talk.call.cancel()


def hash_of(answer: StreamDecisionsResponse) -> str:
    """Give the record of an answer of one row."""
    assert answer.refusal is None, answer.refusal
    (result,) = answer.results
    assert result.decision is not None, result.refusal
    return result.decision.record_hash
