"""Run the benchmark: `python -m benchmarks.inference`."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.decide.timing import timing_of
from benchmarks.inference import raw
from benchmarks.inference.load import Load, Target, drive
from benchmarks.inference.models import KINDS, build_bench_artifact
from benchmarks.inference.report import (
    LARGE,
    MANY,
    RAW,
    SMALL,
    Cell,
    Report,
    print_report,
    write_json,
)
from benchmarks.inference.servers import running
from detent.contracts.manifest import MODEL_FILE

COLUMNS = 120
LOADS = ((SMALL, 1), (SMALL, MANY), (LARGE, 1), (LARGE, MANY))
WARM_S = 0.3
PINNED = Path(__file__).with_name("pinned.py")


def main(
    *,
    rounds: Annotated[
        int, typer.Option(help="How often servers and loads take turns.", min=1, max=1_000)
    ] = 5,
    seconds: Annotated[float, typer.Option(help="How long one turn is.", min=0.05, max=60.0)] = 1.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Artifacts and logs go here; what lies there is removed.")
    ] = Path("out/bench/inference"),
) -> None:
    """Measure one graph behind four servers, and behind none."""
    load_before = os.getloadavg()[0]
    state = state.resolve()
    shutil.rmtree(state, ignore_errors=True)
    artifacts = {kind: build_bench_artifact(state / "artifacts", kind) for kind in KINDS}
    # Servers on the first core that we may use, the client on the last.
    allowed = sorted(os.sched_getaffinity(0))
    cores = (allowed[0], allowed[-1])
    os.sched_setaffinity(0, {cores[1]})
    cells: list[Cell] = []
    missing: dict[str, str] = {}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        for kind, artifact_dir in artifacts.items():
            task = progress.add_task(kind, total=rounds)
            with running(artifact_dir, state / kind, core=cores[0]) as servers:
                missing |= servers.missing
                turns = _Turns(kind, artifact_dir, core=cores[0], seconds=seconds)
                for _ in range(rounds):
                    turns.take(servers.targets)
                    progress.advance(task)
            cells += turns.cells()
    report = Report(
        rounds=rounds,
        seconds=seconds,
        cores=cores,
        cells=tuple(cells),
        missing=missing,
        load_before=load_before,
        load_after=os.getloadavg()[0],
    )
    console = Console()
    # Into a file or a pipe the tables keep their width.
    print_report(report, console if console.is_terminal else Console(width=COLUMNS))
    if json_file is not None:
        write_json(report, json_file)


class _Turns:
    """Gathers what each server did under each load, over the rounds."""

    def __init__(self, kind: str, artifact_dir: Path, *, core: int, seconds: float) -> None:
        self._kind = kind
        self._model_file = artifact_dir / MODEL_FILE
        self._core = core
        self._seconds = seconds
        self._loads: dict[tuple[str, int, int], list[Load]] = {}

    def take(self, targets: Sequence[Target]) -> None:
        """Let every server have its turn under every load."""
        for rows, in_flight in LOADS:
            for target in targets:
                key = (target.name, rows, in_flight)
                if key not in self._loads:
                    asyncio.run(drive(target, rows=rows, in_flight=in_flight, seconds=WARM_S))
                load = asyncio.run(
                    drive(target, rows=rows, in_flight=in_flight, seconds=self._seconds)
                )
                self._loads.setdefault(key, []).append(load)
            if in_flight == 1:
                self._loads.setdefault((RAW, rows, 1), []).append(self._raw(rows))

    def cells(self) -> list[Cell]:
        """Summarise the turns."""
        return [
            _cell(self._kind, name, rows, in_flight, loads)
            for (name, rows, in_flight), loads in self._loads.items()
        ]

    def _raw(self, rows: int) -> Load:
        """Run the graph alone, on the servers' core."""
        pinned = (sys.executable, str(PINNED), str(self._core))
        command = (sys.executable, "-m", raw.__name__, str(self._model_file), str(rows))
        ran = subprocess.run(  # noqa: S603  Our own module.
            [*pinned, *command, str(self._seconds)], capture_output=True, check=True
        )
        times_us: list[float] = json.loads(ran.stdout)
        wall_s = sum(times_us) / 1e6
        return Load(
            times_us=times_us, wall_s=wall_s, server_cpu_s=0.0, client_cpu_s=0.0, unanswered_rows=0
        )


def _cell(kind: str, name: str, rows: int, in_flight: int, loads: Sequence[Load]) -> Cell:
    times_us = [time_us for load in loads for time_us in load.times_us]
    wall_s = sum(load.wall_s for load in loads)
    server_cpu_s = sum(load.server_cpu_s for load in loads)
    return Cell(
        model=kind,
        name=name,
        rows=rows,
        in_flight=in_flight,
        call=timing_of(times_us),
        calls_per_s=round(len(times_us) / wall_s, 1),
        turns=tuple(round(len(load.times_us) / load.wall_s, 1) for load in loads),
        server_cpu_us=round(server_cpu_s / len(times_us) * 1e6, 1),
        client_busy=round(sum(load.client_cpu_s for load in loads) / wall_s, 3),
        unanswered_rows=sum(load.unanswered_rows for load in loads),
    )


if __name__ == "__main__":
    typer.run(main)
