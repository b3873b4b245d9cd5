"""Look for everything that is wrong with a file of bars, and say how much it covers.

Reading for use stops at the first bad row; this goes on and counts, so that a person sees the
whole state of a file at once. Defects make a file unusable. Gaps and bars without volume are
what markets and exchanges do: they are reported and leave the file usable.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import INTERVAL_MS_MAX
from detent.offline.bars import (
    BARS_MAX,
    COLUMNS,
    NUMBERS,
    OPTIONAL,
    PRICES,
    RawBar,
    bar_of,
    raw_bar,
)
from detent.offline.cells import invalid, raw_cells
from detent.offline.coverage import MONTHS_MIN, REGIMES_MIN, Coverage, coverage_of
from detent.offline.findings import Finding, FindingCount, Tally, utc

SYMBOLS_MAX = 100_000
FINDINGS = tuple(one for one in Finding if one not in (Finding.CROSSED, Finding.BOOK_INVALID))


class DataReport(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a file holds and what is wrong with it.

    Attributes:
        file: Name of the file.
        rows: Data rows, bad ones included.
        interval_ms: Length of the bars: the most frequent distance; None with too few rows.
        findings: One count per kind, in the order of `Finding`; kinds not found count 0.
        coverage: One entry per symbol, in alphabetical order, over the rows without defect.
    """

    file: str
    rows: int
    interval_ms: int | None
    findings: tuple[FindingCount, ...]
    coverage: tuple[Coverage, ...]

    @property
    def defect_count(self) -> int:
        """Count what makes the file unusable."""
        return sum(one.count for one in self.findings if one.defect)

    @property
    def usable(self) -> bool:
        """Say whether the file can be read for use: no defect, and some bars."""
        return self.defect_count == 0 and bool(self.coverage)

    @property
    def suffices_for_promotion(self) -> bool:
        """Say whether evidence from this file may promote a model; no data is no evidence."""
        enough = [one.suffices for one in self.coverage]
        return self.usable and all(enough)


def check_data(path: Path, *, progress: Callable[[str, int, int], None]) -> DataReport:
    """Read a `.parquet` or `.csv` file of bars to its end and report what it is like.

    Args:
        path: The file.
        progress: Told of (stage, done, in all).

    Raises:
        DataInvalid: The file cannot be read at all, or lacks a column.

    Source: REQUIREMENTS R170.
    """
    tally = Tally()
    by_symbol: dict[str, list[RawBar]] = collections.defaultdict(list)
    rows = 0
    progress("read", 0, 1)
    for rows, cells in raw_cells(path, COLUMNS, optional=OPTIONAL):
        if rows > BARS_MAX:
            raise invalid(path.name, f"more than {BARS_MAX} rows", f"at most {BARS_MAX}")
        try:
            raw = raw_bar(path.name, rows, cells)
        except DataInvalid as error:
            facts = error.metadata
            what = f"{facts['column']}: found {facts['found']}, expected {facts['expected']}"
            tally.add(Finding.UNREADABLE, str(cells.get("symbol") or ""), rows, what)
            continue
        by_symbol[raw.symbol].append(raw)
        if len(by_symbol) > SYMBOLS_MAX:
            raise invalid(path.name, "too many symbols", f"at most {SYMBOLS_MAX}")
    progress("read", 1, 1)
    interval_ms = _interval_ms(by_symbol.values())
    coverage = []
    for done, symbol in enumerate(sorted(by_symbol), start=1):
        ordered = list(_in_order(by_symbol[symbol], tally))
        good = list(_sound(ordered, interval_ms, tally))
        if good and interval_ms is not None:
            _find_gaps(good, interval_ms, tally)
            coverage.append(coverage_of(symbol, good, interval_ms))
        progress("check", done, len(by_symbol))
    return DataReport(
        file=path.name,
        rows=rows,
        interval_ms=interval_ms,
        findings=tally.listed(FINDINGS),
        coverage=tuple(coverage),
    )


