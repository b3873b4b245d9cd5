"""Proves the heads and tails that are written, and what is read of heads."""

from urllib.parse import unquote

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from detent.rpc.http2 import heads
from detent.rpc.http2.opening import no_grpc, opening_of
from detent.rpc.http2.stream import Ended, Route, Stream


async def nobody(_stream: Stream) -> Ended:
    return Ended()


ROUTES = {"/t.S/Echo": Route(serve=nobody)}


@given(message=st.text(st.characters(blacklist_categories=["Cs"]), max_size=80))
def test_message_is_percent_encoded_and_comes_back(message: str) -> None:
    ended = dict(Decoder().decode(heads.tail(3, message, ())))

    text = ended.get("grpc-message", "")
    assert unquote(text) == message
    assert all(" " <= character <= "~" for character in text)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("99999999S", 99_999_999.0),
        ("250m", 0.25),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("0m", 0.0),
    ],
)
def test_timeout_is_read(text: str, expected_s: float) -> None:
    assert heads.timeout_s_of({"grpc-timeout": text}) == pytest.approx(expected_s)


@pytest.mark.parametrize("text", ["", "1", "S", "123456789S", "-1S", "1.5S", "1 S", "1s", "٣S"])
def test_timeout_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        heads.timeout_s_of({"grpc-timeout": text})
    opening = opening_of({":path": "/t.S/Echo", "grpc-timeout": text}, ROUTES)
    assert isinstance(opening, Ended)
    assert opening.code == 3


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/grpc", None),
        ("application/grpc+proto", None),
        ("application/grpc; charset=utf-8", None),
        ("application/grpc-web", 415),
        ("application/grpcx", 415),
        ("application/json", 415),
        ("text/application/grpc", 415),
        ("", 415),
    ],
)
def test_content_type_of_another_protocol_is_refused(kind: str, status: int | None) -> None:
    refused = no_grpc({":path": "/", ":method": "POST", "content-type": kind})

    assert (refused and refused[0]) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({":method": "POST"}, 400),
        ({":method": "GET", ":path": "/", "content-type": "application/grpc"}, 405),
    ],
)
def test_request_of_another_kind_is_refused(headers: dict[str, str], status: int) -> None:
    refused = no_grpc(headers)

    assert refused is not None
    assert refused[0] == status
