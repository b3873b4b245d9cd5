"""Run the benchmark: `python -m benchmarks.policy`."""

import functools
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.policy.decisions import measure_decisions
from benchmarks.policy.ledger import measure_ledger
from benchmarks.policy.report import Report, print_report, write_json
from benchmarks.policy.served import measure_served, steps

COLUMNS = 120
DECISION_TURNS = 30


class Part(StrEnum):
    """Names what can be measured by itself."""

    DECISIONS = "decisions"
    LEDGER = "ledger"
    SERVED = "served"


def main(
    *,
    only: Annotated[
        list[Part] | None, typer.Option(help="Only this part; may be repeated.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="How often the batch sizes take turns.", min=1, max=10_000)
    ] = 25,
    rows: Annotated[int, typer.Option(help="Records for the ledger.", min=1_000)] = 20_000,
    verified_rows: Annotated[
        int, typer.Option(help="Records of the ledger that is verified.", min=1_000)
    ] = 300_000,
    turns: Annotated[int, typer.Option(help="How often the ledger is measured.", min=1)] = 3,
    postgres: Annotated[
        str | None, typer.Option(help="An empty database; None starts one, with fsync on.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="Ledgers go here; what lies there is removed.")
    ] = Path("out/bench/policy"),
) -> None:
    """Measure what a decision costs, from the bare arithmetic to the durable answer."""
    parts = set(only or Part)
    load_before = os.getloadavg()[0]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    decisions = rates = served = None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        if Part.DECISIONS in parts:
            decisions = measure_decisions(DECISION_TURNS)
        if Part.LEDGER in parts:
            task = bar.add_task("ledger", total=2 * turns)
            step = functools.partial(bar.advance, task)
            rates = measure_ledger(rows, verified_rows, postgres, turns, step)
        if Part.SERVED in parts:
            task = bar.add_task("served", total=steps(rounds))
            step = functools.partial(bar.advance, task)
            served = measure_served(state.resolve(), rounds, step)
    report = Report(
        load_before=load_before,
        load_after=os.getloadavg()[0],
        decisions=decisions,
        rates=rates,
        served=served,
    )
    console = Console()
    # Into a file or a pipe the tables keep their width.
    print_report(report, console if console.is_terminal else Console(width=COLUMNS))
    if json_file is not None:
        write_json(report, json_file)


if __name__ == "__main__":
    typer.run(main)