def require_promotion_data(report: DataReport) -> None:
    """Refuse data on which no model may be promoted.

    Raises:
        DataInvalid: The file has defects, or a symbol covers too little.

    Source: REQUIREMENTS R170.
    """
    if report.defect_count:
        raise invalid(report.file, f"{report.defect_count} defects", "none, for promotion")
    for one in report.coverage:
        if not one.suffices:
            found = f"{one.symbol} with {one.months:.1f} months and {len(one.regimes)} regimes"
            expected = f"{MONTHS_MIN} months and {REGIMES_MIN} regimes, for promotion"
            raise invalid(report.file, found, expected)
    if not report.coverage:
        raise invalid(report.file, "no sound bar", "evidence, for promotion")


def _interval_ms(series: Iterable[Sequence[RawBar]]) -> int | None:
    """Take the most frequent distance forward between neighbours; the shorter on a tie."""
    distances = collections.Counter(
        after.open_ts_ms - before.open_ts_ms
        for raws in series
        for before, after in itertools.pairwise(raws)
        if 0 < after.open_ts_ms - before.open_ts_ms <= INTERVAL_MS_MAX
    )
    return min(distances, key=lambda one: (-distances[one], one)) if distances else None


def _in_order(raws: Iterable[RawBar], tally: Tally) -> Iterator[RawBar]:
    """Yield the rows that move time forward; report those that repeat it or go back."""
    seen: set[int] = set()
    newest = 0
    for raw in raws:
        if raw.open_ts_ms in seen:
            tally.add(Finding.DUPLICATE, raw.symbol, raw.row, f"{utc(raw.open_ts_ms)} again")
            continue
        seen.add(raw.open_ts_ms)
        if raw.open_ts_ms < newest:
            what = f"{utc(raw.open_ts_ms)} after {utc(newest)}"
            tally.add(Finding.UNSORTED, raw.symbol, raw.row, what)
            continue
        newest = raw.open_ts_ms
        yield raw


def _sound(raws: Iterable[RawBar], interval_ms: int | None, tally: Tally) -> Iterator[RawBar]:
    """Yield the rows that make a bar on the grid; report the others by their first defect."""
    anchor_ts_ms = None
    for raw in raws:
        anchor_ts_ms = raw.open_ts_ms if anchor_ts_ms is None else anchor_ts_ms
        found = _defect(raw, interval_ms, anchor_ts_ms)
        if found is not None:
            tally.add(found[0], raw.symbol, raw.row, found[1])
            continue
        if not raw.numbers[-1]:
            tally.add(
                Finding.ZERO_VOLUME, raw.symbol, raw.row, f"volume 0 at {utc(raw.open_ts_ms)}"
            )
        yield raw


def _defect(raw: RawBar, interval_ms: int | None, anchor_ts_ms: int) -> tuple[Finding, str] | None:
    cells = dict(zip(NUMBERS, raw.numbers, strict=True))
    if interval_ms is not None and (raw.open_ts_ms - anchor_ts_ms) % interval_ms:
        return Finding.OFF_GRID, f"{utc(raw.open_ts_ms)} is not {interval_ms} ms times n away"
    for name in PRICES:
        if cells[name] <= 0:
            return Finding.NON_POSITIVE_PRICE, f"{name} {cells[name]}"
    if cells["volume"] < 0:
        return Finding.NEGATIVE_VOLUME, f"volume {cells['volume']}"
    open_, high, low, close = (cells[name] for name in PRICES)
    if high < max(open_, low, close) or low > min(open_, close):
        return Finding.OHLC_INCONSISTENT, f"open {open_} high {high} low {low} close {close}"
    length_ms = interval_ms or 1
    try:
        bar_of(raw, length_ms)
    except InvalidField as error:
        return Finding.OUT_OF_RANGE, error.message
    return None


def _find_gaps(raws: Sequence[RawBar], interval_ms: int, tally: Tally) -> None:
    for before, after in itertools.pairwise(raws):
        missing = (after.open_ts_ms - before.open_ts_ms) // interval_ms - 1
        if missing:
            what = f"{missing} missing after {utc(before.open_ts_ms)}"
            tally.add(Finding.GAP, after.symbol, after.row, what)
