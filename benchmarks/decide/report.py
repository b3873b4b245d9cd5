"""Print what was measured, and write it as JSON."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.decide.run import CALLS_PER_ROUND, WARM_BARS, RunResult
from benchmarks.decide.timing import Timing
from benchmarks.decide.workload import BatchResult

SCHEMA = "detent.benchmark.decide.v1"
PACKAGES = ("grpcio", "numpy", "onnxruntime", "protobuf")
# What issue 2 asks for, at most.
BATCH_SINGLES_MAX = 40
BATCH_ROWS = 1_000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one whole run of the benchmark.

    Attributes:
        rounds: How often the batch sizes took turns.
        runs: The compositions, in the order in which they were measured.
        commits: A bare commit of the ledger's own bytes, by number of records.
        load_before: Load average over a minute before the run, processes.
        load_after: The same after it.
    """

    rounds: int
    runs: tuple[RunResult, ...]
    commits: dict[int, Timing]
    load_before: float
    load_after: float


def print_report(report: Report, console: Console) -> None:
    """Print every table."""
    console.print(_machine_line(report))
    console.print(_latency_table(report))
    for run in report.runs:
        if run.traced:
            console.print(_hop_table(run))
    for run in report.runs:
        _print_verdict(run, console)


def write_json(report: Report, path: Path) -> None:
    """Write everything that was measured."""
    fields: dict[str, Any] = {"schema": SCHEMA, "machine": _machine(), "warm_bars": WARM_BARS}
    fields |= msgspec.to_builtins(report)
    for run, fields_of_run in zip(report.runs, fields["runs"], strict=True):
        fields_of_run["batch_costs_singles"] = round(batch_costs_singles(run), 2)
        fields_of_run["decision_over_echo"] = _over_echo(run.batch(1))
        fields_of_run["streamed_over_unary"] = _over_unary(run)
        for batch, fields_of_batch in zip(run.batches, fields_of_run["batches"], strict=True):
            fields_of_batch["rows_per_second"] = round(batch.rows_per_second)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def batch_costs_singles(run: RunResult) -> float:
    """Say how many single calls a batch of a thousand costs, by their medians."""
    return run.batch(BATCH_ROWS).call.p50_us / run.batch(1).call.p50_us


def _over_echo(batch: BatchResult) -> float:
    return round(batch.call.p50_us / batch.echo.p50_us, 2)


def _over_unary(run: RunResult) -> float:
    return round(run.streamed.call.p50_us / run.batch(1).call.p50_us, 3)


def _machine() -> dict[str, Any]:
    return {
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _machine_line(report: Report) -> str:
    machine = _machine()
    packages = ", ".join(f"{name} {text}" for name, text in machine["packages"].items())
    return (
        f"{machine['cpu_count']} CPUs, load {report.load_before:.1f} before and"
        f" {report.load_after:.1f} after; Python {machine['python']}, {packages}"
    )


def _latency_table(report: Report) -> Table:
    table = Table(title="One call, milliseconds (echo and ingest: p50)", title_justify="left")
    for name in ("composition", "rows"):
        table.add_column(name)
    for name in ("min", "p50", "p99", "rows/s", "echo", "x echo", "ingest", "answered by"):
        table.add_column(name, justify="left" if name == "answered by" else "right")
    for run in report.runs:
        rows_of_run = [(f"{batch.rows:,}", batch) for batch in run.batches]
        for rows_text, batch in [*rows_of_run, ("1, streamed", run.streamed)]:
            table.add_row(
                run.name,
                rows_text,
                _ms(batch.call.min_us),
                _ms(batch.call.p50_us),
                _ms(batch.call.p99_us),
                f"{batch.rows_per_second:,.0f}",
                _ms(batch.echo.p50_us),
                f"{_over_echo(batch):.1f}",
                _ms(batch.ingest.p50_us),
                _shares(batch.sources),
            )
    for rows, timing in report.commits.items():
        columns = (_ms(timing.min_us), _ms(timing.p50_us), _ms(timing.p99_us))
        per_second = f"{rows / timing.p50_us * 1e6:,.0f}"
        table.add_row("bare commit", f"{rows:,}", *columns, per_second)
    return table


def _hop_table(run: RunResult) -> Table:
    table = Table(title=f"Where the time goes, {run.name}, milliseconds", title_justify="left")
    table.add_column("hop")
    for rows in CALLS_PER_ROUND:
        table.add_column(f"{rows:,} rows p50", justify="right")
        table.add_column("p99", justify="right")
    hops = [dict(batch.hops) for batch in run.batches]
    for name in hops[0]:
        cells = []
        for batch_hops in hops:
            timing = batch_hops[name]
            cells += [_ms(timing.p50_us), _ms(timing.p99_us)] if timing else ["-", "-"]
        table.add_row(name, *cells)
    return table


def _print_verdict(run: RunResult, console: Console) -> None:
    singles = batch_costs_singles(run)
    verdict = "below" if singles < BATCH_SINGLES_MAX else "NOT below"
    chains = "whole" if run.break_count == 0 else f"BROKEN in {run.break_count} places"
    console.print(
        f"{run.name}: a batch of {BATCH_ROWS:,} costs {singles:.1f} single calls"
        f" ({verdict} {BATCH_SINGLES_MAX}); a decision costs {_over_echo(run.batch(1)):.1f}"
        f" echoes, and over a stream {_over_unary(run):.2f} of a unary call;"
        f" {run.record_count:,} records in {run.chain_count:,} chains, {chains}"
    )


def _shares(sources: dict[str, int]) -> str:
    total = sum(sources.values())
    return ", ".join(f"{source} {count / total:.1%}" for source, count in sources.items())


def _ms(time_us: float) -> str:
    return f"{time_us / 1_000:.2f}"
