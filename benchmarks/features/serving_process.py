"""Start what is measured, each in a process of its own: a feature server and a bare echo.

The echo is taught answers by request: it gives exactly the bytes that the service gave, and
decodes nothing. `python -m benchmarks.features.serving_process PORT` serves it.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.decide.echo import CONNECT_S_MAX, OPTIONS
from detent_cli.stack import HOST, POLL_S, READY_S_MAX, free_port

ASK = "/detent.api.v1.FeatureService/GetFeatureSnapshots"
INGEST = "/detent.api.v1.FeatureService/IngestMarketData"
FEATURE = "detent.api.v1.FeatureService"
ECHO = "/bench.TaughtEcho/Answer"
TEACH = "/bench.TaughtEcho/Teach"
SIZE_BYTES = 4
PATIENCE_S = 600.0
KIB = 1_024


class Peer:
    """Calls one process with bytes, and says what it took of the machine.

    Attributes:
        channel: A connected channel to it.
    """

    def __init__(self, channel: grpc.aio.Channel, pid: int) -> None:
        """Use a connected channel to a process."""
        self.channel = channel
        self._pid = pid

    def method(self, path: str) -> Any:
        """Give a method that takes and gives bytes as they are."""
        return self.channel.unary_unary(path)

    async def stream(self, path: str, messages: Iterator[bytes]) -> bytes:
        """Send a stream of messages and give the one answer."""

        async def each() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        call: Any = self.channel.stream_unary(path)
        return bytes(await call(each(), timeout=PATIENCE_S))

    @property
    def cpu_s(self) -> float:
        """Give the CPU time that the process used so far, user and system, seconds."""
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mib(self) -> float:
        """Give the resident memory of the process, MiB."""
        pages = Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / KIB / KIB


@contextlib.asynccontextmanager
async def running_features(artifacts: Path, log: Path) -> AsyncIterator[Peer]:
    """Run a feature server over a folder of artifacts, its state in memory."""
    from detent.rpc.probe import is_serving  # noqa: PLC0415 - as in the stack

    port = free_port()
    environment = {
        "DETENT_FEATURE_LISTEN": f"{HOST}:{port}",
        "DETENT_FEATURE_ARTIFACTS_DIR": str(artifacts),
    }
    words = [sys.executable, "-m", "detent.servers.feature.main"]
    async with _running(words, environment, port, log) as peer:
        ends_s = time.monotonic() + READY_S_MAX
        while not await asyncio.to_thread(is_serving, f"{HOST}:{port}", FEATURE):
            assert time.monotonic() < ends_s, f"the feature server does not serve: see {log}"
            await asyncio.sleep(POLL_S)
        yield peer


@contextlib.asynccontextmanager
async def running_taught_echo(log: Path) -> AsyncIterator[Peer]:
    """Run the echo; it knows no answers yet."""
    port = free_port()
    words = [sys.executable, "-m", "benchmarks.features.serving_process", str(port)]
    async with _running(words, {}, port, log) as peer:
        yield peer


@contextlib.asynccontextmanager
async def _running(
    words: list[str], environment: dict[str, str], port: int, log: Path
) -> AsyncIterator[Peer]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  Our own module, once, before the run.
            words,
            env=os.environ | {"GRPC_VERBOSITY": "ERROR"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=OPTIONS) as channel:
            async with asyncio.timeout(CONNECT_S_MAX):
                await channel.channel_ready()
            yield Peer(channel, process.pid)
    finally:
        process.terminate()
        process.wait()


async def teach(echo: Peer, request: bytes, answer: bytes) -> None:
    """Tell the echo what to answer to a request."""
    await echo.method(TEACH)(len(request).to_bytes(SIZE_BYTES, "little") + request + answer)


async def serve_echo(port: int) -> None:
    """Answer what was taught until the process is ended."""
    answers: dict[bytes, bytes] = {}

    async def answer(request: bytes, _context: Any) -> bytes:
        return answers[request]

    async def learn(lesson: bytes, _context: Any) -> bytes:
        size = SIZE_BYTES + int.from_bytes(lesson[:SIZE_BYTES], "little")
        answers[lesson[SIZE_BYTES:size]] = lesson[size:]
        return b""

    server = grpc.aio.server(options=OPTIONS)
    for path, serve in ((ECHO, answer), (TEACH, learn)):
        service, name = path.strip("/").split("/")
        method: Any = grpc.unary_unary_rpc_method_handler(serve)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {name: method}),)
        )
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    # Ended by a signal, in the middle of waiting: that is its normal end.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_echo(int(sys.argv[1])))
