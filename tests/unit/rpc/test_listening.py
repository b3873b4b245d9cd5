"""Proves where a listener listens, and how it leaves."""

import asyncio
import errno
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, WindowUpdateFrame
from tests.unit.rpc.peers import JudgedPeer, RawPeer, head, prefixed
from tests.unit.rpc.served import Serving, counted, eventually, limits

from detent.rpc import health, reflection
from detent.rpc.health import Health
from detent.rpc.http2.listener import Listener

# More than the buffers of two sockets.
SIZE = 12 * 1024 * 1024
HAS_IPV6 = socket.has_ipv6 and bool(
    [found for found in socket.getaddrinfo("localhost", None) if found[0] == socket.AF_INET6]
)


async def asked(target: str) -> bytes:
    async with grpc.aio.insecure_channel(target) as channel:
        answer: bytes = await channel.unary_unary("/t.S/Echo")(b"x", timeout=5)
        return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_host_is_listened_on(host: str) -> None:
    async with Serving(host) as serving:
        assert await asked(f"127.0.0.1:{serving.port}") == b"x"
        if host == "localhost":
            assert await asked(serving.target) == b"x"


@pytest.mark.parametrize("host", ["[::1]", "::1", "[::]", "", "localhost"])
async def test_host_of_the_newer_kind_is_listened_on(host: str) -> None:
    try:
        async with Serving(host) as serving:
            if host != "localhost" or HAS_IPV6:
                assert await asked(f"[::1]:{serving.port}") == b"x"
            if host in {"", "[::]"}:
                assert await asked(f"127.0.0.1:{serving.port}") == b"x"
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            pytest.skip("no IPv6 on this machine")
        raise


async def test_address_that_is_taken_is_refused() -> None:
    async with Serving() as serving:
        other = Listener({}, limits(), time.monotonic)
        with pytest.raises(OSError, match="in use") as caught:
            await other.start("127.0.0.1", serving.port)

        assert caught.value.errno == errno.EADDRINUSE


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    """A long answer came 40 ms at a time where the protocol of the socket was not named."""
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        await peer.call()
        (connection,) = serving.shared.connections
        opened = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]

        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_drain_lets_calls_finish_and_takes_no_new_ones() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"abc", head("/t.S/Hold")))
        await eventually(lambda: serving.methods.started)
        draining = asyncio.ensure_future(serving.listener.drain(10))
        announced = await peer.until(lambda made: isinstance(made, GoAwayFrame))
        assert (announced.last_stream_id, announced.error_code) == (2**31 - 1, 0)
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", serving.port)
        # What was on its way before the peer could know is served as well.
        peer.send(peer.call(3, b"late"))
        assert (await peer.last_of(3))["grpc-status"] == "0"
        assert not draining.done()
        serving.methods.may_read.set()

        assert (await peer.last_of(1))["grpc-status"] == "0"
        assert await peer.refusal() == 0
        assert peer.seen[-1].last_stream_id == 3  # type: ignore[attr-defined]
        await asyncio.wait_for(draining, 5)


async def test_drain_refuses_new_calls_of_published_clients() -> None:
    async with Serving() as serving:
        async with grpc.aio.insecure_channel(serving.target) as channel:
            await channel.unary_unary("/t.S/Echo")(b"x", timeout=5)
            await serving.listener.drain(0.2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/t.S/Echo")(b"x", timeout=5)

        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_call_without_an_end_is_ended_after_the_grace() -> None:
    async with Serving() as serving:
        async with grpc.aio.insecure_channel(serving.target) as channel:
            call = asyncio.ensure_future(channel.unary_unary("/t.S/Slow")(b"", timeout=20))
            await eventually(lambda: serving.methods.started)
            await asyncio.wait_for(serving.listener.drain(0.1), 5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call

        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await eventually(lambda: serving.methods.cancelled_s)


async def test_drain_ends_conversations_and_what_begins_one_late() -> None:
    """They last as long as their callers like: nobody waits for the end of the grace."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, head("/t.S/Chat")))
        peer.send(peer.headers(3, head("/t.S/Hold")))
        await eventually(lambda: serving.listener.calls == 2)
        draining = asyncio.ensure_future(serving.listener.drain(10))
        assert (await peer.last_of(1))["grpc-status"] == "0"
        peer.send(peer.headers(5, head("/t.S/Chat")))
        assert (await peer.last_of(5))["grpc-status"] == "0"
        # What collects is waited for, as before: its caller is owed an answer.
        assert not draining.done()
        serving.methods.may_read.set()
        peer.send(DataFrame(3, b"", flags=["END_STREAM"]))
        assert (await peer.last_of(3))["grpc-status"] == "0"
        await asyncio.wait_for(draining, 5)


async def test_drain_waits_for_who_reads_slowly() -> None:
    """The handler is done, and its answer still on the way: it arrives whole."""
    wide = {4: 2**31 - 1, 5: 2**24 - 1}
    async with Serving() as serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**30))
        peer.send(peer.call(1, str(SIZE).encode(), head("/t.S/Big")))
        # The only frame of data is with the socket: no call is under way any more.
        await peer.until(lambda made: isinstance(made, HeadersFrame))
        await eventually(lambda: serving.listener.calls == 0)
        draining = asyncio.ensure_future(serving.listener.drain(10))
        await asyncio.sleep(0.1)

        data = await peer.until(lambda made: isinstance(made, DataFrame))
        assert data.data == prefixed(counted(SIZE))
        assert await peer.refusal() == 0
        await asyncio.wait_for(draining, 5)


async def test_drain_leaves_who_does_not_read() -> None:
    wide = {4: 2**31 - 1, 5: 2**24 - 1}
    async with Serving() as serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**30))
        peer.send(peer.call(1, str(SIZE).encode(), head("/t.S/Big")))
        await peer.until(lambda made: isinstance(made, HeadersFrame))

        await asyncio.wait_for(serving.listener.drain(0.1), 5)
        await eventually(lambda: not serving.shared.connections)


async def test_watch_tells_every_change_and_ends_with_the_process() -> None:
    """Who watches does not hold up a drain."""
    watched = Health()
    listener = Listener(watched.routes(), limits(), time.monotonic)
    port = await listener.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service="a").SerializeToString()
        call = channel.unary_stream(f"/{health.NAME}/Watch")(request)
        check = channel.unary_unary(f"/{health.NAME}/Check")
        read = health_pb2.HealthCheckResponse.FromString
        assert read(await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(request, timeout=5)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watched.set({"a": True})
        assert read(await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert read(await check(request, timeout=5)).status == 1
        watched.end()
        await asyncio.wait_for(listener.drain(60), 10)
        assert read(await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
    assert listener.calls == 0


async def test_reflection_answers_in_a_conversation() -> None:
    listener = Listener(reflection.routes([health.NAME, reflection.NAME]), limits(), time.monotonic)
    port = await listener.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(f"/{reflection.NAME}/ServerReflectionInfo")(timeout=10)
        for wanted in ("list", "file"):
            request = reflection_pb2.ServerReflectionRequest(
                list_services="" if wanted == "list" else None,
                file_containing_symbol=health.NAME if wanted == "file" else None,
            )
            await call.write(request.SerializeToString())
            answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
            if wanted == "list":
                named = [service.name for service in answer.list_services_response.service]
                assert set(named) == {health.NAME, reflection.NAME}
            else:
                assert answer.file_descriptor_response.file_descriptor_proto
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
    await listener.drain(0)
    assert listener.calls == 0
