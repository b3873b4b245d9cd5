"""Keeps a process off every network but the loopback: whoever tries to leave it gets an error.

It sees what goes through Python's own sockets. gRPC opens its own; for these the test of the
inference process looks at what the kernel lists.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

WATCHED = frozenset({"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"})
LOCAL_NAMES = frozenset({"", "localhost", "0.0.0.0", "::"})


class LeftTheMachine(RuntimeError):
    """A test, or what it tests, tried to reach another machine."""


def is_local(host: object) -> bool:
    """Say whether a host is this machine."""
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    if text in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return text == socket.gethostname()


def stay_on_the_machine() -> None:
    """Refuse every address that is not the loopback's, from here on; it cannot be taken back."""
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in WATCHED:
        return
    address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    if event != "socket.getaddrinfo":
        if not isinstance(address, tuple):
            # A Unix socket: a file of this machine.
            return
        address = address[0]
    if not is_local(address):
        raise LeftTheMachine(f"{event} to {address!r}: tests stay on the loopback")
