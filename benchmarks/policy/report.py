"""Print what was measured beside what is asked of it, and write it as JSON."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.policy.decisions import Pace
from benchmarks.policy.ledger import Rates, Store
from benchmarks.policy.served import BATCH_ROWS, Served

SCHEMA = "detent.benchmark.policy.v1"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one thing that is asked: at most, or at least, so much."""

    name: str
    what: str
    found: float
    must: float
    unit: str
    at_most: bool

    @property
    def is_met(self) -> bool:
        """Say whether it is as asked."""
        return self.found <= self.must if self.at_most else self.found >= self.must


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one whole run; a part that was left out is None.

    Attributes:
        load_before: Load average over a minute before the run, processes.
        load_after: The same after it.
        decisions: What one row costs, by way of deciding it.
        rates: What the ledger does.
        served: What decisions through all processes cost.
    """

    load_before: float
    load_after: float
    decisions: dict[str, Pace] | None
    rates: Rates | None
    served: Served | None

    @property
    def targets(self) -> list[Target]:
        """Give what is asked of the parts that were measured."""
        found: list[Target] = []
        if self.served is not None:
            one = ("T5", "one decision over a bare echo", self.served.decision_over_echo)
            batch = ("T6", f"{BATCH_ROWS:,} over a bare insert", self.served.batch_over_insert)
            found += [_at_most(*one, 8.0), _at_most(*batch, 2.5)]
        if self.rates is not None:
            for name, store in (
                ("SQLite", self.rates.sqlite),
                ("PostgreSQL", self.rates.postgresql),
            ):
                found += _of_store(name, store)
        return found


def _at_most(name: str, what: str, found: float, must: float) -> Target:
    return Target(name=name, what=what, found=found, must=must, unit="x", at_most=True)


def _of_store(name: str, store: Store) -> list[Target]:
    return [
        Target(
            name="T7",
            what=f"{name}, share of bare inserts",
            found=100 * store.share,
            must=60,
            unit="%",
            at_most=False,
        ),
        Target(
            name="T7",
            what=f"{name}, rows verified a second",
            found=store.verified,
            must=100_000,
            unit="",
            at_most=False,
        ),
    ]


def print_report(report: Report, console: Console) -> None:
    """Print every table."""
    load = f"load {report.load_before:.1f} before and {report.load_after:.1f} after"
    console.print(f"{os.cpu_count()} CPUs, {load}; Python {platform.python_version()}")
    if report.decisions is not None:
        table = _table("One row, nanoseconds", "way", "min", "p50")
        for name, pace in report.decisions.items():
            table.add_row(name, f"{pace.min_ns:,}", f"{pace.p50_ns:,}")
        console.print(table)
    if report.rates is not None:
        size = f"{report.rates.rows:,} of {report.rates.bytes_per_record:,} bytes"
        table = _table(f"Rows a second, {size}", "", "bare insert", "ledger", "share", "verified")
        for name, store in (
            ("SQLite", report.rates.sqlite),
            ("PostgreSQL", report.rates.postgresql),
        ):
            rates = (f"{store.bare:,}", f"{store.ledger:,}", f"{store.share:.0%}")
            table.add_row(name, *rates, f"{store.verified:,}")
        console.print(table)
    if report.served is not None:
        _print_served(report.served, console)
    if not report.targets:
        return
    table = _table("Asked", "", "what", "found", "must", "")
    for one in report.targets:
        bound = f"{'at most' if one.at_most else 'at least'} {one.must:,.10g} {one.unit}"
        found = f"{one.found:,.0f}" if one.found > BATCH_ROWS else f"{one.found:.2f}"
        table.add_row(one.name, one.what, found, bound, "yes" if one.is_met else "NO")
    console.print(table)


def _print_served(served: Served, console: Console) -> None:
    columns = ("rows", "min", "p50", "p99", "echo p50", "answered by the model")
    table = _table("Through all processes, milliseconds", *columns)
    for batch in served.run.batches:
        call = batch.call
        model = batch.sources.get("model", 0) / sum(batch.sources.values())
        times = (call.min_us, call.p50_us, call.p99_us, batch.echo.p50_us)
        table.add_row(f"{batch.rows:,}", *(f"{us / 1_000:.2f}" for us in times), f"{model:.1%}")
    insert = served.insert
    times = (insert.min_us, insert.p50_us, insert.p99_us)
    table.add_row("bare insert", *(f"{us / 1_000:.2f}" for us in times))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 or name == "what" else "right")
    return table


def write_json(report: Report, path: Path) -> None:
    """Write everything that was measured."""
    machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
    fields: dict[str, Any] = {"schema": SCHEMA, "machine": machine}
    fields |= msgspec.to_builtins(report)
    fields["targets"] = [msgspec.to_builtins(one) | {"met": one.is_met} for one in report.targets]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
