"""Count, per symbol and calendar month, which rows and which features are complete.

Every count is kept so that it can be added up: rows are served or refused, each refused row
has one reason, and a feature is present or absent in each row.
"""

import collections
import csv
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureSpec
from detent.core.features.rolling import iter_row_blocks
from detent.offline.bars import BarTable
from detent.offline.cells import invalid
from detent.offline.feature_sets import check_bars_fit
from detent.offline.samples import Progress

STAGE = "audit"


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Counts one symbol in one calendar window.

    Attributes:
        symbol: Instrument.
        window: Calendar month UTC in which the bars opened, `YYYY-MM`.
        rows: Bars, and so rows.
        served: Rows that hold values.
        refused: Rows that hold none, by reason.
        present: By feature, the rows in which that feature alone could be had; at least
            `served`, and more where a row was refused for another feature's sake.
    """

    symbol: str
    window: str
    rows: int
    served: int
    refused: dict[str, int]
    present: dict[str, int]


def audit_features(
    table: BarTable, feature_set: FeatureSet, *, progress: Progress
) -> tuple[AuditRow, ...]:
    """Count what a build over these bars would hold, by symbol and month.

    Args:
        table: The bars.
        feature_set: What a model is given.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The bars do not fit the set, or the counts do not add up, which is a
            defect of ours.

    Source: REQUIREMENTS R300.
    """
    check_bars_fit(feature_set, table.interval_ms)
    audit: list[AuditRow] = []
    done = 0
    for symbol, bars in sorted(table.bars.items()):
        refusals = _refusals(feature_set, bars)
        present = {
            spec.name: _present(_alone(feature_set, spec), bars, refusals)
            for spec in feature_set.features
        }
        audit.extend(_by_window(symbol, bars, refusals, present))
        done += len(bars)
        progress(STAGE, done, table.bar_count)
    check_reconciled(audit, bar_count=table.bar_count)
    return tuple(audit)


def check_reconciled(audit: Iterable[AuditRow], *, bar_count: int) -> None:
    """Refuse an audit whose counts do not add up.

    Args:
        audit: All rows of the audit.
        bar_count: Bars in the data.

    Raises:
        DataInvalid: A window, or the whole, does not add up.
    """
    total = 0
    for row in audit:
        total += row.rows
        refused = sum(row.refused.values())
        where = f"{row.symbol} {row.window}"
        if row.served + refused != row.rows:
            raise _unreconciled(where, f"{row.served} served and {refused} refused", row.rows)
        for name, count in row.present.items():
            if not row.served <= count <= row.rows:
                raise _unreconciled(f"{where} {name}", f"{count} present", row.rows)
    if total != bar_count:
        raise _unreconciled("all windows", f"{total} rows", bar_count)


def write_audit(path: Path, audit: Sequence[AuditRow], *, force: bool) -> None:
    """Write the audit as CSV: one line per symbol and month, one column per count.

    Raises:
        DataInvalid: The file exists and may not be replaced, or cannot be written.
    """
    if path.exists() and not force:
        raise invalid(path.name, "a file of that name", "none, or --force to replace it")
    reasons = audit_reasons(audit)
    features = tuple(audit[0].present) if audit else ()
    header = ["symbol", "window", "rows", "served"]
    header += [f"refused_{reason}" for reason in reasons] + [f"present_{name}" for name in features]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="ascii", newline="") as target:
            writer = csv.writer(target, lineterminator="\n")
            writer.writerow(header)
            for row in audit:
                refused = [row.refused.get(reason, 0) for reason in reasons]
                present = [row.present[name] for name in features]
                writer.writerow([row.symbol, row.window, row.rows, row.served, *refused, *present])
    except OSError as error:
        raise invalid(path.name, error, "a file that can be written") from error


def audit_reasons(audit: Iterable[AuditRow]) -> tuple[str, ...]:
    """List the reasons that occur, in alphabetical order."""
    return tuple(sorted({reason for row in audit for reason in row.refused}))


def _refusals(feature_set: FeatureSet, bars: Sequence[Bar]) -> list[Reason | None]:
    return [one for block in iter_row_blocks(feature_set, bars) for one in block.refusals]


def _alone(feature_set: FeatureSet, spec: FeatureSpec) -> FeatureSet:
    """Give the set of one feature and of what it is made of."""
    wanted, found = {spec.name}, {spec.name}
    while found:
        made_of = (one for one in feature_set.features if one.name in found)
        found = {source for one in made_of for source in one.sources} - wanted
        wanted |= found
    features = tuple(one for one in feature_set.features if one.name in wanted)
    try:
        bookless = structs.replace(feature_set.engine, book=None)
        return structs.replace(feature_set, features=features, engine=bookless)
    except InvalidField:
        # A feature reads the book, and a set that does so says how.
        return structs.replace(feature_set, features=features)


def _present(
    alone: FeatureSet, bars: Sequence[Bar], refusals: Sequence[Reason | None]
) -> list[bool]:
    """Say per bar whether a feature could be had, whatever became of the others.

    A row that is served has them all, so only the bars up to the last refusal are looked at.
    """
    present = [refusal is None for refusal in refusals]
    last = max((index for index, served in enumerate(present) if not served), default=-1)
    for index, refusal in enumerate(_refusals(alone, bars[: last + 1])):
        present[index] = refusal is None
    return present


def _by_window(
    symbol: str,
    bars: Sequence[Bar],
    refusals: Sequence[Reason | None],
    present: dict[str, list[bool]],
) -> list[AuditRow]:
    places: dict[str, list[int]] = collections.defaultdict(list)
    for index, bar in enumerate(bars):
        opened = dt.datetime.fromtimestamp((bar.ts_ms - bar.interval_ms) / 1_000, tz=dt.UTC)
        places[f"{opened:%Y-%m}"].append(index)
    audit = []
    for window, mine in sorted(places.items()):
        refused = collections.Counter(str(refusals[index]) for index in mine if refusals[index])
        audit.append(
            AuditRow(
                symbol=symbol,
                window=window,
                rows=len(mine),
                served=len(mine) - refused.total(),
                refused=dict(sorted(refused.items())),
                present={
                    name: sum(held[index] for index in mine) for name, held in present.items()
                },
            )
        )
    return audit


def _unreconciled(where: str, found: str, rows: int) -> DataInvalid:
    message = f"audit of {where}: found {found}, expected them to add up to {rows} rows"
    return DataInvalid(message, found=found, expected=rows)
