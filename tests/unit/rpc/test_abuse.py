"""Proves the bounds of what a peer can make us hold or do; whoever is good is served meanwhile."""

import asyncio
import gzip
import logging

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from tests.unit.rpc.peers import PREFACE, JudgedPeer, RawPeer, head, prefixed
from tests.unit.rpc.served import Serving, eventually

from detent.rpc.http2 import connection, listener

CALM, COMPRESSION = 0xB, 9
KIB = 1024


@pytest.fixture(name="few_nuisances")
def _few_nuisances(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bound the frames that carry nothing to what a test can send in a moment."""
    monkeypatch.setattr(connection, "NUISANCES_MAX", 200)
    return 200


async def assert_serves_others(serving: Serving) -> None:
    async with await JudgedPeer.connect(serving.port) as other:
        assert (await other.call()).data == prefixed(b"hello")


async def test_calls_that_are_reset_at_once_end_the_connection(few_nuisances: int) -> None:
    async with Serving() as serving:
        async with await RawPeer.connect(serving.port) as peer:
            for number in range(few_nuisances + 1):
                reset = RstStreamFrame(2 * number + 1, error_code=8)
                peer.send(peer.call(2 * number + 1, b"", head("/t.S/Slow")), reset)

            assert await peer.refusal() == CALM
        await assert_serves_others(serving)
        assert serving.listener.calls == 0


FLOODS = [
    pytest.param(PingFrame(0, bytes(8)).serialize(), id="ping"),
    pytest.param(SettingsFrame(0).serialize(), id="settings"),
    pytest.param(b"\0\0\5\2\0\0\0\0\1" + bytes(5), id="priority"),
    pytest.param(b"\0\0\0\x63\0\0\0\0\0", id="unknown"),
    pytest.param(DataFrame(1, b"").serialize(), id="empty-data"),
]


@pytest.mark.parametrize("flood", FLOODS)
async def test_flood_of_frames_that_carry_nothing_ends_the_connection(
    few_nuisances: int, flood: bytes
) -> None:
    async with Serving() as serving:
        async with await RawPeer.connect(serving.port) as peer:
            peer.send(peer.headers(1, head("/t.S/Hold")), flood * (few_nuisances + 1))

            assert await peer.refusal() == CALM
        await assert_serves_others(serving)


@pytest.mark.parametrize("flood", FLOODS)
async def test_fewer_such_frames_are_passed_over(few_nuisances: int, flood: bytes) -> None:
    """The control of the floods."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, head("/t.S/Early")), flood * (few_nuisances - 5), peer.call(3))

        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_head_without_an_end_ends_the_connection() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, flags=[]), ContinuationFrame(1, b"").serialize() * 16)

        assert await peer.refusal() == CALM


async def test_head_of_many_bytes_ends_the_connection() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(HeadersFrame(1, b"\x20" * 40_000, flags=["END_HEADERS"]))

        assert await peer.refusal() == CALM


@pytest.mark.parametrize(("times", "is_taken"), [(7, True), (9, False)])
async def test_head_that_reads_out_to_many_bytes_ends_the_connection(
    times: int, *, is_taken: bool
) -> None:
    """The header bomb: nine bytes that name nine times 4 kB; and seven times, its control."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"", [*head(), ("x-long", "v" * 3_900)]))
        assert (await peer.last_of(1))["grpc-status"] == "0"
        # First, while the long entry is the newest: what the rest of the head adds drives it out.
        block = b"\xbe" * times + peer.encoder.encode(head())
        peer.send(HeadersFrame(3, block, flags=["END_HEADERS"]))
        peer.send(DataFrame(3, prefixed(b""), flags=["END_STREAM"]))

        if is_taken:
            assert (await peer.last_of(3))["grpc-status"] == "0"
        else:
            assert await peer.refusal() == COMPRESSION


async def test_settings_that_repeat_a_window_cost_one() -> None:
    """43,000 changes of the windows of 100 calls in one frame: the last counts."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        for number in range(99):
            peer.send(peer.call(2 * number + 1, b"", head("/t.S/Slow")))
        await eventually(lambda: serving.listener.calls == 99)
        pairs = b"\0\4\0\0\0\1\0\4\0\1\0\0" * 21_000
        peer.send(len(pairs).to_bytes(3) + b"\4\0\0\0\0\0" + pairs, PingFrame(0, b"are you?"))

        async with asyncio.timeout(1.5):
            await peer.until(lambda made: isinstance(made, PingFrame))


async def test_who_does_not_greet_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "GREETING_S_MAX", 0.1)
    async with Serving() as serving, await RawPeer.connect(serving.port) as good:
        async with await RawPeer.connect(serving.port, greets=False) as peer:
            peer.send(PREFACE[:10])
            assert await asyncio.wait_for(peer.reader.read(), 5) is not None
            assert peer.reader.at_eof()
        good.send(good.call(1))
        assert (await good.last_of(1))["grpc-status"] == "0"


@pytest.mark.parametrize("waits", [None, "100m"])
async def test_request_that_does_not_come_is_waited_for_no_longer(waits: str | None) -> None:
    """The deadline of the caller ends it, or ours where there is none."""
    more = {} if waits is None else {"grpc_timeout": waits}
    wait_s = 0.1 if waits is None else 60.0
    async with Serving(unary_wait_s=wait_s) as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, head(**more)), DataFrame(1, prefixed(b"abc")[:6]))

        assert (await peer.last_of(1))["grpc-status"] == "4"
        await eventually(lambda: serving.shared.buffered_bytes == 0)


