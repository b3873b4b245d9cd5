"""Run the benchmark: `python -m benchmarks.decide`."""

import asyncio
import functools
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.decide.commit import measure_commits, read_records
from benchmarks.decide.echo import running_echo
from benchmarks.decide.market import build_bench_artifact
from benchmarks.decide.report import Report, print_report, write_json
from benchmarks.decide.run import (
    CALLS_PER_ROUND,
    WARM_BARS,
    Composition,
    RunResult,
    measure,
)
from benchmarks.decide.timing import Timing

COMPOSITIONS = (
    Composition(single=False, traced=False),
    Composition(single=False, traced=True),
    Composition(single=True, traced=False),
    Composition(single=True, traced=True),
)
COLUMNS = 120
COMMITS_PER_ROUND = {1: 20, 64: 4, 1_000: 1}


def main(
    *,
    rounds: Annotated[
        int, typer.Option(help="How often the batch sizes take turns.", min=1, max=10_000)
    ] = 25,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Ledgers and spans go here; what lies there is removed.")
    ] = Path("out/bench/decide"),
) -> None:
    """Measure one decision and batches, over the wire and in one process."""
    load_before = os.getloadavg()[0]
    runs, commits = asyncio.run(_measured(state.resolve(), rounds))
    report = Report(
        rounds=rounds,
        runs=tuple(runs),
        commits=commits,
        load_before=load_before,
        load_after=os.getloadavg()[0],
    )
    console = Console()
    # Into a file or a pipe the tables keep their width.
    print_report(report, console if console.is_terminal else Console(width=COLUMNS))
    if json_file is not None:
        write_json(report, json_file)


async def _measured(state: Path, rounds: int) -> tuple[list[RunResult], dict[int, Timing]]:
    shutil.rmtree(state, ignore_errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    runs = []
    with progress:
        artifact_dir = build_bench_artifact(state / "artifacts")
        async with running_echo() as echo:
            for number, composition in enumerate(COMPOSITIONS):
                task = progress.add_task(composition.name, total=WARM_BARS + rounds)
                result = await measure(
                    composition,
                    artifact_dir=artifact_dir,
                    state_dir=state / str(number),
                    rounds=rounds,
                    echo=echo,
                    step=functools.partial(progress.advance, task),
                )
                runs.append(result)
        commits = _commits(state, rounds)
    return runs, commits


def _commits(state: Path, rounds: int) -> dict[int, Timing]:
    """Commit records of the first run once more, with nothing around them."""
    records = read_records(state / "0" / "ledger.sqlite", max(CALLS_PER_ROUND))
    return {
        rows: measure_commits(
            state / "bare", records[:rows], repeats=rounds * COMMITS_PER_ROUND[rows]
        )
        for rows in CALLS_PER_ROUND
    }


if __name__ == "__main__":
    typer.run(main)
