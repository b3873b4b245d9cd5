"""Read decisions, fills and outcomes, and attribute what they earned: `detent attribution`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from detent.adapters.ledger_reading import (
    POSTGRESQL_PREFIX,
    LedgerReader,
    canonical_texts,
    open_reader,
    plan_rows,
)
from detent.adapters.plan_texts import bound_of
from detent.contracts.canonical import parse_json
from detent.contracts.decimals import format_decimal
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import DataConflict, InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.trades import Fill, Outcome
from detent.core.ledger.attribution import RECORDS_MAX
from detent.core.ledger.attribution_report import AttributionReport, attribute
from detent.core.ledger.exact_money import exact_sum
from detent.core.ledger.record import BoundPlan
from detent.offline.cells import invalid, invalid_at
from detent.offline.parquet import open_parquet, read_batches

# A book and a symbol.
Place = tuple[str, str]
Fact = TypeVar("Fact", bound=Fill | Outcome)
LINES_SUFFIX = ".jsonl"
BACKTEST_LEDGER = "decisions.sqlite"
# A fill has a dozen short fields.
LINE_BYTES_MAX = 65_536


def attribute_ledger(
    ledger: str,
    *,
    fills: Path | None,
    outcomes: Path | None,
    plan_id: str = "",
    plan_score: int | None = None,
) -> AttributionReport:
    """Attribute what a ledger holds, with facts from files beside those in it.

    Args:
        ledger: `postgresql://` with what was shipped, the SQLite file of a policy service, or
            the folder of a back-test.
        fills: More fills, `.jsonl` or `.parquet`; one that the ledger has as well counts once.
        outcomes: More outcomes, in the same forms.
        plan_id: Only this plan, which has to have begun flat; empty for all.
        plan_score: What a judge of plans gave, [0, 100].

    Raises:
        DataInvalid: A file is missing or not usable, or the ledger holds nothing of the plan, or
            the plan took over a position.
        LedgerUnavailable: The ledger cannot be read.
        DetentError: The facts contradict each other or the ledger; see `attribute`.
    """
    place = _found(ledger)
    held = read_held(place, plan_id)
    if not held.records:
        of = f" of plan {plan_id!r}" if plan_id else ""
        raise invalid("ledger", "no decision", f"at least one decision{of}")
    every_fill = list(_facts(Fill, fills))
    more_fills = [one for one in every_fill if plan_id in ("", one.plan_id)]
    more_outcomes = [one for one in _facts(Outcome, outcomes) if plan_id in ("", one.plan_id)]
    own_fills = list(_joined({one.fill_id: one for one in held.fills}, more_fills).values())
    if plan_id:
        every_fill += _held_facts(open_reader(place), Fill, "fills", "")
        others = {one.fill_id: one for one in every_fill if one.plan_id != plan_id}
        _check_begun_flat(plan_id, held.records, own_fills, list(others.values()))
    return attribute(
        held.records,
        own_fills,
        list(_joined({_bar(one): one for one in held.outcomes}, more_outcomes).values()),
        plans=held.plans,
        plan_score=plan_score,
    )


def _check_begun_flat(
    plan_id: str, records: list[DecisionRecord], own: list[Fill], others: list[Fill]
) -> None:
    """Refuse a plan that took over a position: what it held was bought before all that is read.

    Raises:
        DataInvalid: It did, or others had sold before what it bought back.
    """
    begun: dict[Place, int] = {}
    traded: dict[Place, int] = {}
    for record in records:
        place = record.book, record.row.symbol
        begun[place] = min(record.ts_ms, begun.get(place, record.ts_ms))
    for fill in own:
        place = fill.book, fill.symbol
        traded[place] = min(fill.ts_ms, traded.get(place, fill.ts_ms))
    for place, ts_ms in sorted(begun.items()):
        # On the bar that another plan decided last, that plan's own order is filled first.
        until_ts_ms = max(ts_ms, traded.get(place, ts_ms))
        quantity = exact_sum(
            one.signed_quantity
            for one in others
            if (one.book, one.symbol) == place and one.ts_ms <= until_ts_ms
        )
        if quantity:
            book, symbol = place
            found = f"{plan_id}, which took over {format_decimal(quantity)} {symbol} in {book}"
            raise invalid("plan_id", found, "a plan that began flat, or none for the whole book")


def _found(ledger: str) -> str:
    """Give the ledger itself, where a folder of a back-test is named."""
    if ledger.startswith(POSTGRESQL_PREFIX):
        return ledger
    path = Path(ledger)
    if path.is_dir():
        path /= BACKTEST_LEDGER
    if not path.is_file():
        expected = "the ledger file of a policy service, or the folder of a back-test"
        raise invalid(path.name, "(no such file)", expected)
    return str(path)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a ledger holds of a plan, or of all, in the order of writing."""

    records: list[DecisionRecord]
    plans: dict[str, BoundPlan]
    fills: list[Fill]
    outcomes: list[Outcome]


