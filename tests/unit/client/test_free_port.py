"""Where `detent up` takes its ports from."""

import socket

import pytest

from detent.contracts.errors import ServiceUnavailable
from detent_cli import stack


def test_a_port_lies_below_those_of_connections_and_can_be_listened_on() -> None:
    """Linux takes the ports of connections from 32768 on."""
    for _ in range(100):
        port = stack.free_port()
        with socket.socket() as listener:
            listener.bind((stack.HOST, port))
        assert 20_000 <= port < 32_768


def test_a_port_that_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((stack.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(stack, "PORTS", range(port, port + 1))

        with pytest.raises(ServiceUnavailable, match="is free"):
            stack.free_port()
