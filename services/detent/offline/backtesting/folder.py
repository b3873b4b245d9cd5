"""Write a back-test's folder, read it back, and say whether it is a valid run.

    results_summary.json   what it ran on and came to; canonical, so the same run is the same bytes
    equity.parquet         the account bar by bar
    decisions.sqlite       the ledger: plan log, records, fills, summary; not there without records

A run is invalid when one of its parts is missing or says less than it must (R67, R233): nothing
is put in its place.
"""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detent.adapters.ledger_bulk import bulk_ledger
from detent.adapters.ledger_reading import SqliteReader
from detent.contracts.binding import ModelBinding
from detent.contracts.canonical import canonical_hash, parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import DataInvalid, DetentError
from detent.contracts.json_codec import from_json, to_json
from detent.core.evaluation.equity import EquityCurve
from detent.core.ledger.chain import ChainEnd
from detent.core.ledger.completeness import REQUIRED, judge_runs
from detent.offline.attributing import BACKTEST_LEDGER
from detent.offline.backtesting.engine import Ran, Setup, Stretch, run
from detent.offline.backtesting.fill_texts import FillWriter
from detent.offline.backtesting.record_texts import RecordWriter
from detent.offline.backtesting.results import BacktestSummary, summary_of
from detent.offline.backtesting.tally import Tally
from detent.offline.parquet import read_parquet
from detent.offline.samples import Progress

SUMMARY_FILE = "results_summary.json"
EQUITY_FILE = "equity.parquet"
LEDGER_FILE = BACKTEST_LEDGER
HEADS_SCHEMA = "detent.backtest_heads.v1"


class BacktestRun(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds a back-test as its folder does.

    Attributes:
        summary: What it ran on and came to.
        curve: The account, bar by bar.
    """

    summary: BacktestSummary
    curve: EquityCurve


def run_into(
    folder: Path,
    setup: Setup,
    *,
    signal_origin: str,
    records: bool,
    progress: Progress | None = None,
) -> tuple[BacktestRun, Ran]:
    """Run a back-test and write its folder.

    Args:
        folder: A new or empty folder; it is made.
        setup: What the run depends on.
        signal_origin: Where the model's answers come from.
        records: Whether every decision is recorded in a ledger.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The folder holds something or cannot be made, or the run cannot be done.
        LedgerUnavailable: The ledger cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataInvalid(
            f"{folder}: found {type(error).__name__}, expected a folder that can be made",
            found=type(error).__name__,
            expected="a folder that can be made",
        ) from error
    if found:
        raise DataInvalid(
            f"{folder}: found {', '.join(found[:4])}, expected an empty folder",
            found=", ".join(found[:4]),
            expected="an empty folder",
        )
    tally = Tally(setup)
    heads_hash = None
    if records:
        with bulk_ledger(folder / LEDGER_FILE) as ledger:
            ledger.open_plan(setup.bound)
            writer, fills = RecordWriter(setup), FillWriter(setup)

            def file(stretch: Stretch) -> None:
                batches = writer.batches(stretch)
                ledger.add_records(setup.bound.plan.plan_id, DecisionKind.BAR, batches)
                ledger.add_fills(fills.rows(stretch, writer.written))

            ran = run(setup, (tally, file), progress)
            heads = _heads(setup, writer)
            ledger.close_plan(setup.bound, tally.ledger_summary(heads).canonical)
        heads_hash = canonical_hash(HEADS_SCHEMA, {"heads": [to_json(head) for head in heads]})
    else:
        ran = run(setup, (tally,), progress)
    summary = summary_of(
        setup, ran, tally, signal_origin=signal_origin, record_heads_hash=heads_hash
    )
    write_curve(folder / EQUITY_FILE, ran.curve)
    # Last: a folder with a summary is a whole one.
    (folder / SUMMARY_FILE).write_bytes(summary.canonical)
    return BacktestRun(summary=summary, curve=ran.curve), ran


def _heads(setup: Setup, writer: RecordWriter) -> tuple[ChainEnd, ...]:
    ends = zip(setup.market.symbols, writer.sequences, writer.head_hashes, strict=True)
    plan_id = setup.bound.plan.plan_id
    return tuple(
        ChainEnd(plan_id=plan_id, symbol=symbol, sequence=sequence - 1, record_hash=head)
        for symbol, sequence, head in ends
        if sequence
    )


def write_curve(path: Path, curve: EquityCurve) -> None:
    """Write an account bar by bar; the same account is the same bytes."""
    columns = {name: getattr(curve, name) for name in EquityCurve.__struct_fields__}
    pq.write_table(pa.table(columns), path)


def read_curve(path: Path) -> EquityCurve:
    """Read an account bar by bar.

    Raises:
        DataInvalid: The file cannot be read, or is no account.
    """
    try:
        table = read_parquet(path, EquityCurve.__struct_fields__)
        return EquityCurve(
            **{name: np.asarray(table[name].to_numpy()) for name in EquityCurve.__struct_fields__}
        )
    except (OSError, KeyError, pa.ArrowException, DetentError) as error:
        raise _invalid(path, str(error), "the columns of an equity curve") from error


def read_run(folder: Path, *, records: bool = True) -> BacktestRun:
    """Read a back-test back; what is not a valid run is not read at all.

    Args:
        folder: What `run_into` wrote.
        records: Whether the run must hold the record of every decision.

    Raises:
        DataInvalid: The run is invalid; the message names the part that is missing or wrong.
    """
    summary = _read_summary(folder / SUMMARY_FILE)
    curve = read_curve(folder / EQUITY_FILE)
    if len(curve.ts_ms) != summary.bar_count:
        raise _invalid(folder / EQUITY_FILE, f"{len(curve.ts_ms)} bars", f"{summary.bar_count}")
    if records:
        _check_ledger(folder / LEDGER_FILE, summary)
    return BacktestRun(summary=summary, curve=curve)


def _read_summary(path: Path) -> BacktestSummary:
    try:
        fields = parse_json(SUMMARY_FILE, path.read_bytes())
        summary = from_json(BacktestSummary, fields)
    except (OSError, DetentError) as error:
        raise _invalid(path, str(error), "a whole summary") from error
    binding: ModelBinding = summary.binding
    if binding.effective != binding or binding.binding_hash != summary.binding_hash:
        raise _invalid(path, summary.binding_hash, f"the binding's own {binding.binding_hash}")
    return summary


def _check_ledger(path: Path, summary: BacktestSummary) -> None:
    """Refuse a ledger that lacks a part of the run, or holds another number of records."""
    plan_id = summary.plan.plan_id
    if not path.is_file():
        raise _invalid(path, "no file", f"the record of {summary.record_count} decisions")
    reader = SqliteReader(path)
    distinct = "SELECT DISTINCT plan_id FROM {}"
    present = {name: {row[0] for row in reader.query(distinct.format(name))} for name in REQUIRED}
    for judged in judge_runs(present, open_plans=()):
        if judged.missing:
            raise _invalid(path, f"nothing in {', '.join(judged.missing)}", "a closed run")
    counted = "SELECT COUNT(*) FROM decision_records WHERE plan_id = ?"
    count = next(iter(reader.query(counted, (plan_id,))))[0]
    if count != summary.record_count:
        raise _invalid(path, f"{count} records of {plan_id}", f"{summary.record_count}")


def _invalid(path: Path, found: str, expected: str) -> DataInvalid:
    message = f"invalid run, {path.name}: found {found}, expected {expected}"
    return DataInvalid(message, file=path.name, found=found, expected=expected)
