"""Proves that no sequence of frames, and no bytes, break the server or leave anything behind."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rpc.peers import PREFACE, JudgedPeer, head, prefixed
from tests.unit.rpc.served import Serving

PATHS = ["Echo", "Big", "Slow", "Fail", "Collect", "Early", "Hold", "Many", "Chat", "None"]
stream_ids = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1])
flags = st.one_of(st.sampled_from([0, 1, 4, 5, 4, 5, 8, 12, 13, 32]), st.integers(0, 255))
payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [prefixed(b""), prefixed(b"12"), prefixed(b"3,4"), prefixed(b"x", 1), bytes(4)]
    ),
    st.integers(0, 2**31 - 1).map(lambda number: number.to_bytes(4)),
    st.tuples(st.integers(0, 7), st.integers(0, 2**32 - 1)).map(
        lambda pair: pair[0].to_bytes(2) + pair[1].to_bytes(4)
    ),
    st.just(bytes(8)),
)


def written(kind: int, flag: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flag]) + stream_id.to_bytes(4) + payload


@st.composite
def opened(draw: st.DrawFn) -> bytes:
    """Give a head that is well-formed, so that calls get to be under way."""
    more = draw(st.sampled_from([{}, {"grpc_timeout": "1m"}, {"grpc_encoding": "gzip"}]))
    path = f"/t.S/{draw(st.sampled_from(PATHS))}"
    # Without a table, so that it can be read wherever it comes.
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in head(path, **more)
    )
    flag = draw(st.sampled_from([4, 4, 5, 0]))
    return written(1, flag, draw(st.sampled_from([1, 3, 5, 7])), block)


frames = st.one_of(
    opened(),
    st.builds(written, st.integers(0, 10), flags, stream_ids, payloads),
    st.builds(written, st.just(0), st.sampled_from([0, 1]), stream_ids, payloads),
)


async def assert_survives(content: bytes, cut: int) -> None:
    async with Serving(unary_wait_s=0.01) as serving:
        _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        try:
            writer.write(content[:cut])
            await asyncio.sleep(0.001)
            writer.write(content[cut:])
            await asyncio.sleep(0.001)
            async with await JudgedPeer.connect(serving.port) as good:
                assert (await good.call("/t.S/Big", b"10")).status == 0
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(frames, max_size=14), cut=st.integers(0, 200))
def test_any_frames_leave_nothing_behind(
    quiet: None, loop_factory: type, parts: list[bytes], cut: int
) -> None:
    greeting = PREFACE + written(4, 0, 0, b"")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(assert_survives(greeting + b"".join(parts), len(greeting) + cut))


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=300), greets=st.booleans())
def test_any_bytes_leave_nothing_behind(
    quiet: None, loop_factory: type, content: bytes, greets: bool
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(assert_survives((PREFACE if greets else b"") + content, 30))


def test_check_of_what_is_left_can_fail() -> None:
    """The control: a count that leaks is found."""

    async def leaking() -> None:
        async with Serving() as serving:
            serving.shared.buffered_bytes -= 1

    with pytest.raises(AssertionError):
        asyncio.run(leaking())
