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

from benchmarks.features.measure import BESIDE, WAYS, WayResult, measured
from benchmarks.features.quotes import WAYS as QUOTE_WAYS
from benchmarks.features.quotes import QuoteResult, measured_quotes
from benchmarks.features.sets import SETS

SCHEMA = "detent.benchmark.features.v2"
PACKAGES = ("numpy", "pandas", "pyarrow")
COLUMNS = 120
WHAT = {
    "pandas values": "plain pandas: values",
    "values": "rolled rows: values, reasons",
    "pandas rows": "plain pandas: values, and a hash per row",
    "rows": "rolled rows: values, reasons, both hashes",
    "file": "features build: rolled rows into parquet",
    "one by one": "the same rows as live serving computes them",
}
QUOTE_WHAT = {
    "columns": "quotes offline: columns to bars",
    "each": "quotes offline: a value for each",
}


def main(
    *,
    rows: Annotated[
        int, typer.Option(help="Bars of one symbol.", min=1_000, max=5_000_000)
    ] = 100_000,
    wide_rows: Annotated[
        int, typer.Option(help="Bars for the set of 250 features.", min=1_000, max=1_000_000)
    ] = 20_000,
    quotes: Annotated[int, typer.Option(help="Quotes of one symbol.", min=1_000)] = 1_000_000,
    repeats: Annotated[int, typer.Option(help="How often each way runs.", min=1, max=100)] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
) -> None:
    """Measure the offline build of features: rows and quotes per second, and peak memory."""
    load_before = os.getloadavg()[0]
    bars_of_set = {"direction": rows, "wide": wide_rows}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    with progress:
        jobs = [(way, name) for name in SETS for way in WAYS]
        results = [
            measured(way, name, rows=bars_of_set[name], repeats=repeats)
            for way, name in progress.track(jobs, description="features, offline")
        ]
        of_quotes = [
            measured_quotes(way, quotes=quotes, repeats=repeats)
            for way in progress.track(QUOTE_WAYS, description="quotes, offline")
        ]
    machine = {
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    _show(results, of_quotes, load_before)
    if json_file is not None:
        ways = [
            msgspec.to_builtins(one) | {"rows_per_second": round(one.rows_per_second)}
            for one in results
        ]
        of_ways = [
            msgspec.to_builtins(one) | {"quotes_per_second": round(one.quotes_per_second)}
            for one in of_quotes
        ]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        facts = {"schema": SCHEMA, "machine": machine, "ways": ways, "quotes": of_ways}
        json_file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _show(results: list[WayResult], of_quotes: list[QuoteResult], load_before: float) -> None:
    console = Console()
    # Into a file or a pipe the table keeps its width.
    console = console if console.is_terminal else Console(width=COLUMNS)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    console.print(
        f"{os.cpu_count()} CPUs, load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after;"
        f" Python {platform.python_version()}, {packages}"
    )
    for name in SETS:
        console.print(_table([one for one in results if one.set_name == name]))
    console.print(_quote_table(of_quotes))


def _table(results: list[WayResult]) -> Table:
    features = len(SETS[results[0].set_name].features)
    title = f"{results[0].rows:,} rows of {features} features, one core"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for name in ("rows/s", "us/row", "x pandas", "peak MiB", "above bars MiB", "agrees"):
        table.add_column(name, justify="right")
    rates = {one.way: one.rows_per_second for one in results}
    for one in results:
        beside = BESIDE.get(one.way)
        table.add_row(
            WHAT[one.way],
            f"{one.rows_per_second:,.0f}",
            f"{1e6 / one.rows_per_second:.1f}",
            "" if beside is None else f"{one.rows_per_second / rates[beside]:.2f}",
            f"{one.peak_mib:,.0f}",
            f"{one.peak_mib - one.idle_mib:,.0f}",
            f"{one.agreement:.2%}",
        )
    return table


def _quote_table(results: list[QuoteResult]) -> Table:
    table = Table(title="Quotes of one symbol, one core", title_justify="left")
    table.add_column("way")
    for name in ("quotes", "per second", "us/quote", "bars", "peak MiB", "above idle MiB"):
        table.add_column(name, justify="right")
    for one in results:
        table.add_row(
            QUOTE_WHAT[one.way],
            f"{one.quotes:,}",
            f"{one.quotes_per_second:,.0f}",
            f"{1e6 / one.quotes_per_second:.2f}",
            f"{one.bars:,}",
            f"{one.peak_mib:,.0f}",
            f"{one.peak_mib - one.idle_mib:,.0f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
