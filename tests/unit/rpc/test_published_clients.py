"""Proves what gRPC promises, with the published clients, both of them."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from tests.unit.rpc.peers import JudgedPeer, RawPeer, head, prefixed
from tests.unit.rpc.served import Serving, counted, eventually

MIB = 1024 * 1024
WIDE = (("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB))
PATIENCE_S = 10.0


def channel_to(serving: Serving, **more: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(serving.target, options=WIDE, **more)


async def ask(channel: Any, method: str, message: bytes = b"", **more: Any) -> bytes:
    answer: bytes = await channel.unary_unary(f"/t.S/{method}")(
        message, **({"timeout": PATIENCE_S} | more)
    )
    return answer


async def code_of(pending: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    return caught.value.code()


async def test_calls_of_every_kind_are_answered() -> None:
    async def messages() -> AsyncIterator[bytes]:
        for size in (3, 0, 100_000):
            yield bytes(size)

    async with Serving() as serving, channel_to(serving) as channel:
        assert await ask(channel, "Echo", b"x" * 1_000) == b"x" * 1_000
        assert await ask(channel, "Echo") == b""
        collected = await channel.stream_unary("/t.S/Collect")(messages(), timeout=PATIENCE_S)
        assert collected == b"[3, 0, 100000]"
        many = channel.unary_stream("/t.S/Many")(b"5,70000", timeout=PATIENCE_S)
        assert [len(part) async for part in many] == [70_000] * 5
        chat = channel.stream_stream("/t.S/Chat")(messages(), timeout=PATIENCE_S)
        assert [len(part) async for part in chat] == [3, 0, 100_000]


def test_published_client_without_a_loop_is_answered() -> None:
    """The synchronous client, its threads and its own windows; the server on a loop."""

    def use(target: str) -> None:
        with grpc.insecure_channel(target, options=WIDE) as channel:
            assert channel.unary_unary("/t.S/Big")(b"300000", timeout=9) == counted(300_000)
            sizes: Iterator[bytes] = iter([b"a", b"bc"])
            assert channel.stream_unary("/t.S/Collect")(sizes, timeout=9) == b"[1, 2]"
            assert [*channel.unary_stream("/t.S/Many")(b"3,2", timeout=9)] == [
                b"\0\0",
                b"\1\1",
                b"\2\2",
            ]
            chat = channel.stream_stream("/t.S/Chat")(iter([b"a", b"b"]), timeout=9)
            assert [*chat] == [b"a", b"b"]

    async def serve() -> None:
        async with Serving() as serving:
            await asyncio.to_thread(use, serving.target)

    asyncio.run(serve())


async def test_refusal_comes_with_words_and_details() -> None:
    async with Serving() as serving, channel_to(serving) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, "Fail")

        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "100 % böse\n\u2028 \U0001f4a5"
        trailers = dict(caught.value.trailing_metadata() or ())
        assert trailers["x-plain"] == "a b"
        assert trailers["x-some-bin"] == bytes(range(256))


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("None", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("Broken", b"", grpc.StatusCode.INTERNAL),
        ("Echo", bytes(MIB + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_call_that_cannot_be_served_is_refused(
    method: str, message: bytes, code: grpc.StatusCode
) -> None:
    async with Serving() as serving, channel_to(serving) as channel:
        assert await code_of(ask(channel, method, message)) == code
        assert await ask(channel, "Echo", b"next") == b"next"


async def test_words_over_a_frame_do_not_end_the_connection() -> None:
    """Published clients refuse so long a head; the other calls of the connection go on."""
    async with Serving() as serving:
        async with await JudgedPeer.connect(serving.port) as peer:
            answer = await peer.call("/t.S/Verbose")
            assert answer.head["grpc-message"] == "v" * 40_000
            assert answer.status == 9
        async with channel_to(serving) as channel:
            waiting = asyncio.ensure_future(ask(channel, "Slow"))
            await eventually(lambda: serving.methods.started)
            assert await code_of(ask(channel, "Verbose")) == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await ask(channel, "Echo", b"next") == b"next"
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("size", [MIB, 16 * MIB])
async def test_long_messages_go_both_ways(size: int) -> None:
    async with Serving(message_bytes_max=16 * MIB) as serving, channel_to(serving) as channel:
        content = counted(size)

        assert await ask(channel, "Echo", content) == content


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_packed_requests_are_read(kind: grpc.Compression) -> None:
    async with Serving() as serving, channel_to(serving, compression=kind) as channel:
        assert await ask(channel, "Echo", bytes(100_000)) == bytes(100_000)


async def test_unknown_packing_is_refused_with_what_is_taken() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", head(grpc_encoding="snappy")))
        refused = await peer.last_of(1)
        assert refused["grpc-status"] == "12"
        assert refused["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_deadline_ends_the_handler() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"", head("/t.S/Slow", grpc_timeout="100m")))
        ended = await peer.last_of(1)
        await eventually(lambda: serving.methods.cancelled_s)

        assert ended["grpc-status"] == "4"
    async with Serving() as serving, channel_to(serving) as channel:
        begun_s = time.monotonic()
        assert await code_of(ask(channel, "Slow", timeout=0.1)) == (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        await eventually(lambda: serving.methods.cancelled_s)
        # 0.1 s and the sweep's 0.05 s; the rest is for a loaded machine.
        assert 0.09 < serving.methods.cancelled_s[0] - begun_s < 1.0


async def test_call_without_a_deadline_gets_one() -> None:
    async with Serving(unary_wait_s=0.1) as serving, channel_to(serving) as channel:
        assert await code_of(ask(channel, "Slow", timeout=None)) == (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )


@pytest.mark.parametrize("method", ["Slow", "Hold"])
async def test_caller_that_leaves_ends_the_handler(method: str) -> None:
    async with Serving() as serving, channel_to(serving) as channel:
        kind = channel.stream_unary if method == "Hold" else channel.unary_unary
        given: Any = iter([b"x"]) if method == "Hold" else b"x"
        call = kind(f"/t.S/{method}")(given)
        waiting = asyncio.ensure_future(call)
        await eventually(lambda: serving.methods.started)
        assert serving.listener.calls == 1
        waiting.cancel()

        await eventually(lambda: serving.listener.calls == 0)
        await asyncio.gather(waiting, return_exceptions=True)


async def test_connection_that_breaks_ends_its_handlers() -> None:
    async with Serving() as serving:
        async with await RawPeer.connect(serving.port) as peer:
            peer.send(*(peer.call(number, b"", head("/t.S/Slow")) for number in (1, 3, 5)))
            await eventually(lambda: serving.methods.started == 3)

        await eventually(lambda: len(serving.methods.cancelled_s) == 3)
        assert serving.listener.calls == 0


async def test_calls_over_the_bound_are_refused_and_one_ends_for_the_next() -> None:
    async with Serving(calls_max=2) as serving, channel_to(serving) as channel:
        slow = [asyncio.ensure_future(ask(channel, "Slow")) for _ in range(2)]
        await eventually(lambda: serving.methods.started == 2)
        # On a connection of its own: published clients wait where they know the bound.
        async with await RawPeer.connect(serving.port) as peer:
            peer.send(peer.call(1))
            assert (await peer.last_of(1))["grpc-status"] == "8"
            slow[0].cancel()
            await eventually(lambda: serving.listener.calls == 1)
            peer.send(peer.call(3))
            assert (await peer.last_of(3))["grpc-status"] == "0"
        slow[1].cancel()
        await asyncio.gather(*slow, return_exceptions=True)


NOT_ONE: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "12"),
    (lambda: prefixed(b"a") + prefixed(b"b"), "12"),
    (lambda: prefixed(b"abc")[:-1], "13"),
    (lambda: prefixed(gzip.compress(b"a"), 1), "13"),
]


@pytest.mark.parametrize(("content", "code"), NOT_ONE)
async def test_unary_call_takes_one_whole_request(content: Callable[[], bytes], code: str) -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        data = content()
        peer.send(peer.headers(1), b"")
        peer.writer.write(len(data).to_bytes(3) + b"\0\1" + (1).to_bytes(4) + data)

        assert (await peer.last_of(1))["grpc-status"] == code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([*head()[:4], ("content-type", "text/html")], "415"),
        ([(":method", "GET"), *head()[1:]], "405"),
        ([(":scheme", "http")], "400"),
    ],
)
async def test_what_is_no_grpc_gets_a_status_of_http(
    headers: list[tuple[str, str]], status: str
) -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", headers), peer.call(3))

        assert (await peer.last_of(1))[":status"] == status
        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_many_connections_are_served_side_by_side() -> None:
    async with Serving() as serving:
        peers = [await RawPeer.connect(serving.port) for _ in range(60)]
        for peer in peers:
            peer.send(peer.call(1))
        for peer in peers:
            assert (await peer.last_of(1))["grpc-status"] == "0"
            peer.writer.transport.abort()
        await eventually(lambda: not serving.shared.connections)
