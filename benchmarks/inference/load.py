"""Ask one server in a closed loop: so many calls in flight, each answered before the next.

The client is the same for every server: a channel, bytes that were made before, and no decoding
while the clock runs. What came back is looked at afterwards.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec

BYTES_MAX = 16 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", BYTES_MAX),
    ("grpc.max_send_message_length", BYTES_MAX),
]
CALL_S_MAX = 20.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """States whom to ask and how.

    Attributes:
        name: Name in the tables.
        address: `host:port`.
        path: Path of the method.
        pid: The server's process; those below it count as it.
        request: Gives the bytes that ask for so many rows.
        answered: Counts the rows that an answer really answers.
    """

    name: str
    address: str
    path: str
    pid: int
    request: Callable[[int], bytes]
    answered: Callable[[bytes], int]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one stretch of calls gave.

    Attributes:
        times_us: Time of each call, microseconds.
        wall_s: How long it lasted.
        server_cpu_s: Processor time of the server's processes in it.
        client_cpu_s: Processor time of this process in it.
        unanswered_rows: Rows that were asked and not answered.
    """

    times_us: list[float]
    wall_s: float
    server_cpu_s: float
    client_cpu_s: float
    unanswered_rows: int


async def drive(target: Target, *, rows: int, in_flight: int, seconds: float) -> Load:
    """Keep so many calls in flight for some seconds."""
    payload = target.request(rows)
    times_us: list[float] = []
    replies: list[bytes] = []
    failures = 0

    async def ask(call: Any, ends_s: float) -> None:
        nonlocal failures
        while (started_s := time.perf_counter()) < ends_s:
            try:
                reply = await call(payload, timeout=CALL_S_MAX)
            except grpc.aio.AioRpcError:
                failures += 1
                continue
            times_us.append((time.perf_counter() - started_s) * 1e6)
            replies.append(reply)

    async with grpc.aio.insecure_channel(target.address, options=OPTIONS) as channel:
        call: Any = channel.unary_unary(target.path)
        # The first calls of a channel connect and are nobody's latency.
        for _ in range(3):
            await call(payload, timeout=CALL_S_MAX, wait_for_ready=True)
        server_cpu_s, client_cpu_s = cpu_s(target.pid), time.process_time()
        started_s = time.perf_counter()
        await asyncio.gather(*(ask(call, started_s + seconds) for _ in range(in_flight)))
        wall_s = time.perf_counter() - started_s
        client_cpu_s = time.process_time() - client_cpu_s
        server_cpu_s = cpu_s(target.pid) - server_cpu_s
    missing = sum(rows - target.answered(reply) for reply in replies)
    return Load(
        times_us=times_us,
        wall_s=wall_s,
        server_cpu_s=server_cpu_s,
        client_cpu_s=client_cpu_s,
        unanswered_rows=missing + failures * rows,
    )


def cpu_s(pid: int) -> float:
    """Read the processor time that a process and those below it have used so far, in seconds."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
            one = int(folder.name)
            # The parent is the 4th of all fields; user and kernel time are the 14th and 15th.
            parents[one], ticks[one] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {one for one, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[one] for one in family) / os.sysconf("SC_CLK_TCK")
