"""Check a whole ledger, and copy what readers see of it to Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detent.adapters.ledger_columns import SHIPPED
from detent.adapters.ledger_reading import LedgerReader, Row
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind
from detent.core.ledger.completeness import (
    HOLES_MAX,
    REQUIRED,
    Hole,
    Run,
    every_bar,
    find_holes,
    judge_runs,
)

# What a reader gets: the views of the records, and the tables that have no view.
EXPORTED = ("bar_decisions", "overrides", *(n for n in SHIPPED if n != "decision_records"))
ROW_GROUP_ROWS = 10_000


class Completeness(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a check of a ledger found.

    Attributes:
        runs: Every plan that any table knows.
        bar_count: The regular bars that have a record.
        holes: The first stretches of bars that have none.
    """

    runs: tuple[Run, ...]
    bar_count: int
    holes: tuple[Hole, ...]

    @property
    def is_complete(self) -> bool:
        """Say whether every run is valid and no bar is missing."""
        return not self.holes and all(run.is_valid for run in self.runs)


def check_completeness(
    reader: LedgerReader, calendars: Mapping[str, Sequence[int]] | None = None
) -> Completeness:
    """Compare the records of every plan with the bars that there were.

    Args:
        reader: Where the ledger lies.
        calendars: Close times of the bars of each symbol, rising, Unix milliseconds; a symbol
            without one is taken to have had a bar in every interval of its plan.

    Raises:
        LedgerUnavailable: It cannot be read.
    """
    calendars = calendars or {}
    intervals: dict[str, int] = {}
    closed: set[str] = set()
    for plan_id, event, plan in reader.query("SELECT plan_id, event, plan FROM plan_log"):
        intervals[plan_id] = int(str(parse_json("plan", plan.encode())["bar_interval_ms"]))
        if event == "closed":
            closed.add(plan_id)
    bars: dict[tuple[str, str], list[int]] = {}
    with_records: set[str] = set()
    sql = "SELECT plan_id, symbol, ts_ms, kind FROM decision_records"
    for plan_id, symbol, ts_ms, kind in reader.query(sql):
        with_records.add(plan_id)
        if kind == DecisionKind.BAR:
            bars.setdefault((plan_id, symbol), []).append(ts_ms)
    holes: list[Hole] = []
    for (plan_id, symbol), recorded in sorted(bars.items()):
        calendar = calendars.get(symbol)
        if calendar is None and plan_id in intervals:
            calendar = every_bar(recorded, intervals[plan_id])
        holes += find_holes(plan_id, symbol, recorded, calendar or ())
    summarised = {row[0] for row in reader.query("SELECT plan_id FROM results_summary")}
    found = dict(zip(REQUIRED, (intervals, with_records, summarised), strict=True))
    return Completeness(
        runs=judge_runs(found, open_plans=intervals.keys() - closed),
        bar_count=sum(map(len, bars.values())),
        holes=tuple(holes[:HOLES_MAX]),
    )


def export_parquet(reader: LedgerReader, folder: Path) -> dict[str, int]:
    """Write one Parquet file per table and give how many rows each has.

    Every value is written as it stands: integers as int64, the rest as text.

    Raises:
        LedgerUnavailable: The ledger cannot be read.
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _export(reader, name, folder / f"{name}.parquet") for name in EXPORTED}


def _export(reader: LedgerReader, name: str, path: Path) -> int:
    import pyarrow as pa  # noqa: PLC0415  Only an export needs it.
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = reader.columns(name)
    schema = pa.schema([(c, pa.int64() if _is_integer(c) else pa.string()) for c in columns])
    selected = ", ".join(f'"{column}"' for column in columns)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _groups(reader.query(f"SELECT {selected} FROM {name}")):
            count += len(rows)
            arrays = [
                pa.array(values, type=field.type)
                for field, values in zip(schema, zip(*rows, strict=True), strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return count


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    group: list[Any] = []
    for row in rows:
        group.append(row)
        if len(group) == ROW_GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _is_integer(column: str) -> bool:
    counted = ("id", "sequence", "position", "precedence_tier", "anchor_index")
    return column in counted or column.endswith(("_ms", "_bps", "_ppm"))
