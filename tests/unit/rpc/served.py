"""Serves made-up methods over the real transport, and checks that nothing is left afterwards."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from detent.rpc.http2.listener import Listener
from detent.rpc.http2.shared import Limits, Shared
from detent.rpc.http2.stream import Ended, Route, Stream

PATIENCE_S = 10.0
MESSAGE_BYTES_MAX = 1024 * 1024


def limits(**changes: Any) -> Limits:
    """Give limits for tests, some of them changed."""
    given = {"message_bytes_max": MESSAGE_BYTES_MAX, "calls_max": 100, "unary_wait_s": 5.0}
    return Limits(**(given | changes))


class Methods:
    """Answers calls, and remembers what became of them."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled_s: list[float] = []
        self.may_read = asyncio.Event()
        self.got: list[bytes] = []

    def routes(self) -> dict[str, Route]:
        """Give one route of every kind."""
        return {
            "/t.S/Echo": Route(serve=self.echo),
            "/t.S/Big": Route(serve=self.big),
            "/t.S/Slow": Route(serve=self.slow),
            "/t.S/Fail": Route(serve=self.fail),
            "/t.S/Verbose": Route(serve=self.verbose),
            "/t.S/Broken": Route(serve=self.broken),
            "/t.S/Collect": Route(serve=self.collect, takes_stream=True),
            "/t.S/Early": Route(serve=self.early, takes_stream=True),
            "/t.S/Hold": Route(serve=self.hold, takes_stream=True),
            "/t.S/Many": Route(serve=self.many, gives_stream=True),
            "/t.S/Chat": Route(serve=self.chat, takes_stream=True, gives_stream=True),
        }

    async def echo(self, stream: Stream) -> Ended:
        """Answer with the request."""
        return Ended(answer=stream.message)

    async def big(self, stream: Stream) -> Ended:
        """Answer with as many bytes as were asked for, no two blocks of them alike."""
        return Ended(answer=counted(int(stream.message)))

    async def slow(self, _stream: Stream) -> Ended:
        """Never answer."""
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled_s.append(time.monotonic())
            raise
        return Ended()

    async def fail(self, _stream: Stream) -> Ended:
        """Refuse, with words and details that need care on the wire."""
        details = (("x-plain", "a b"), ("x-some-bin", bytes(range(256))))
        return Ended(code=9, message="100 % böse\n\u2028 \U0001f4a5", metadata=details)

    async def verbose(self, _stream: Stream) -> Ended:
        """Refuse with more words than a frame holds."""
        return Ended(code=9, message="v" * 40_000)

    async def broken(self, _stream: Stream) -> Ended:
        """Break."""
        raise ValueError("secret")

    async def collect(self, stream: Stream) -> Ended:
        """Answer with the lengths of all requests."""
        sizes = [len(message) async for message in stream.messages()]
        return Ended(answer=repr(sizes).encode())

    async def early(self, stream: Stream) -> Ended:
        """Answer after the first request, whatever else comes."""
        async for message in stream.messages():
            return Ended(answer=message)
        return Ended(code=3, message="nothing came")

    async def hold(self, stream: Stream) -> Ended:
        """Read nothing until told so; then count."""
        self.started += 1
        await self.may_read.wait()
        return await self.collect(stream)

    async def many(self, stream: Stream) -> Ended:
        """Give some messages of some bytes: `count,bytes`."""
        count, size = map(int, stream.message.split(b","))
        for number in range(count):
            await stream.send(bytes([number % 256]) * size)
        return Ended()

    async def chat(self, stream: Stream) -> Ended:
        """Say everything back."""
        async for message in stream.messages():
            self.got.append(message)
            await stream.send(message)
        return Ended()


def counted(size: int) -> bytes:
    """Give bytes whose order can be checked."""
    return b"".join(number.to_bytes(4) for number in range(size // 4 + 1))[:size]


class Serving:
    """Owns a listener; on leaving, no call, no byte and no error of it may be left."""

    def __init__(self, host: str = "127.0.0.1", **changes: Any) -> None:
        self.methods = Methods()
        self.listener = Listener(self.methods.routes(), limits(**changes), time.monotonic)
        self.host = host
        self.port = 0
        self.errors: list[dict[str, Any]] = []

    @property
    def shared(self) -> Shared:
        """Give what the connections share."""
        return self.listener._shared

    @property
    def target(self) -> str:
        """Give the address as clients name it."""
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._note(context))
        self.port = await self.listener.start(self.host, 0)
        return self

    def _note(self, context: dict[str, Any]) -> None:
        """Keep what went wrong, but for what published clients do at the end of another's loop."""
        if "PollerCompletionQueue" not in context["message"]:
            self.errors.append(context)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                await eventually(lambda: not self.shared.calls)
                assert self.shared.buffered_bytes == 0
        finally:
            await self.listener.drain(0)
        if kind is None:
            await eventually(lambda: not self.shared.connections)
            assert self.shared.calls == 0
            assert self.shared.buffered_bytes == 0
            assert not self.errors, self.errors


async def eventually(holds: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    until_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until_s, "waited in vain"
        await asyncio.sleep(0.002)
