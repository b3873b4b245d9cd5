"""Measure back-testers side by side: `python -m benchmarks.backtest`."""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.backtest.market import write_question
from detent.contracts.canonical import canonical_bytes, sha256_hex

SIZES = ((100_000, 1), (20_000, 50))
SMALL = (2_000, 2)
WAYS = {
    "columns": "Detent, columns, parity B",
    "next_bar": "Detent, columns, next bar",
    "records": "Detent, full chained records, ledger file",
}
PEERS = {"vectorbt": "vectorbt", "bt": "bt", "backtesting": "backtesting.py"}
PEER_PYTHON = Path(".venv-backtesters/bin/python")
HERE = Path(__file__).parent
LABEL = {(100_000, 1): "1 x 100 k", (20_000, 50): "50 x 20 k", SMALL: "2 x 2 k"}
# Text of a record's size, for what serialising and hashing one alone takes.
RECORD_FIELDS = {f"field_{index:02d}": "x" * 24 for index in range(36)}
EQUAL_WITHIN = 1e-9


def measured(command: list[str]) -> dict[str, Any]:
    """Run one process; give what it printed last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def record_alone_us() -> float:
    """Measure serialising and hashing one record-sized object, microseconds of CPU."""
    count = 20_000
    begun_s = time.process_time()
    for _ in range(count):
        sha256_hex(canonical_bytes("x", RECORD_FIELDS))
    return (time.process_time() - begun_s) / count * 1e6


def hash_alone_us() -> float:
    """Measure hashing 1,500 bytes, microseconds of CPU."""
    count, data = 50_000, b"x" * 1_500
    begun_s = time.process_time()
    for _ in range(count):
        hashlib.sha256(data)
    return (time.process_time() - begun_s) / count * 1e6


def measure(bars: int, symbols: int, *, peers: list[str], repeats: int) -> dict[str, Any]:
    """Measure every way on one size; the best of some runs counts."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_question(folder, bars, symbols)
        for way in WAYS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.backtest.ours",
                way,
                str(bars),
                str(symbols),
            ]
            results[way] = _best([[*command, f"{name}/{way}{turn}"] for turn in range(repeats)])
        for peer in peers:
            command = [str(PEER_PYTHON), str(HERE / "peers.py"), peer, name]
            results[peer] = _best([command] * (repeats if peer == "vectorbt" else 1))
    for found in results.values():
        found["rate"] = bars * symbols / found["cpu_s"]
    return results


def _best(commands: list[list[str]]) -> dict[str, Any]:
    return min((measured(command) for command in commands), key=lambda found: found["cpu_s"])


def main() -> None:
    """Measure, print a table, and fail where our account is not vectorbt's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--small", action="store_true", help="2 x 2 k, to see that all run")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console = Console()
    peers = [] if asked.only_ours else list(PEERS)
    report: dict[str, Any] = {
        "record_alone_us": record_alone_us(),
        "hash_alone_us": hash_alone_us(),
    }
    sizes = (SMALL,) if asked.small else SIZES
    for size in sizes:
        with console.status(LABEL[size]):
            report[LABEL[size]] = measure(*size, peers=peers, repeats=asked.repeats)
        table = Table(title=f"{LABEL[size]}: symbol-bars per second of CPU", title_justify="left")
        for column in ("", "rate", "CPU s", "peak MiB", "start-up, CPU s", "apart from ours"):
            table.add_column(column, justify="left" if not column else "right")
        for way, found in report[LABEL[size]].items():
            apart = found.get("apart")
            table.add_row(
                (WAYS | PEERS)[way],
                f"{found['rate']:,.0f}",
                f"{found['cpu_s']:.2f}",
                f"{found['peak_mib']:.0f}",
                f"{found['start_s']:.2f}",
                "" if apart is None else f"{apart:.1e}",
            )
        console.print(table)
    console.print(
        f"one record of the same size, serialised and hashed alone: "
        f"{report['record_alone_us']:.1f} us; 1,500 bytes hashed alone: "
        f"{report['hash_alone_us']:.1f} us"
    )
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for size in sizes:
        apart = report[LABEL[size]].get("vectorbt", {}).get("apart") or 0.0
        if apart > EQUAL_WITHIN:
            sys.exit(f"{LABEL[size]}: vectorbt's equity is {apart} apart, at most {EQUAL_WITHIN}")


if __name__ == "__main__":
    main()
