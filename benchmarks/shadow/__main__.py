"""Run the benchmark: `python -m benchmarks.shadow`."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
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
SETTLE_S_MIN, SETTLE_S_PER_CALL = 1.2, 0.015
RESAMPLES, SEED = 2_000, 20_260_101
# `same` asks no shadow either: what it differs by from `off` is chance.
OFF, SAME = "off", "same"


class Shadow(StrEnum):
    """Says how the inference process that a shadow asks is."""

    ON = "on"
    # Stopped: it takes what it is sent and answers nothing.
    SLOW = "slow"
    # Ended: nobody listens there.
    GONE = "gone"


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the calls of one side, and what they cost beside those without a shadow.

    Attributes:
        side: Which.
        timing: Its calls.
        p50_ratio: Their median over that of `off`.
        p99_ratio: The same of the 99th percentiles.
        p99_low: Lower end of 95% of that ratio, bursts drawn again.
        p99_high: Upper end.
    """

    side: str
    timing: Timing
    p50_ratio: float
    p99_ratio: float
    p99_low: float
    p99_high: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was measured of one shadow with one size of calls at one pace.

    Attributes:
        shadow: How the shadow was.
        rows: Rows of a call.
        calls_in_burst: Calls of each side without a pause.
        off: Calls to the process that asks no shadow.
        against: The other sides.
    """

    shadow: Shadow
    rows: int
    calls_in_burst: int
    off: Timing
    against: tuple[Against, ...]


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often the bursts of a round come.", min=4)] = 20,
    shadow: Annotated[
        list[Shadow], typer.Option(help="How the shadow is; given again, one after the other.")
    ] = list(Shadow),  # noqa: B006  Typer reads it and changes nothing.
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
    found: list[Found] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bursts = len(shadow) * rounds * sum(often for _, _, often in SIZES)
        task = progress.add_task("bursts", total=bursts)
        for which in shadow:
            measured = _measured(state.resolve(), which, rounds, lambda: progress.advance(task))
            found += asyncio.run(measured)
            _show(found[-len(SIZES) :], rounds, load_before)
    if json_file is not None:
        facts = {"schema": SCHEMA, "rounds": rounds, "load_before": load_before}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        results = {"found": [msgspec.to_builtins(one) for one in found]}
        json_file.write_text(json.dumps(facts | results, indent=2) + "\n", encoding="utf-8")


async def _measured(
    state: Path, shadow: Shadow, rounds: int, step: Callable[[], None]
) -> list[Found]:
    artifact_dir = build_bench_artifact(state / "artifacts" / shadow)
    behind = Stack(StackOptions(artifact_dir=artifact_dir, state_dir=state / shadow / "behind"))
    stacks = {
        side: _policy(behind, artifact_dir, state / shadow, side) for side in (OFF, SAME, shadow)
    }
    try:
        for name in ("feature", "inference"):
            behind.start(name)
        for stack in stacks.values():
            stack.start("policy")
        if shadow is Shadow.SLOW:
            os.kill(behind.pid("inference"), signal.SIGSTOP)
        if shadow is Shadow.GONE:
            behind.kill("inference")
        binding = read_binding(artifact_dir)
        return [
            await _compared(behind, stacks, binding, (rows, calls, rounds * often), step)
            for rows, calls, often in SIZES
        ]
    finally:
        if shadow is Shadow.SLOW and behind.is_running("inference"):
            os.kill(behind.pid("inference"), signal.SIGCONT)
        for stack in (*stacks.values(), behind):
            stack.stop_all()


def _policy(behind: Stack, artifact_dir: Path, state: Path, side: str) -> Stack:
    """Give a policy process on the rung SHADOW that differs from the others in its queue."""
    environment = {
        "DETENT_POLICY_FEATURE_TARGET": behind.targets["feature"],
        "DETENT_POLICY_INFERENCE_TARGET": behind.targets["inference"],
        "DETENT_POLICY_INFER_ENABLED": "true",
        "DETENT_POLICY_ACTIVE_ENABLED": "false",
        "DETENT_POLICY_SHADOW_MODE": "true",
        "DETENT_POLICY_SHADOW_ROWS_MAX": "0" if side in (OFF, SAME) else "20000",
        "DETENT_POLICY_TRACE_FILE": "",
    }
    return Stack(
        StackOptions(artifact_dir=artifact_dir, state_dir=state / side, environment=environment)
    )


async def _compared(
    behind: Stack,
    stacks: dict[str, Stack],
    binding: ModelBinding,
    size: tuple[int, int, int],
    step: Callable[[], None],
) -> Found:
    """Ask all sides in turns, with so many rows, so often in a burst, for so many bursts."""
    rows, calls, bursts = size
    bar_count = WARM_BARS + bursts * calls
    clients = {side: _client(behind, stacks[side]) for side in stacks}
    chance = np.random.default_rng(SEED)
    times: dict[str, list[list[float]]] = {side: [] for side in stacks}
    try:
        # Each size has plans of its own: a bar is decided once.
        strategists = {
            side: Strategist(clients[side], rows, bar_count=bar_count, way=f"C{calls}")
            for side in stacks
        }
        for strategist in strategists.values():
            await strategist.open(binding)
            for _ in range(WARM_BARS):
                await strategist.bar()
        for _ in range(bursts):
            await asyncio.sleep(SETTLE_S_MIN + SETTLE_S_PER_CALL * calls)
            for strategist in strategists.values():
                strategist.forget()
            # Call by call: a machine that is slow for a moment is so for all. In every order:
            # who comes after whom is chance too.
            for _ in range(calls):
                for side in chance.permutation(list(stacks)):
                    await strategists[side].bar()
            for side in stacks:
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
    off = np.array(times[OFF])
    return Found(
        shadow=next(Shadow(side) for side in times if side not in (OFF, SAME)),
        rows=rows,
        calls_in_burst=calls,
        off=timing_of(off.ravel().tolist()),
        against=tuple(_against(side, np.array(times[side]), off) for side in times if side != OFF),
    )


def _against(
    side: str, calls_us: npt.NDArray[np.float64], off_us: npt.NDArray[np.float64]
) -> Against:
    bursts = len(off_us)
    drawn = np.random.default_rng(SEED).integers(0, bursts, (RESAMPLES, bursts))
    ratios = [np.percentile(calls_us[one], 99) / np.percentile(off_us[one], 99) for one in drawn]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Against(
        side=side,
        timing=timing_of(calls_us.ravel().tolist()),
        p50_ratio=float(np.median(calls_us) / np.median(off_us)),
        p99_ratio=float(np.percentile(calls_us, 99) / np.percentile(off_us, 99)),
        p99_low=float(low),
        p99_high=float(high),
    )


def _show(found: list[Found], rounds: int, load: float) -> None:
    table = Table(
        title=f"Decisions with a shadow and without, ms, {rounds} rounds, load {load:.1f} before",
        title_justify="left",
    )
    for name in ("rows", "in a burst", "calls", "shadow"):
        table.add_column(name, justify="right")
    for name in ("p50", "p99", "p50 / off", "p99 / off", "95%"):
        table.add_column(name, justify="right")
    for one in found:
        size = (str(one.rows), str(one.calls_in_burst), str(one.off.count))
        table.add_row(*size, OFF, f"{one.off.p50_us / 1_000:.2f}", f"{one.off.p99_us / 1_000:.2f}")
        for other in one.against:
            table.add_row(
                *("", "", "", other.side),
                f"{other.timing.p50_us / 1_000:.2f}",
                f"{other.timing.p99_us / 1_000:.2f}",
                f"{other.p50_ratio:.3f}",
                f"{other.p99_ratio:.3f}",
                f"{other.p99_low:.2f} to {other.p99_high:.2f}",
            )
        table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