def read_held(ledger: str, plan_id: str = "") -> Held:
    """Read what a ledger holds of a plan, or of all when its name is empty.

    Raises:
        DataInvalid: It holds more decisions than are attributed at once.
        LedgerUnavailable: It cannot be read.
    """
    reader = open_reader(ledger)
    records: list[DecisionRecord] = []
    for text in canonical_texts(reader, "decision_records", plan_id):
        records.append(from_json(DecisionRecord, parse_json("record", text)))
        if len(records) > RECORDS_MAX:
            raise invalid("ledger", "more decisions", f"at most {RECORDS_MAX}")
    decided = {record.plan_id for record in records}
    opened = plan_rows(reader)
    return Held(
        records=records,
        plans={row[0]: bound_of(row[1:]) for row in opened if row[0] in decided},
        fills=_held_facts(reader, Fill, "fills", plan_id),
        outcomes=_held_facts(reader, Outcome, "outcomes", plan_id),
    )


def _held_facts(reader: LedgerReader, kind: type[Fact], table: str, plan_id: str) -> list[Fact]:
    texts = canonical_texts(reader, table, plan_id)
    return [from_json(kind, parse_json(table, text)) for text in texts]


def _bar(outcome: Outcome) -> tuple[str, str, int]:
    return outcome.plan_id, outcome.symbol, outcome.ts_ms


def _joined(held: dict[Any, Fact], more: list[Fact]) -> dict[Any, Fact]:
    """Add facts to those that are held; the same fact again changes nothing."""
    joined = dict(held)
    for fact in more:
        key = fact.fill_id if isinstance(fact, Fill) else _bar(fact)
        if joined.setdefault(key, fact) != fact:
            raise DataConflict(str(key), fact, f"what is held: {joined[key]}")
    return joined


def _facts(kind: type[Fact], path: Path | None) -> Iterator[Fact]:
    """Read facts, and name the row, counted from 1, that is none."""
    if path is None:
        return
    for row, fields in fact_rows(path):
        try:
            yield from_json(kind, fields)
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error


def fact_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the rows of a file as JSON objects; a cell that is null is no key."""
    try:
        match path.suffix.lower():
            case ".jsonl":
                with path.open("rb") as lines:
                    row = 0
                    while line := lines.readline(LINE_BYTES_MAX):
                        row += 1
                        yield row, _object(path, row, line)
            case ".parquet":
                with open_parquet(path) as source:
                    row = 0
                    for batch in read_batches(source):
                        for cells in batch.to_pylist():
                            row += 1
                            yield row, {k: v for k, v in cells.items() if v is not None}
            case suffix:
                expected = f"{LINES_SUFFIX} or .parquet"
                raise invalid(path.name, suffix or "(no suffix)", expected)
    except (OSError, pa.ArrowException) as error:
        raise invalid(path.name, type(error).__name__, "a file that can be read") from error


def _object(path: Path, row: int, line: bytes) -> dict[str, Any]:
    try:
        return dict(parse_json("line", line.strip()))
    except InvalidField as error:
        raise invalid_at(path.name, row, error) from error
