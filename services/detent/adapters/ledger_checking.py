"""Check a whole ledger, and copy what readers see of it to Parquet."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detent.adapters.ledger_columns import SHIPPED
from detent.adapters.ledger_reading import LedgerReader, Row
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.errors import DataInvalid, LedgerUnavailable
from detent.contracts.json_codec import from_json
from detent.contracts.plan import Plan
from detent.contracts.units import TS_MS_MAX, TS_MS_MIN
from detent.core.ledger.chain import UNFIT, ChainKey
from detent.core.ledger.completeness import (
    HOLES_MAX,
    REQUIRED,
    Hole,
    Run,
    expected_bars,
    find_holes,
    judge_runs,
)
from detent.core.ledger.summary import ResultsSummary

# What a reader gets: the views of the records, and the tables that have no view.
EXPORTED = ("bar_decisions", "overrides", *(n for n in SHIPPED if n != "decision_records"))
ROW_GROUP_ROWS = 10_000


class Completeness(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a check of a ledger found.

    Attributes:
        runs: Every plan that any table knows.
        bar_count: The regular bars that have a record.
        hole_count: The stretches of bars that have none.
        missing_count: The bars in them.
        holes: The first `HOLES_MAX` of them.
    """

    runs: tuple[Run, ...]
    bar_count: int
    hole_count: int
    missing_count: int
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
        InvalidField: A plan, the first record of a chain or a summary is not what was written.
        LedgerUnavailable: It cannot be read.
    """
    calendars = calendars or {}
    plans: dict[str, Plan] = {}
    closed: set[str] = set()
    for plan_id, event, plan in reader.query("SELECT plan_id, event, plan FROM plan_log"):
        plans[plan_id] = from_json(Plan, parse_json("plan", plan.encode()))
        if event == "closed":
            closed.add(plan_id)
    bars: dict[str, dict[str, set[int]]] = {}
    counts: Counter[str] = Counter()
    sql = "SELECT plan_id, symbol, ts_ms, kind FROM decision_records"
    for plan_id, symbol, ts_ms, kind in reader.query(sql):
        is_time = isinstance(ts_ms, int) and TS_MS_MIN <= ts_ms <= TS_MS_MAX
        if not (is_time and isinstance(symbol, str)):
            raise _unfit("decision_records")
        of_plan = bars.setdefault(plan_id, {})
        counts[plan_id] += 1
        if kind == DecisionKind.BAR:
            of_plan.setdefault(symbol, set()).add(ts_ms)
    begun = _taken_over(reader, plans)
    holes = [
        hole
        for plan_id in sorted(bars)
        for hole in _holes(plan_id, plans, bars, calendars=calendars, begun=begun)
    ]
    summarised = {
        plan_id: from_json(ResultsSummary, parse_json("summary", str(text).encode())).record_count
        for plan_id, text in reader.query("SELECT plan_id, canonical FROM results_summary")
    }
    tables: tuple[Collection[str], ...] = (plans, bars, summarised)
    found = dict(zip(REQUIRED, tables, strict=True))
    lost = {plan_id: count - counts[plan_id] for plan_id, count in summarised.items()}
    return Completeness(
        runs=judge_runs(found, open_plans=plans.keys() - closed, lost_counts=lost),
        bar_count=sum(len(times) for of_plan in bars.values() for times in of_plan.values()),
        hole_count=len(holes),
        missing_count=sum(hole.bar_count for hole in holes),
        holes=tuple(holes[:HOLES_MAX]),
    )


def _taken_over(reader: LedgerReader, plans: Mapping[str, Plan]) -> dict[ChainKey, int]:
    """Give the first bar that is due of every chain that goes on from a replaced plan's.

    It is the one after the bar that the other plan decided last: a replan leaves none out. Where
    the length of the bars has changed, nobody knows which that is.
    """
    begun: dict[ChainKey, int] = {}
    sql = "SELECT plan_id, symbol, canonical FROM decision_records WHERE sequence = 0"
    for plan_id, symbol, text in reader.query(sql):
        carried = from_json(DecisionRecord, parse_json("record", str(text).encode())).carried
        if carried is None or plan_id not in plans or carried.plan_id not in plans:
            continue
        interval_ms = plans[plan_id].bar_interval_ms
        if plans[carried.plan_id].bar_interval_ms == interval_ms:
            begun[plan_id, symbol] = carried.ts_ms + interval_ms
    return begun


def _holes(
    plan_id: str,
    plans: Mapping[str, Plan],
    bars: Mapping[str, Mapping[str, set[int]]],
    *,
    calendars: Mapping[str, Sequence[int]],
    begun: Mapping[ChainKey, int],
) -> Iterator[Hole]:
    """Give the holes of one plan: every symbol of it is due while any of them was decided."""
    decided = bars[plan_id]
    times = [ts_ms for recorded in decided.values() for ts_ms in recorded]
    if plan_id not in plans or not times:
        return
    for symbol in sorted({*plans[plan_id].symbols, *decided}):
        since_ts_ms = min(times)
        due = expected_bars(
            min(since_ts_ms, begun.get((plan_id, symbol), since_ts_ms)),
            max(times),
            calendar=calendars.get(symbol),
            interval_ms=plans[plan_id].bar_interval_ms,
        )
        yield from find_holes(plan_id, symbol, decided.get(symbol, ()), due)


def export_parquet(reader: LedgerReader, folder: Path) -> dict[str, int]:
    """Write one Parquet file per table and give how many rows each has.

    Every value is written as it stands: integers as int64, the rest as text.

    Raises:
        LedgerUnavailable: The ledger cannot be read.
        DataInvalid: A file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {name: _export(reader, name, folder / f"{name}.parquet") for name in EXPORTED}
    except OSError as error:
        message = f"{folder}: {type(error).__name__}, expected a folder that can be written"
        raise DataInvalid(message, file=folder) from error


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
            try:
                arrays = [
                    pa.array(values, type=field.type)
                    for field, values in zip(schema, zip(*rows, strict=True), strict=True)
                ]
            except pa.ArrowException as error:
                raise _unfit(name) from error
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return count


def _unfit(name: str) -> LedgerUnavailable:
    """Name the table in which somebody wrote what SQLite takes, and no ledger of ours."""
    cause = f"{name}: {UNFIT}"
    return LedgerUnavailable(f"the ledger cannot be read: {cause}", cause=cause)


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
