"""Run the benchmark: `python -m benchmarks.telemetry`."""

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.decide.timing import Timing
from benchmarks.inference.load import Load, Target, drive
from benchmarks.telemetry import served
from benchmarks.telemetry.parts import measure_parts
from benchmarks.telemetry.served import OFF, ON, SHARE
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import InferenceRow, InferSignalsRequest
from detent.contracts.wire import to_wire
from detent_cli.stack import HOST, free_port

PATH = "/detent.api.v1.InferenceService/InferSignals"
WIDTH = 15
TS_MS = 1_700_000_000_000
MODES = (OFF, SHARE, ON)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one mode gave.

    Attributes:
        calls_per_s: Calls per second, median over turns.
        server_cpu_us: Processor time of the server per call, microseconds, likewise.
        throughput_share: Share of the calls per second of `off` that is missing; may be
            negative where the machine was busier with other things.
        cpu_share: Share of its processor time that `off` does not spend.
    """

    calls_per_s: float
    server_cpu_us: float
    throughput_share: float
    cpu_share: float


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often all take turns.", min=1)] = 10,
    seconds: Annotated[float, typer.Option(help="How long a turn of a server is.")] = 1.0,
    in_flight: Annotated[int, typer.Option(help="Calls in flight.", min=1)] = 16,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Logs and spans go here; what lies there is removed.")
    ] = Path("out/bench/telemetry"),
) -> None:
    """Measure a span, a log line, and a served call with and without them."""
    load_before = os.getloadavg()[0]
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    parts = measure_parts(state, rounds)
    with contextlib.ExitStack() as stack:
        targets = {mode: stack.enter_context(_serving(state, mode)) for mode in MODES}
        loads = asyncio.run(_loads(targets, rounds, seconds, in_flight))
    modes = _summed(loads)
    console = Console()
    console.print(f"load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after")
    console.print(_parts_table(parts), _modes_table(modes))
    if json_file is not None:
        content = {"parts": parts, "served": modes, "load_before": load_before}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(msgspec.to_builtins(content), indent=2) + "\n")


async def _loads(
    targets: dict[str, Target], rounds: int, seconds: float, in_flight: int
) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {mode: [] for mode in targets}
    for number in range(rounds + 1):
        # Forth and back: nobody is always the one after somebody else.
        for mode, target in list(targets.items())[:: -1 if number % 2 else 1]:
            load = await drive(target, rows=1, in_flight=in_flight, seconds=seconds)
            # The first turn warms the server up.
            if number:
                loads[mode].append(load)
    return loads


@contextlib.contextmanager
def _serving(state: Path, mode: str) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, "-m", served.__name__, str(port), str(state), mode]
    with (state / f"{mode}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  Our own module.
            command, stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        yield Target(
            name=mode,
            address=f"{HOST}:{port}",
            path=PATH,
            pid=process.pid,
            request=_request,
            answered=lambda reply: 1 if reply else 0,
        )
    finally:
        process.terminate()
        process.wait()


def _request(rows: int) -> bytes:
    given = ModelInput(
        features_hash="1" * 64, ts_ms=TS_MS, snapshot_hashes=("2" * 64,), values=bytes(4 * WIDTH)
    )
    row = InferenceRow(symbol="EURUSD", model_input=given)
    query = InferSignalsRequest(binding_hash="3" * 64, rows=(row,) * rows)
    return bytes(to_wire(query).SerializeToString())


def _summed(loads: dict[str, list[Load]]) -> dict[str, Served]:
    """Take the median over turns: each turn is compared with the one of `off` beside it."""
    rates = {mode: [len(t.times_us) / t.wall_s for t in turns] for mode, turns in loads.items()}
    costs = {
        mode: [t.server_cpu_s / len(t.times_us) * 1e6 for t in turns]
        for mode, turns in loads.items()
    }

    def share(less: list[float], more: list[float]) -> float:
        pairs = zip(less, more, strict=True)
        return round(statistics.median(1 - small / large for small, large in pairs), 3)

    return {
        mode: Served(
            calls_per_s=round(statistics.median(rates[mode])),
            server_cpu_us=round(statistics.median(costs[mode]), 1),
            throughput_share=share(rates[mode], rates[OFF]),
            cpu_share=share(costs[OFF], costs[mode]),
        )
        for mode in loads
    }


def _parts_table(parts: dict[str, Timing]) -> Table:
    table = Table("part, us of processor time", "min", "p50")
    for name, timing in parts.items():
        table.add_row(name, f"{timing.min_us:.1f}", f"{timing.p50_us:.1f}")
    return table


def _modes_table(modes: dict[str, Served]) -> Table:
    table = Table("a served call", "calls/s", "server CPU us", "of calls/s", "of CPU")
    for mode, found in modes.items():
        table.add_row(
            mode,
            f"{found.calls_per_s:,.0f}",
            f"{found.server_cpu_us:.1f}",
            f"{found.throughput_share:.1%}",
            f"{found.cpu_share:.1%}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
