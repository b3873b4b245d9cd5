"""Proves flow control in both directions, by the state machine of `h2`."""

import asyncio

import pytest
from h2.events import WindowUpdated
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, SettingsFrame, WindowUpdateFrame
from tests.unit.rpc.peers import JudgedPeer, RawPeer, head, prefixed
from tests.unit.rpc.served import Serving, counted, eventually

FLOW_CONTROL = 3
KIB = 1024


@pytest.mark.parametrize("size", [0, 1, 65_530, 65_531, 200_000, 3 * KIB * KIB])
async def test_answer_over_the_windows_comes_whole(size: int) -> None:
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        answer = await peer.call("/t.S/Big", str(size).encode())

        assert answer.status == 0
        assert answer.data == prefixed(counted(size))


async def test_answer_waits_for_the_window_of_the_stream() -> None:
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
    async with Serving() as serving, await JudgedPeer.connect(serving.port, settings) as peer:
        peer.takes_data = False
        stream_id = peer.begin("/t.S/Big")
        peer.send(stream_id, prefixed(b"100"), has_ended=True)
        await peer.idle()
        assert peer.answers[stream_id].head
        assert not peer.answers[stream_id].data
        # One byte at a time, then the rest.
        for got in (1, 2):
            peer.judge.increment_flow_control_window(1, stream_id)
            peer.flush()
            await peer.idle()
            assert len(peer.answers[stream_id].data) == got
        peer.judge.increment_flow_control_window(1_000, stream_id)
        peer.flush()

        assert (await peer.answer(stream_id)).data == prefixed(counted(100))


async def test_answer_goes_on_when_settings_widen_the_windows() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port, settings={4: 10}) as peer:
        peer.send(peer.call(1, b"100", head("/t.S/Big")))
        first = await peer.until(lambda made: isinstance(made, DataFrame))
        assert len(first.data) == 10
        peer.send(SettingsFrame(0, settings={4: 5}))
        await peer.until(lambda made: isinstance(made, SettingsFrame) and "ACK" in made.flags)
        # The window is at -5 now: 12 more give 2.
        peer.send(SettingsFrame(0, settings={4: 12}))
        second = await peer.until(lambda made: isinstance(made, DataFrame))
        assert len(second.data) == 2
        peer.send(SettingsFrame(0, settings={4: 1_000}))

        assert (await peer.last_of(1))["grpc-status"] == "0"
        data = b"".join(made.data for made in peer.seen if isinstance(made, DataFrame))
        assert data == prefixed(counted(100))


async def test_answer_waits_for_the_window_of_the_connection() -> None:
    wide = {4: 2**31 - 1}
    async with Serving() as serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.send(peer.call(1, b"70000", head("/t.S/Big")))
        peer.send(peer.call(3, b"70000", head("/t.S/Big")))
        got = 0
        while got < 65_535:
            got += len((await peer.until(lambda made: isinstance(made, DataFrame))).data)
        assert got == 65_535
        peer.send(WindowUpdateFrame(0, window_increment=200_000))

        assert (await peer.last_of(1))["grpc-status"] == "0"
        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_frames_are_as_long_as_the_peer_takes_them() -> None:
    wide = {4: 2**20, 5: 50_000}
    async with Serving() as serving, await RawPeer.connect(serving.port, settings=wide) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**20))
        peer.send(peer.call(1, b"120000", head("/t.S/Big")))
        await peer.last_of(1)

        sizes = [len(made.data) for made in peer.seen if isinstance(made, DataFrame)]
        assert sizes == [50_000, 50_000, 20_005]


async def test_overflow_of_a_stream_ends_the_stream_alone() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", head("/t.S/Slow")))
        peer.send(WindowUpdateFrame(1, window_increment=2**31 - 1))
        assert await peer.reset_of(1) == FLOW_CONTROL
        peer.send(peer.call(3))

        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_overflow_by_settings_ends_the_connection() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", head("/t.S/Slow")))
        peer.send(WindowUpdateFrame(1, window_increment=2**30))
        peer.send(SettingsFrame(0, settings={4: 2**31 - 1}))

        assert await peer.refusal() == FLOW_CONTROL


async def test_long_request_is_let_through_as_it_is_read() -> None:
    serving = Serving(message_bytes_max=5 * KIB * KIB)
    async with serving, await JudgedPeer.connect(serving.port) as peer:
        stream_id = peer.begin("/t.S/Collect")
        content = prefixed(bytes(4 * KIB * KIB)) + prefixed(b"end")
        await peer.send_long(stream_id, content)

        assert (await peer.answer(stream_id)).data == prefixed(b"[4194304, 3]")
        assert any(isinstance(event, WindowUpdated) for event in peer.events)


async def test_requests_that_nobody_reads_are_not_let_through() -> None:
    """At most a window of them lies here, empty ones counted too, until they are read."""
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        stream_id = peer.begin("/t.S/Hold")
        sent = 0
        while peer.judge.local_flow_control_window(stream_id) >= 16_384:
            peer.send(stream_id, prefixed(b"") * 3_000)
            sent += 3_000
            await peer.idle(0.001)
        await peer.idle()
        assert peer.judge.local_flow_control_window(stream_id) < 16_384
        assert serving.shared.buffered_bytes == 5 * sent <= KIB * KIB
        serving.methods.may_read.set()
        await eventually(lambda: serving.shared.buffered_bytes == 0)
        await peer.idle()
        assert peer.judge.local_flow_control_window(stream_id) > KIB * KIB // 2
        peer.send(stream_id, b"", has_ended=True)

        assert (await peer.answer(stream_id)).status == 0


async def test_more_than_the_window_ends_the_connection() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1, head("/t.S/Hold")))
        for _ in range(65):
            peer.send(DataFrame(1, (prefixed(bytes(16_379)))))

        assert await peer.refusal() == FLOW_CONTROL


async def test_data_of_calls_that_are_over_gives_the_connection_its_window_back() -> None:
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        for _ in range(3):
            stream_id = peer.begin("/t.S/Early")
            # Padding counts as well; its window comes back too.
            peer.send(stream_id, prefixed(b"first"))
            answer = await peer.answer(stream_id)
            assert answer.data == prefixed(b"first")
        window = peer.judge.outbound_flow_control_window
        assert window > 15 * KIB * KIB


async def test_many_answers_wait_for_who_reads_them() -> None:
    """A handler that gives answers is held until the peer has taken them."""
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        peer.takes_data = False
        stream_id = peer.begin("/t.S/Many")
        peer.send(stream_id, prefixed(b"300,1000"), has_ended=True)
        await peer.idle()
        assert len(peer.answers[stream_id].data) == 65_535
        (connection,) = serving.shared.connections
        (stream,) = connection.streams.values()  # type: ignore[attr-defined]
        assert sum(map(len, stream.pending)) <= 1_005
        peer.takes_data = True
        peer.judge.acknowledge_received_data(65_535, stream_id)
        peer.flush()

        answer = await peer.answer(stream_id)
        assert answer.status == 0
        assert len(answer.data) == 300 * 1_005


async def test_end_of_an_early_answer_stops_the_request() -> None:
    """The answer ends whole, and a reset without an error says that no more is wanted."""
    async with Serving() as serving, await JudgedPeer.connect(serving.port) as peer:
        stream_id = peer.begin("/t.S/Early")
        peer.send(stream_id, prefixed(b"first"))
        answer = await peer.answer(stream_id)
        await peer.idle()

        assert (answer.status, answer.is_ended, answer.reset) == (0, True, 0)
        assert (await peer.call()).data == prefixed(b"hello")
        await asyncio.sleep(0)
