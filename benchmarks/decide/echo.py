"""Serve and call a bare grpc.aio echo: what the transport alone costs.

No decoding, no deadline arithmetic, no spans: bytes in, bytes out, in a process of its own.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.decide.timing import Timing, timing_of
from detent_cli.stack import HOST, free_port

PATH = "/bench.Echo/Echo"
SIZE_BYTES = 4
BYTES_MAX = 16 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", BYTES_MAX),
    ("grpc.max_send_message_length", BYTES_MAX),
]
CONNECT_S_MAX = 20.0


async def _answer(request: bytes, _context: Any) -> bytes:
    """Give as many bytes as the first four of the request say."""
    return bytes(int.from_bytes(request[:SIZE_BYTES], "little"))


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    server = grpc.aio.server(options=OPTIONS)
    method: Any = grpc.unary_unary_rpc_method_handler(_answer)
    service, name = PATH.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: method}),)
    )
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


class Echo:
    """Calls the echo with payloads of the sizes that a decision has."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Use a connected channel."""
        self._call: Any = channel.unary_unary(PATH)
        self._times_us: dict[tuple[int, int], list[float]] = {}

    async def measure(self, request_bytes: int, answer_bytes: int, *, count: int) -> None:
        """Make some calls one after the other and keep their times."""
        payload = answer_bytes.to_bytes(SIZE_BYTES, "little")
        payload += bytes(max(0, request_bytes - SIZE_BYTES))
        times_us = self._times_us.setdefault((request_bytes, answer_bytes), [])
        for _ in range(count):
            started_ns = time.perf_counter_ns()
            await self._call(payload)
            times_us.append((time.perf_counter_ns() - started_ns) / 1_000)

    def timing(self, request_bytes: int, answer_bytes: int) -> Timing:
        """Summarise the calls of one pair of sizes."""
        return timing_of(self._times_us[request_bytes, answer_bytes])

    def forget(self) -> None:
        """Drop what was measured so far: it was the warm-up."""
        self._times_us.clear()


@contextlib.asynccontextmanager
async def running_echo() -> AsyncIterator[Echo]:
    """Start the echo's process, connect, and end it."""
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220, S603  Our own module, once, before the run.
        [sys.executable, "-m", "benchmarks.decide.echo", str(port)],
        env=os.environ | {"GRPC_VERBOSITY": "ERROR"},
        stdin=subprocess.DEVNULL,
    )
    try:
        async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=OPTIONS) as channel:
            async with asyncio.timeout(CONNECT_S_MAX):
                await channel.channel_ready()
            yield Echo(channel)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    # Ended by a signal, in the middle of waiting: that is its normal end.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1])))
