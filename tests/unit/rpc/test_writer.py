"""What one turn of the event loop gives to a peer leaves together, whole and in order."""

import asyncio
from typing import cast

import pytest

from detent.rpc.http2.writer import AT_ONCE_BYTES, Writer


class Socket:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, content: bytes) -> None:
        self.writes.append(content)

    def is_closing(self) -> bool:
        return self.is_closed


@pytest.fixture(name="socket")
def _socket() -> Socket:
    return Socket()


def writer_to(socket: Socket) -> Writer:
    return Writer(cast("asyncio.Transport", socket), asyncio.get_running_loop())


async def test_frames_of_one_turn_are_one_write_in_their_order(socket: Socket) -> None:
    writer = writer_to(socket)
    for part in (b"a", b"b", b"c"):
        writer.write(part)
    kept = list(socket.writes)
    await asyncio.sleep(0)
    writer.write(b"d")
    await asyncio.sleep(0)

    assert kept == []
    assert socket.writes == [b"abc", b"d"]


async def test_much_is_written_at_once_behind_what_came_before(socket: Socket) -> None:
    writer = writer_to(socket)
    writer.write(b"a")
    writer.write(bytes(AT_ONCE_BYTES))
    written = list(socket.writes)
    writer.write(b"z")
    await asyncio.sleep(0)

    assert written == [b"a" + bytes(AT_ONCE_BYTES)]
    assert socket.writes[1:] == [b"z"]


async def test_flush_writes_now_and_only_once(socket: Socket) -> None:
    writer = writer_to(socket)
    writer.write(b"a")
    writer.flush()
    await asyncio.sleep(0)

    assert socket.writes == [b"a"]


async def test_nothing_is_written_to_a_socket_that_closes(socket: Socket) -> None:
    writer = writer_to(socket)
    writer.write(b"a")
    socket.is_closed = True
    await asyncio.sleep(0)

    assert socket.writes == []
