"""Listen, keep the time of all calls, drain."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Mapping

from detent.rpc.http2.connection import Connection
from detent.rpc.http2.shared import Limits, Shared
from detent.rpc.http2.stream import Route

# How late a call may be ended that its caller no longer waits for; callers keep their own time.
SWEEP_S = 0.05
GREETING_S_MAX = 10.0
# What peers get to hear that we leave, before the connection is closed.
FAREWELL_S = 0.02
BACKLOG = 1_024
# Of the newer kind of address, the one that takes callers of both kinds.
ANY = "::"
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listener:
    """Serves routes on one address from its start to its drain."""

    def __init__(
        self, routes: Mapping[str, Route], limits: Limits, clock: Callable[[], float]
    ) -> None:
        """Prepare; nothing listens yet."""
        self._shared = Shared(routes, limits, clock)
        self._shared.on_work = self._plan_sweep
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def calls(self) -> int:
        """Count the calls under way."""
        return self._shared.calls

    async def start(self, host: str, port: int) -> int:
        """Listen and give the port.

        Raises:
            OSError: The address is taken or cannot be bound.
        """
        loop = asyncio.get_running_loop()
        sockets = _bound(host, port)
        for bound in sockets:
            server = await loop.create_server(
                lambda: Connection(self._shared), sock=bound, backlog=BACKLOG
            )
            self._servers.append(server)
        self._plan_sweep()
        return int(sockets[0].getsockname()[1])

    async def drain(self, grace_s: float) -> None:
        """Take no new connections, let calls under way finish within the grace, close."""
        for server in self._servers:
            server.close()
        connections = self._shared.connections
        for connection in list(connections):
            connection.announce_end()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + grace_s
        if self._shared.calls:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shared.is_idle.wait(), grace_s)
        for connection in list(connections):
            connection.leave()
        until_s = max(until_s, loop.time() + FAREWELL_S)
        # What was said last may still be on its way, to somebody who reads slowly.
        while (connections or self._shared.calls) and loop.time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(FAREWELL_S / 4)
        for connection in list(connections):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()

    def _plan_sweep(self) -> None:
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(SWEEP_S, self._expire)

    def _expire(self) -> None:
        """End what nobody waits for; one timer serves all calls, while there are any."""
        self._sweep = None
        now_s = self._shared.clock()
        is_silent = False
        for connection in list(self._shared.connections):
            connection.expire(now_s)
            if not connection.is_greeted:
                is_silent = True
                if now_s - connection.begun_s > GREETING_S_MAX:
                    connection.abort()
        if self._shared.calls or is_silent:
            self._plan_sweep()


def _bound(host: str, port: int) -> list[socket.socket]:
    """Bind every address that a host has here, all to the same port."""
    bound: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in _addresses(host):
        wanted = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_listening(family, address, wanted))
        except OSError as error:
            if error.errno not in NOT_HERE:
                for opened in bound:
                    opened.close()
                raise
            # `localhost` has an address of the newer kind where the machine has none.
            missing = error
    if not bound:
        raise missing or OSError(f"{host} has no address")
    return bound


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    name = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(name or ANY, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Once each, in the order of the resolver.
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listening(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # With the protocol named, or asyncio leaves what it accepts to wait for acknowledgements.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # For peers whose machine is gone without a word.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != ANY))
        opened.bind((address, port))
        opened.settimeout(0)
    except OSError:
        opened.close()
        raise
    return opened
