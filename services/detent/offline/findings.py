"""Names what can be wrong with a data file, and counts it with some examples."""

import collections
import datetime as dt
from collections.abc import Iterable
from enum import StrEnum

import msgspec

EXAMPLES_MAX = 5


class Finding(StrEnum):
    """Names what can be found in a file; the last two leave it usable."""

    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate"
    UNSORTED = "unsorted"
    OFF_GRID = "off_grid"
    NON_POSITIVE_PRICE = "non_positive_price"
    NEGATIVE_VOLUME = "negative_volume"
    OHLC_INCONSISTENT = "ohlc_inconsistent"
    OUT_OF_RANGE = "out_of_range"
    CROSSED = "crossed"
    BOOK_INVALID = "book_invalid"
    GAP = "gap"
    ZERO_VOLUME = "zero_volume"


DEFECTS = frozenset(Finding) - {Finding.GAP, Finding.ZERO_VOLUME}


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """Shows one place where something was found.

    Attributes:
        symbol: Instrument; empty where the row does not say.
        row: Number of the data row, from 1.
        what: What was found there.
    """

    symbol: str
    row: int
    what: str


class FindingCount(msgspec.Struct, frozen=True, kw_only=True):
    """Counts one kind of finding and shows the first ones.

    Attributes:
        finding: Which kind.
        defect: Whether it makes the file unusable.
        count: How often.
        examples: The first ones, at most `EXAMPLES_MAX`.
    """

    finding: Finding
    defect: bool
    count: int
    examples: tuple[Example, ...]


class Tally:
    """Collects findings, a bounded number of them in detail.

    Attributes:
        counts: How often each was found.
        examples: The first ones of each.
    """

    def __init__(self) -> None:
        """Start without findings."""
        self.counts: collections.Counter[Finding] = collections.Counter()
        self.examples: dict[Finding, list[Example]] = collections.defaultdict(list)

    def add(self, finding: Finding, symbol: str, row: int, what: str) -> None:
        """Count a finding; of each kind the first ones are kept."""
        self.counts[finding] += 1
        if len(self.examples[finding]) < EXAMPLES_MAX:
            self.examples[finding].append(Example(symbol=symbol, row=row, what=what))

    def listed(self, findings: Iterable[Finding]) -> tuple[FindingCount, ...]:
        """Give a count for each of some kinds, found or not."""
        return tuple(
            FindingCount(
                finding=finding,
                defect=finding in DEFECTS,
                count=self.counts[finding],
                examples=tuple(self.examples[finding]),
            )
            for finding in findings
        )


def utc(ts_ms: int) -> str:
    """Write a time for a person, to the second."""
    return f"{dt.datetime.fromtimestamp(ts_ms // 1_000, tz=dt.UTC):%Y-%m-%d %H:%M:%S}"
