"""Proves that messages come out of bytes whatever way the bytes were cut."""

import gzip
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rpc.peers import prefixed

from detent.rpc.http2.messages import MessageReader, TooLong, Unreadable
from detent.rpc.http2.messages import prefixed as our_prefixed

LIMIT = 2_000
PACKERS = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(st.tuples(st.binary(max_size=300), st.booleans()), min_size=0, max_size=8),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    encoding=st.sampled_from(sorted(PACKERS)),
)
def test_any_cut_gives_the_same_messages(
    messages: list[tuple[bytes, bool]], cuts: list[int], encoding: str
) -> None:
    packed = PACKERS[encoding]
    content = b"".join(
        prefixed(packed(message), 1) if is_packed and encoding != "identity" else prefixed(message)
        for message, is_packed in messages
    )
    reader, found, at = MessageReader(encoding, LIMIT), [], 0
    while at < len(content):
        step = cuts[at % len(cuts)]
        found += reader.take(content[at : at + step])
        at += step

    assert found == [message for message, _ in messages]
    assert reader.held == 0


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=40), max_size=6), encoding=st.sampled_from(sorted(PACKERS))
)
def test_any_bytes_are_read_or_refused(parts: list[bytes], encoding: str) -> None:
    reader, given_bytes = MessageReader(encoding, 64), 0
    for part in parts:
        given_bytes += len(part)
        try:
            list(reader.take(part))
        except (TooLong, Unreadable):
            return
        assert reader.held <= given_bytes


def test_prefix_is_that_of_grpc() -> None:
    assert our_prefixed(b"abc") == struct.pack(">BL", 0, 3) + b"abc"


@pytest.mark.parametrize("cuts", [[5], [100], [1, 4], [4, 1], [3, 90]], ids=str)
def test_message_over_the_limit_is_refused_by_its_prefix(cuts: list[int]) -> None:
    reader = MessageReader("identity", LIMIT)
    assert list(reader.take(prefixed(b"x" * LIMIT))) == [b"x" * LIMIT]
    content = prefixed(b"x" * (LIMIT + 1))
    for cut in cuts[:-1]:
        assert list(reader.take(content[:cut])) == []
        content = content[cut:]

    with pytest.raises(TooLong):
        list(reader.take(content[: cuts[-1]]))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bomb_is_refused_without_being_read_out(encoding: str) -> None:
    fits = prefixed(PACKERS[encoding](bytes(LIMIT)), 1)
    assert list(MessageReader(encoding, LIMIT).take(fits)) == [bytes(LIMIT)]
    bomb = prefixed(PACKERS[encoding](bytes(LIMIT + 1)), 1)

    with pytest.raises(TooLong):
        list(MessageReader(encoding, LIMIT).take(bomb))


def test_bombs_come_out_one_by_one() -> None:
    """So that who counts may stop at any of them."""
    bombs = prefixed(gzip.compress(bytes(LIMIT)), 1) * 100
    given_one_by_one = iter(MessageReader("gzip", LIMIT).take(bombs))

    assert next(given_one_by_one) == bytes(LIMIT)


@pytest.mark.parametrize(
    ("encoding", "content", "flag"),
    [
        pytest.param("identity", b"abc", 1, id="packed-without-an-encoding"),
        pytest.param("gzip", b"abc", 2, id="unknown-flag"),
        pytest.param("gzip", b"abc", 1, id="no-gzip"),
        pytest.param("gzip", b"", 1, id="nothing"),
        pytest.param("gzip", gzip.compress(b"abc")[:-3], 1, id="cut-off"),
        pytest.param("gzip", gzip.compress(b"abc") + b"x", 1, id="more-after-its-end"),
        pytest.param("gzip", zlib.compress(b"abc"), 1, id="deflate-as-gzip"),
        pytest.param("deflate", zlib.compress(b"abc")[:-1], 1, id="deflate-cut-off"),
    ],
)
def test_spoilt_message_is_refused(encoding: str, content: bytes, flag: int) -> None:
    with pytest.raises(Unreadable):
        list(MessageReader(encoding, LIMIT).take(prefixed(content, flag)))
