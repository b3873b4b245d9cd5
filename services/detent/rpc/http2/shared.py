"""Hold what the connections of one server share: routes, limits, and what is counted."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from detent.rpc.http2.stream import Route


class Served(Protocol):
    """Is what a listener asks of a connection."""

    is_greeted: bool
    begun_s: float

    def announce_end(self) -> None:
        """Ask the peer to begin no further call."""

    def leave(self) -> None:
        """Say the last word and close."""

    def abort(self) -> None:
        """Close at once."""

    def expire(self, now_s: float) -> None:
        """End the calls whose callers wait no longer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds what peers may make a process hold.

    Attributes:
        message_bytes_max: Bytes of one message.
        calls_max: Calls under way at once, over all connections; further ones are refused.
        unary_wait_s: What a call with one request gets that names no deadline, seconds.
        buffered_bytes_max: Bytes of requests that nobody has read yet, over all connections.
        connections_max: Connections at once; further ones are closed.
    """

    message_bytes_max: int
    calls_max: int
    unary_wait_s: float
    buffered_bytes_max: int = 256 * 1024 * 1024
    connections_max: int = 4_096


class Shared:
    """Holds what the connections of a server have in common."""

    def __init__(
        self, routes: Mapping[str, Route], limits: Limits, clock: Callable[[], float]
    ) -> None:
        """Start without connections.

        Args:
            routes: Who serves which path.
            limits: What peers may make the process hold.
            clock: Monotonic clock in seconds.
        """
        self.routes = routes
        self.limits = limits
        self.clock = clock
        self.connections: set[Served] = set()
        self.calls = 0
        self.buffered_bytes = 0
        self.is_idle = asyncio.Event()
        self.on_work: Callable[[], None] = lambda: None

    def begin_call(self) -> None:
        """Count a call; it counts until its handler is done."""
        self.calls += 1
        self.is_idle.clear()
        self.on_work()

    def end_call(self) -> None:
        """Count it no longer."""
        self.calls -= 1
        if not self.calls:
            self.is_idle.set()
