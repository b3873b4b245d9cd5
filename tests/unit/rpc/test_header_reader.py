"""Proves the walk over header blocks against the decoder of the `hpack` package."""

import pytest
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from detent.rpc.http2.header_reader import HeaderReader

LIMIT = 32 * 1024
names = st.one_of(
    st.sampled_from([":path", ":method", "content-type", "te", "grpc-timeout", "x-a", "x-b"]),
    st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12),
)
values = st.one_of(
    st.sampled_from(["", "POST", "application/grpc", "/t.S/Echo", "1S"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=60),
    st.integers(200, 3_000).map("v".__mul__),
)


@st.composite
def header(draw: st.DrawFn) -> HeaderTuple:
    kind = draw(st.sampled_from([HeaderTuple, NeverIndexedHeaderTuple]))
    return kind(draw(names), draw(values))


block_plans = st.tuples(
    st.lists(header(), max_size=8),
    st.booleans(),
    st.lists(st.sampled_from([0, 40, 100, 1_000, 4_096]), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(plans=st.lists(block_plans, min_size=1, max_size=8))
def test_reader_reads_what_the_published_decoder_reads(
    plans: list[tuple[list[HeaderTuple], bool, list[int]]],
) -> None:
    """Many blocks on one connection, with changes of the table between them."""
    encoder, decoder, reader = Encoder(), Decoder(LIMIT), HeaderReader(LIMIT)
    for headers, is_coded, sizes in plans:
        for size in sizes:
            # To set it to what it is would make this encoder forget to say so.
            if size != encoder.header_table_size:
                encoder.header_table_size = size
        block = encoder.encode(headers, huffman=is_coded)
        expected = {str(name): str(value) for name, value in decoder.decode(block)}

        assert reader.read(block) == expected
        table = [(str(n), str(v)) for n, v in reader._entries]
        assert table == [(n.decode(), v.decode()) for n, v in decoder.header_table.dynamic_entries]
        assert reader._bytes == sum(reader._sizes) <= 4_096


@settings(max_examples=400, deadline=None)
@given(blocks=st.lists(st.binary(max_size=80), max_size=4))
def test_reader_and_decoder_agree_on_any_bytes(blocks: list[bytes]) -> None:
    """Either both refuse, and by an error of HPACK, or both read the same."""
    decoder, reader = Decoder(LIMIT), HeaderReader(LIMIT)
    for block in blocks:
        try:
            expected = {str(name): str(value) for name, value in decoder.decode(block)}
        except (HPACKError, IndexError):
            with pytest.raises(HPACKError):
                reader.read(block)
            return
        assert reader.read(block) == expected


def literal(first: int, name: bytes, value: bytes) -> bytes:
    return bytes([first, len(name)]) + name + bytes([len(value)]) + value


# Bytes of HPACK's own shapes reach further into the walk than any bytes do.
short = st.binary(max_size=5)
shaped = st.lists(
    st.one_of(
        st.integers(0x80, 0xFF).map(lambda first: bytes([first])),
        st.integers(0x20, 0x3F).map(lambda first: bytes([first])),
        st.builds(literal, st.sampled_from([0x00, 0x10, 0x40]), short, short),
        st.tuples(st.integers(0x41, 0x7F), st.integers(0, 0xFF)).map(bytes),
        st.just(b"\xff" * 10),
        st.just(b"\x7f\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(blocks=st.lists(shaped, max_size=4))
def test_reader_and_decoder_agree_on_shapes_of_hpack(blocks: list[bytes]) -> None:
    test_reader_and_decoder_agree_on_any_bytes.hypothesis.inner_test(blocks)


def test_headers_over_the_limit_are_refused_and_those_below_it_read() -> None:
    """A short block that names one long entry again and again: the header bomb."""
    reader, encoder = HeaderReader(LIMIT), Encoder()
    first = encoder.encode([("x-long", "v" * 3_900)])
    assert len(reader.read(first + b"\xbe" * 7)) == 1

    with pytest.raises(HPACKError, match="headers of over"):
        reader.read(b"\xbe" * 9)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x82\x20", id="size-after-a-header"),
        pytest.param(b"\x3f\xe2\x1f", id="size-of-4097"),
        pytest.param(b"\x00\x01\xff\x00", id="not-utf-8"),
        pytest.param(b"\x00\x81\x00\x00", id="huffman-that-does-not-end"),
        pytest.param(b"\xff" * 20, id="a-number-without-an-end"),
        pytest.param(b"\x80", id="index-0"),
        pytest.param(b"\x40", id="nothing-after-the-first-byte"),
    ],
)
def test_malformed_block_is_refused(block: bytes) -> None:
    with pytest.raises(HPACKError):
        HeaderReader(LIMIT).read(block)


def test_last_of_a_name_counts() -> None:
    block = Encoder().encode([("x-a", "1"), ("x-a", "2")])

    assert HeaderReader(LIMIT).read(block) == {"x-a": "2"}


def test_a_block_of_places_is_read_anew_when_the_table_has_changed() -> None:
    """The same bytes mean something else once another entry stands in front."""
    encoder, reader = Encoder(), HeaderReader(LIMIT)
    reader.read(encoder.encode([(":path", "/t.S/Echo"), ("x-a", "1")], huffman=False))
    block = encoder.encode([(":path", "/t.S/Echo"), ("x-a", "1")], huffman=False)
    before = reader.read(block)
    again = reader.read(block)
    reader.read(encoder.encode([("x-b", "2")], huffman=False))
    after = reader.read(block)

    assert min(block) >= 0x80
    assert before == {":path": "/t.S/Echo", "x-a": "1"}
    assert again is before
    assert after == {"x-a": "1", "x-b": "2"}