async def test_answers_that_nobody_reads_end_with_the_deadline() -> None:
    """Windows of zero: the calls are held, bounded in number and in time."""
    serving = Serving(calls_max=3)
    async with serving, await RawPeer.connect(serving.port, settings={4: 0}) as peer:
        for number in (1, 3, 5, 7):
            peer.send(peer.call(number, b"100000", head("/t.S/Big", grpc_timeout="200m")))
        assert (await peer.last_of(7))["grpc-status"] == "8"

        assert (await peer.last_of(5))["grpc-status"] == "4"
        await eventually(lambda: serving.listener.calls == 0)


async def test_who_does_not_read_is_not_read() -> None:
    """Answers wait with us up to a bound: then no further request is taken."""
    wide = {4: 2**31 - 1}
    serving = Serving(calls_max=1_000, unary_wait_s=60.0)
    async with serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**30))
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(400):
            peer.send(peer.call(2 * number + 1, b"200000", head("/t.S/Big")))
        (served,) = serving.shared.connections
        transport = served._transport  # type: ignore[attr-defined]
        await eventually(lambda: served._out._is_full)  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)

        # All of it is 80 MB; a portion of requests was read before it was known.
        held = transport.get_write_buffer_size()
        assert held < 2_000_000
        await assert_serves_others(serving)
        peer.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert (await peer.last_of(799))["grpc-status"] == "0"


async def test_requests_over_all_that_may_wait_are_refused() -> None:
    serving = Serving(buffered_bytes_max=300 * KIB)
    async with serving, await JudgedPeer.connect(serving.port) as peer:
        await peer.idle()
        ids = [peer.begin("/t.S/Hold") for _ in range(5)]
        for stream_id in ids:
            for _ in range(6):
                peer.send(stream_id, prefixed(bytes(16_379)))
        await peer.idle()
        ended = [number for number in ids if peer.answers[number].is_ended]
        assert len(ended) == 2
        assert {peer.answers[number].status for number in ended} == {8}
        assert 280 * KIB < serving.shared.buffered_bytes <= 300 * KIB
        serving.methods.may_read.set()
        for number in set(ids) - set(ended):
            peer.send(number, b"", has_ended=True)
            assert (await peer.answer(number)).status == 0


async def test_bombs_of_one_frame_stop_at_the_bound() -> None:
    """Each is within the limit of a message, and all of them 1,000 times their size."""
    serving = Serving(buffered_bytes_max=4 * KIB * KIB)
    async with serving, await RawPeer.connect(serving.port) as peer:
        bomb = prefixed(gzip.compress(bytes(1_000_000)), 1)
        peer.send(peer.headers(1, head("/t.S/Hold", grpc_encoding="gzip")))
        peer.send(DataFrame(1, bomb * 15))

        assert (await peer.last_of(1))["grpc-status"] == "8"
        await eventually(lambda: serving.shared.buffered_bytes == 0)


SPOILT = [
    pytest.param("identity", prefixed(bytes(KIB * KIB + 1))[:2_000], "8", id="too-long"),
    pytest.param("identity", prefixed(b"abcdef", 9), "13", id="flag"),
    pytest.param("gzip", prefixed(b"no gzip at all", 1), "13", id="gzip"),
    pytest.param("gzip", prefixed(gzip.compress(bytes(2_000_000)), 1), "8", id="bomb"),
]


@pytest.mark.parametrize(("encoding", "content", "code"), SPOILT)
@pytest.mark.parametrize("cut", [0, 3, 7])
async def test_message_that_is_refused_gives_its_bytes_back(
    encoding: str, content: bytes, code: str, cut: int
) -> None:
    """`Serving` checks the counts: once they went below zero, and the bound was gone."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, head("/t.S/Collect", grpc_encoding=encoding)))
        peer.send(DataFrame(1, prefixed(b"ok")), DataFrame(1, content[:cut]))
        peer.send(DataFrame(1, content[cut:]))

        assert (await peer.last_of(1))["grpc-status"] in {code, "8"}
        await eventually(lambda: serving.listener.calls == 0)


async def test_connections_over_the_bound_are_closed() -> None:
    async with Serving(connections_max=2) as serving:
        async with (
            await RawPeer.connect(serving.port) as first,
            await RawPeer.connect(serving.port) as second,
        ):
            await eventually(lambda: len(serving.shared.connections) == 2)
            async with await RawPeer.connect(serving.port) as third:
                assert await third.frame() is None
            for peer in (first, second):
                peer.send(peer.call(1))
                assert (await peer.last_of(1))["grpc-status"] == "0"
        await eventually(lambda: not serving.shared.connections)
        await assert_serves_others(serving)


async def test_who_is_told_to_go_and_does_not_read_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.1)
    caplog.set_level(logging.CRITICAL)
    wide = {4: 2**31 - 1, 5: 2**24 - 1}
    async with Serving() as serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(WindowUpdateFrame(0, window_increment=2**30))
        # The violation comes with the call: after its answer nothing more would be read.
        (served,) = await connected(serving)
        peer.send(peer.call(1, b"12000000", head("/t.S/Big")))
        await eventually(lambda: served._out._is_full)  # type: ignore[attr-defined]
        served.leave()

        await eventually(lambda: not serving.shared.connections)


async def connected(serving: Serving) -> set[object]:
    await eventually(lambda: serving.shared.connections)
    return set(serving.shared.connections)
