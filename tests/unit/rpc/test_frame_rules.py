"""Proves the rules of RFC 9113 on single frames, by frames that others' code wrote."""

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from tests.unit.rpc.peers import PREFACE, JudgedPeer, RawPeer, head, prefixed
from tests.unit.rpc.served import Serving

PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, COMPRESSION = 1, 3, 5, 6, 9


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Write a frame that hyperframe would refuse to make."""
    size = len(payload).to_bytes(3)
    return size + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def settings(name: int, value: int) -> bytes:
    return raw(4, 0, 0, name.to_bytes(2) + value.to_bytes(4))


async def assert_serves_others(serving: Serving) -> None:
    async with await JudgedPeer.connect(serving.port) as other:
        assert (await other.call()).data == prefixed(b"hello")


VIOLATIONS = [
    pytest.param(raw(8, 0, 0, bytes(4)), PROTOCOL, id="window-update-of-zero"),
    pytest.param(raw(8, 0, 0, bytes(3)), FRAME_SIZE, id="short-window-update"),
    pytest.param(raw(8, 0, 7, b"\0\0\0\1"), PROTOCOL, id="window-update-of-idle-stream"),
    pytest.param(raw(8, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL, id="connection-overflow"),
    pytest.param(raw(6, 0, 0, bytes(7)), FRAME_SIZE, id="short-ping"),
    pytest.param(raw(6, 0, 1, bytes(8)), PROTOCOL, id="ping-on-a-stream"),
    pytest.param(raw(4, 0, 0, bytes(5)), FRAME_SIZE, id="settings-of-5-bytes"),
    pytest.param(raw(4, 0, 1, b""), PROTOCOL, id="settings-on-a-stream"),
    pytest.param(raw(4, 1, 0, bytes(6)), FRAME_SIZE, id="ack-with-settings"),
    pytest.param(settings(2, 2), PROTOCOL, id="push-of-2"),
    pytest.param(settings(4, 2**31), FLOW_CONTROL, id="window-of-2-31"),
    pytest.param(settings(5, 16_383), PROTOCOL, id="frames-too-small"),
    pytest.param(settings(5, 2**24), PROTOCOL, id="frames-too-large"),
    pytest.param(raw(5, 4, 1, bytes(8)), PROTOCOL, id="push-promise"),
    pytest.param(raw(3, 0, 1, bytes(4)), PROTOCOL, id="reset-of-idle-stream"),
    pytest.param(raw(3, 0, 0, bytes(4)), PROTOCOL, id="reset-of-the-connection"),
    pytest.param(raw(3, 0, 1, bytes(3)), FRAME_SIZE, id="short-reset"),
    pytest.param(raw(0, 0, 0, b"x"), PROTOCOL, id="data-of-the-connection"),
    pytest.param(raw(0, 0, 1, b"x"), PROTOCOL, id="data-of-idle-stream"),
    pytest.param(raw(1, 4, 0, b""), PROTOCOL, id="headers-of-the-connection"),
    pytest.param(raw(1, 4, 2, b""), PROTOCOL, id="headers-of-even-stream"),
    pytest.param(raw(1, 12, 1, b""), FRAME_SIZE, id="padded-headers-without-length"),
    pytest.param(raw(1, 12, 1, b"\x09abc"), PROTOCOL, id="more-padding-than-headers"),
    pytest.param(raw(1, 4, 1, b"\x80"), COMPRESSION, id="header-index-0"),
    pytest.param(raw(1, 4, 1, b"\xbe"), COMPRESSION, id="header-of-empty-table"),
    pytest.param(raw(1, 4, 1, b"\x00\x05ab"), COMPRESSION, id="header-cut-off"),
    pytest.param(raw(1, 4, 1, b"\x3f\xe2\x1f"), COMPRESSION, id="table-too-large"),
    pytest.param(raw(9, 4, 1, b""), PROTOCOL, id="continuation-of-nothing"),
    pytest.param(raw(1, 0, 1, b"") + raw(9, 4, 3, b""), PROTOCOL, id="continuation-of-another"),
    pytest.param(raw(1, 0, 1, b"") + raw(6, 0, 0, bytes(8)), PROTOCOL, id="ping-in-a-block"),
    pytest.param(raw(1, 0, 1, b"") + raw(1, 4, 3, b""), PROTOCOL, id="headers-in-a-block"),
    pytest.param(raw(1, 0, 1, b"") + raw(77, 0, 0, b""), PROTOCOL, id="unknown-in-a-block"),
    pytest.param(raw(6, 0, 0, b"")[:0] + b"\x04\x00\x01" + bytes(6), FRAME_SIZE, id="too-long"),
    pytest.param(raw(7, 0, 1, bytes(8)), PROTOCOL, id="goaway-on-a-stream"),
]


@pytest.mark.parametrize(("written", "code"), VIOLATIONS)
async def test_violation_ends_the_connection_with_its_code(written: bytes, code: int) -> None:
    async with Serving() as serving:
        async with await RawPeer.connect(serving.port) as peer:
            peer.send(written)

            assert await peer.refusal() == code
        await assert_serves_others(serving)


HARMLESS: list[Frame | bytes] = [
    PriorityFrame(1, depends_on=3, stream_weight=4),
    PriorityFrame(99),
    GoAwayFrame(0, last_stream_id=0, error_code=0),
    PingFrame(0, b"12345678", flags=["ACK"]),
    SettingsFrame(0, flags=["ACK"]),
    SettingsFrame(0, settings={0xF0F0: 7, 1: 0, 3: 0, 2: 0}),
    WindowUpdateFrame(0, window_increment=1),
    raw(0x77, 0xFF, 5, b"who knows"),
]


@pytest.mark.parametrize("written", HARMLESS, ids=lambda made: type(made).__name__)
async def test_what_says_nothing_is_passed_over(written: Frame | bytes) -> None:
    """The control of the violations: a call right after it is answered."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(written, peer.call(1))

        assert (await peer.last_of(1))["grpc-status"] == "0"


