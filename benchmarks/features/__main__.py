"""Run the benchmark: `python -m benchmarks.features`."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.features.measure import WAYS, WayResult, measured

SCHEMA = "detent.benchmark.features.v1"
PACKAGES = ("numpy", "pandas", "pyarrow")
COLUMNS = 120
WHAT = {
    "pandas": "plain pandas: values only",
    "rolled": "rolled rows: values, hashes, reasons",
    "one by one": "the same rows as live serving computes them",
    "file": "features build: rolled rows into parquet",
}


def main(
    *,
    rows: Annotated[
        int, typer.Option(help="Bars of one symbol.", min=1_000, max=5_000_000)
    ] = 100_000,
    repeats: Annotated[int, typer.Option(help="How often each way runs.", min=1, max=100)] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
) -> None:
    """Measure the offline build of features, rows per second and peak memory."""
    load_before = os.getloadavg()[0]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    with progress:
        results = [
            measured(way, rows=rows, repeats=repeats)
            for way in progress.track(WAYS, description="features, offline")
        ]
    machine = {
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    console = Console()
    # Into a file or a pipe the table keeps its width.
    console = console if console.is_terminal else Console(width=COLUMNS)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    console.print(
        f"{os.cpu_count()} CPUs, load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after;"
        f" Python {platform.python_version()}, {packages}"
    )
    console.print(_table(results))
    if json_file is not None:
        ways = [
            msgspec.to_builtins(one) | {"rows_per_second": round(one.rows_per_second)}
            for one in results
        ]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "machine": machine, "ways": ways}, indent=2)
        json_file.write_text(text + "\n", encoding="utf-8")


def _table(results: list[WayResult]) -> Table:
    title = f"{results[0].rows:,} rows of 11 features, one core"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for name in ("rows/s", "us/row", "x pandas", "peak MiB", "above bars MiB", "agrees"):
        table.add_column(name, justify="right")
    pandas = results[0].rows_per_second
    for one in results:
        table.add_row(
            WHAT[one.way],
            f"{one.rows_per_second:,.0f}",
            f"{1e6 / one.rows_per_second:.1f}",
            f"{pandas / one.rows_per_second:.1f}",
            f"{one.peak_mib:,.0f}",
            f"{one.peak_mib - one.idle_mib:,.0f}",
            f"{one.agreement:.2%}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
