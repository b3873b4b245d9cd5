"""Print what was measured, and write it as JSON."""

import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.decide.timing import Timing
from benchmarks.inference.peers import KSERVE, MLSERVER, PYTRITON, PYTRITON_BATCHING
from benchmarks.inference.servers import FACADE, OURS, PLAIN

SCHEMA = "detent.benchmark.inference.v1"
PACKAGES = ("grpcio", "numpy", "onnxruntime", "protobuf")
RAW = "session.run"
SMALL, LARGE = 1, 256
MANY = 16
# Of two forms of one server the better one counts.
PEER_NAMES = {
    KSERVE: (KSERVE,),
    MLSERVER: (MLSERVER,),
    PYTRITON: (PYTRITON, PYTRITON_BATCHING),
}
# A client that is this busy is what was measured, and not the server.
CLIENT_BUSY = 0.95


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one server under one load.

    Attributes:
        model: One of the models.
        name: The server's name.
        rows: Rows per call.
        in_flight: Calls in flight.
        call: Time of a call.
        calls_per_s: Calls per second, over all turns.
        turns: Calls per second of each turn.
        server_cpu_us: Processor time of the server per call, microseconds; 0 for no server.
        client_busy: Share of its core that the client used; 0 for no client.
        unanswered_rows: Rows that were asked and not answered.
    """

    model: str
    name: str
    rows: int
    in_flight: int
    call: Timing
    calls_per_s: float
    turns: tuple[float, ...]
    server_cpu_us: float
    client_busy: float
    unanswered_rows: int

    @property
    def rows_per_s(self) -> float:
        """Give rows per second."""
        return self.rows * self.calls_per_s


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one figure that a target is stated in; 0 when a side of it is missing."""

    name: str
    value: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one whole run of the benchmark.

    Attributes:
        rounds: How often servers and loads took turns.
        seconds: How long one turn was.
        cores: The servers' core and the client's.
        cells: Everything measured.
        missing: Why a server is not there, by its name.
        load_before: Load average over a minute before the run, processes.
        load_after: The same after it.
    """

    rounds: int
    seconds: float
    cores: tuple[int, int]
    cells: tuple[Cell, ...]
    missing: dict[str, str]
    load_before: float
    load_after: float


_Key = tuple[str, str, int, int]


def ratios_of(report: Report) -> tuple[Ratio, ...]:
    """Give the ratios in which targets are stated, each the median of those of the rounds.

    What is compared within a round was measured within seconds: a machine that is slow for a
    minute is slow for both sides.
    """
    cells = {(cell.model, cell.name, cell.rows, cell.in_flight): cell for cell in report.cells}

    def over(ours: _Key, *theirs: _Key) -> float:
        found = [cells[one] for one in theirs if one in cells]
        if ours not in cells or not found:
            return 0.0
        rounds = zip(cells[ours].turns, *(cell.turns for cell in found), strict=True)
        size = cells[ours].rows / found[0].rows
        return round(statistics.median(size * mine / max(others) for mine, *others in rounds), 3)

    wanted: dict[str, tuple[_Key, ...]] = {
        "T1: InferSignals over plain grpcio, logistic, 1 row, 16 in flight": (
            ("logistic", OURS, SMALL, MANY),
            ("logistic", PLAIN, SMALL, MANY),
        ),
        "T2: InferSignals over session.run, logistic, 256 rows, rows/s": (
            ("logistic", OURS, LARGE, MANY),
            ("logistic", RAW, LARGE, 1),
        ),
        "T3: InferSignals over session.run, forest, 256 rows, rows/s": (
            ("forest", OURS, LARGE, MANY),
            ("forest", RAW, LARGE, 1),
        ),
    } | {
        f"T4: open inference over {name}, logistic, 1 row, 16 in flight": (
            ("logistic", FACADE, SMALL, MANY),
            *(("logistic", theirs, SMALL, MANY) for theirs in names),
        )
        for name, names in PEER_NAMES.items()
    }
    return tuple(Ratio(name=name, value=over(*sides)) for name, sides in wanted.items())


def print_report(report: Report, console: Console) -> None:
    """Print every table."""
    machine = _machine()
    packages = ", ".join(f"{name} {text}" for name, text in machine["packages"].items())
    server, client = report.cores
    console.print(
        f"{machine['cpu_count']} CPUs, servers on core {server}, client on core {client}, load"
        f" {report.load_before:.1f} before and {report.load_after:.1f} after;"
        f" Python {machine['python']}, {packages}"
    )
    for model in dict.fromkeys(cell.model for cell in report.cells):
        console.print(_table(model, report))
    if any(cell.client_busy >= CLIENT_BUSY for cell in report.cells):
        console.print("* the client had no time left: the server could do more")
    for name, why in report.missing.items():
        console.print(f"{name}: {why}")
    for ratio in ratios_of(report):
        console.print(f"{ratio.name}: {ratio.value:.3f}")


def write_json(report: Report, path: Path) -> None:
    """Write everything that was measured."""
    fields: dict[str, Any] = {"schema": SCHEMA, "machine": _machine()}
    fields |= msgspec.to_builtins(report)
    for cell, fields_of_cell in zip(report.cells, fields["cells"], strict=True):
        fields_of_cell["rows_per_s"] = round(cell.rows_per_s)
    fields["ratios"] = {ratio.name: ratio.value for ratio in ratios_of(report)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    return {
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _table(model: str, report: Report) -> Table:
    table = Table(title=f"{model}, microseconds per call", title_justify="left")
    table.add_column("server", no_wrap=True)
    columns = ("rows", "in flight", "p50", "p99", "calls/s", "rows/s", "server CPU", "unanswered")
    for name in columns:
        table.add_column(name, justify="right")
    cells = [cell for cell in report.cells if cell.model == model]
    for cell in sorted(cells, key=lambda cell: (cell.rows, cell.in_flight)):
        mark = "*" if cell.client_busy >= CLIENT_BUSY else ""
        table.add_row(
            cell.name,
            f"{cell.rows:,}",
            f"{cell.in_flight}",
            f"{cell.call.p50_us:,.0f}",
            f"{cell.call.p99_us:,.0f}",
            f"{cell.calls_per_s:,.0f}{mark}",
            f"{cell.rows_per_s:,.0f}",
            f"{cell.server_cpu_us:,.0f}" if cell.server_cpu_us else "-",
            f"{cell.unanswered_rows:,}",
        )
    return table