async def test_greeting_says_the_bounds_and_acknowledges() -> None:
    async with Serving(calls_max=7) as serving, await RawPeer.connect(serving.port) as peer:
        ours = await peer.until(lambda made: isinstance(made, SettingsFrame))
        await peer.until(lambda made: isinstance(made, SettingsFrame) and "ACK" in made.flags)

        assert ours.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 7
        assert ours.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == 1024 * 1024


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", id="http-1"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="nearly"),
        pytest.param(b"\0", id="zero"),
    ],
)
async def test_who_does_not_greet_is_told_and_left(greeting: bytes) -> None:
    async with Serving() as serving:
        async with await RawPeer.connect(serving.port, greets=False) as peer:
            peer.send(greeting)

            assert await peer.refusal() == PROTOCOL
        await assert_serves_others(serving)


async def test_bytes_one_by_one_are_the_same_request() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port, greets=False) as peer:
        for byte in PREFACE + SettingsFrame(0).serialize() + peer.call(1, b"slowly"):
            peer.send(bytes([byte]))
            await peer.writer.drain()

        data = await peer.until(lambda made: isinstance(made, DataFrame))
        assert data.data == prefixed(b"slowly")


async def test_ping_is_answered_with_its_bytes() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(PingFrame(0, b"abcdefgh"))

        answered = await peer.until(lambda made: isinstance(made, PingFrame))
        assert answered.opaque_data == b"abcdefgh"
        assert "ACK" in answered.flags


async def test_head_may_come_in_pieces_with_padding_and_priority() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        block = peer.encoder.encode(head())
        first = HeadersFrame(1, block[:3], flags=["PADDED", "PRIORITY"], pad_length=5)
        parts = [ContinuationFrame(1, bytes([byte])) for byte in block[3:9]]
        last = ContinuationFrame(1, block[9:], flags=["END_HEADERS"])
        data = DataFrame(1, prefixed(b"x"), flags=["END_STREAM", "PADDED"], pad_length=255)
        peer.send(first, *parts, last, data)

        assert (await peer.last_of(1))["grpc-status"] == "0"


async def test_trailers_of_a_client_end_its_requests() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        trailers = peer.headers(1, [("x-sum", "1")], flags=["END_HEADERS", "END_STREAM"])
        peer.send(peer.headers(1, head("/t.S/Collect")), DataFrame(1, prefixed(b"ab")), trailers)

        assert (await peer.last_of(1))["grpc-status"] == "0"


async def test_second_head_without_an_end_is_a_violation() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1), peer.headers(1))

        assert await peer.refusal() == PROTOCOL


async def test_data_with_more_padding_than_bytes_is_a_violation() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.headers(1), raw(0, 8, 1, b"\x04abc"))

        assert await peer.refusal() == PROTOCOL


async def test_data_after_the_end_resets_the_stream_alone() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", head("/t.S/Slow")), DataFrame(1, b"more"))

        assert await peer.reset_of(1) == STREAM_CLOSED
        peer.send(peer.call(3))
        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_reset_of_a_call_that_was_answered_is_passed_over() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1))
        await peer.last_of(1)
        late = [RstStreamFrame(1, error_code=8), WindowUpdateFrame(1, window_increment=5)]
        peer.send(*late, DataFrame(1, b"late"), peer.call(3))

        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_stream_may_not_be_begun_twice() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(5))
        await peer.last_of(5)
        peer.send(peer.headers(5))

        assert await peer.refusal() in {PROTOCOL, STREAM_CLOSED}


async def test_head_from_the_table_of_earlier_heads_is_read() -> None:
    """Blocks build on each other, those of refused calls among them."""
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(peer.call(1, b"x", head("/t.S/None", x_a="1")), peer.call(3, b"y", head(x_a="1")))

        assert (await peer.last_of(1))["grpc-status"] == "12"
        assert (await peer.last_of(3))["grpc-status"] == "0"


async def test_push_promise_from_a_client_is_a_violation() -> None:
    async with Serving() as serving, await RawPeer.connect(serving.port) as peer:
        peer.send(PushPromiseFrame(1, promised_stream_id=2, flags=["END_HEADERS"]))

        assert await peer.refusal() == PROTOCOL
