"""Run the benchmark: `python -m benchmarks.shadow`."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.decide.market import build_bench_artifact
from benchmarks.decide.run import WARM_BARS
from benchmarks.decide.timing import Timing, timing_of
from benchmarks.decide.workload import DEADLINE_S, Strategist
from detent.contracts.binding import ModelBinding
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient, read_binding

SCHEMA = "detent.benchmark.shadow.v1"
# Rows of a call, calls of one side in one burst, and bursts in one round: short bursts as at the
# close of a bar and long ones. The 99th percentile of few calls is their slowest, so that short
# bursts come more often.
SIZES = ((1, 20, 4), (1, 150, 1), (64, 5, 8), (64, 30, 2))
# A shadow that is behind would be the load of both sides.
SETTLE_S_MIN, SETTLE_S_PER_CALL = 1.0, 0.01
RESAMPLES, SEED = 2_000, 20_260_101
SIDES = ("off", "on")
ROWS_MAX = {"off": "0", "on": "20000"}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was measured of one size of calls at one pace.

    Attributes:
        rows: Rows of a call.
        calls_in_burst: Calls of each side without a pause.
        off: Calls to the process that asks no shadow.
        on: Calls to the process that asks one about every bar.
        p50_ratio: Median of `on` over that of `off`.
        p99_ratio: The same of the 99th percentiles.
        p99_low: Lower end of 95% of that ratio, bursts drawn again.
        p99_high: Upper end.
    """

    rows: int
    calls_in_burst: int
    off: Timing
    on: Timing
    p50_ratio: float
    p99_ratio: float
    p99_low: float
    p99_high: float


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often the bursts of a round come.", min=4)] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Ledgers go here; what lies there is removed.")
    ] = Path("out/bench/shadow"),
) -> None:
    """Compare decisions with a shadow behind them and without, in turns on one machine."""
    load_before = os.getloadavg()[0]
    shutil.rmtree(state, ignore_errors=True)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bursts = rounds * sum(often for _, _, often in SIZES)
        task = progress.add_task("bursts", total=bursts)
        found = asyncio.run(_measured(state.resolve(), rounds, lambda: progress.advance(task)))
    _show(found, rounds, load_before)
    if json_file is not None:
        facts = {"schema": SCHEMA, "rounds": rounds, "load_before": load_before}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        results = {"found": [msgspec.to_builtins(one) for one in found]}
        json_file.write_text(json.dumps(facts | results, indent=2) + "\n", encoding="utf-8")


async def _measured(state: Path, rounds: int, step: Callable[[], None]) -> list[Found]:
    artifact_dir = build_bench_artifact(state / "artifacts")
    behind = Stack(StackOptions(artifact_dir=artifact_dir, state_dir=state / "behind"))
    stacks = {side: _policy(behind, artifact_dir, state / side, side) for side in SIDES}
    try:
        for name in ("feature", "inference"):
            behind.start(name)
        for stack in stacks.values():
            stack.start("policy")
        binding = read_binding(artifact_dir)
        return [
            await _compared(behind, stacks, binding, (rows, calls, rounds * often), step)
            for rows, calls, often in SIZES
        ]
    finally:
        for stack in (*stacks.values(), behind):
            stack.stop_all()


def _policy(behind: Stack, artifact_dir: Path, state: Path, side: str) -> Stack:
    """Give a policy process on the rung SHADOW that differs from the other in its queue."""
    environment = {
        "DETENT_POLICY_FEATURE_TARGET": behind.targets["feature"],
        "DETENT_POLICY_INFERENCE_TARGET": behind.targets["inference"],
        "DETENT_POLICY_INFER_ENABLED": "true",
        "DETENT_POLICY_ACTIVE_ENABLED": "false",
        "DETENT_POLICY_SHADOW_MODE": "true",
        "DETENT_POLICY_SHADOW_ROWS_MAX": ROWS_MAX[side],
        "DETENT_POLICY_TRACE_FILE": "",
    }
    return Stack(StackOptions(artifact_dir=artifact_dir, state_dir=state, environment=environment))


async def _compared(
    behind: Stack,
    stacks: dict[str, Stack],
    binding: ModelBinding,
    size: tuple[int, int, int],
    step: Callable[[], None],
) -> Found:
    """Ask both sides in turns, with so many rows, so often in a burst, for so many bursts."""
    rows, calls, bursts = size
    bar_count = WARM_BARS + bursts * calls
    clients = {side: _client(behind, stacks[side]) for side in SIDES}
    times: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    try:
        # Each size has plans of its own: a bar is decided once.
        strategists = {
            side: Strategist(clients[side], rows, bar_count=bar_count, way=f"C{calls}")
            for side in SIDES
        }
        for strategist in strategists.values():
            await strategist.open(binding)
            for _ in range(WARM_BARS):
                await strategist.bar()
        for number in range(bursts):
            await asyncio.sleep(SETTLE_S_MIN + SETTLE_S_PER_CALL * calls)
            for strategist in strategists.values():
                strategist.forget()
            # Call by call: a machine that is slow for a moment is so for both.
            for call in range(calls):
                for side in SIDES if (number + call) % 2 else reversed(SIDES):
                    await strategists[side].bar()
            for side in SIDES:
                times[side].append(list(strategists[side].calls_us))
            step()
    finally:
        for client in clients.values():
            await client.close()
    return _found(rows, calls, times)


def _client(behind: Stack, stack: Stack) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=stack.state_dir / "journal.jsonl",
            policy_target=stack.targets["policy"],
            feature_target=behind.targets["feature"],
            deadline_s=DEADLINE_S,
        )
    )


def _found(rows: int, calls: int, times: dict[str, list[list[float]]]) -> Found:
    off, on = (np.array(times[side]) for side in SIDES)
    chance = np.random.default_rng(SEED)
    drawn = chance.integers(0, len(on), (RESAMPLES, len(on)))
    ratios = [np.percentile(on[one], 99) / np.percentile(off[one], 99) for one in drawn]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Found(
        rows=rows,
        calls_in_burst=calls,
        off=timing_of(off.ravel().tolist()),
        on=timing_of(on.ravel().tolist()),
        p50_ratio=float(np.median(on) / np.median(off)),
        p99_ratio=float(np.percentile(on, 99) / np.percentile(off, 99)),
        p99_low=float(low),
        p99_high=float(high),
    )


def _show(found: list[Found], rounds: int, load: float) -> None:
    table = Table(
        title=f"Decisions without and with a shadow, ms, {rounds} rounds, load {load:.1f} before",
        title_justify="left",
    )
    names = ("rows", "in a burst", "calls", "p50 off", "p50 on", "p99 off", "p99 on")
    for name in (*names, "p50 ratio", "p99 ratio", "95%"):
        table.add_column(name, justify="right")
    for one in found:
        times = (one.off.p50_us, one.on.p50_us, one.off.p99_us, one.on.p99_us)
        table.add_row(
            str(one.rows),
            str(one.calls_in_burst),
            str(one.on.count),
            *(f"{us / 1_000:.2f}" for us in times),
            f"{one.p50_ratio:.3f}",
            f"{one.p99_ratio:.3f}",
            f"{one.p99_low:.2f} to {one.p99_high:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
