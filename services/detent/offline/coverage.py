"""Say how much time and how many market regimes the bars of a symbol cover.

Six months of evidence in one rising market prove nothing about a falling one, and a few days
half a year apart are not six months.
"""

import datetime as dt
import itertools
import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from detent.offline.bars import RawBar

MONTHS_MIN = 6
REGIMES_MIN = 2
DAY_MS = 86_400_000
# A weekend with a holiday on either side is no hole in a market that closes on weekends.
HOLE_MS_MIN = 5 * DAY_MS
DAYS_PER_MONTH = 365.25 / 12
# A month that moves by less than so many standard deviations of a driftless walk is a range.
TREND_DEVIATIONS = 0.5
MONTH_BARS_MIN = 10


class Regime(StrEnum):
    """Names what the market did in a calendar month."""

    RISE = "rise"
    RANGE = "range"
    FALL = "fall"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the bars of one symbol and length cover.

    Attributes:
        symbol: Instrument.
        interval_ms: Length of the bars.
        bars: Number of sound bars.
        missing_bars: Bars that would lie in the gaps between them.
        first_open_ts_ms: Open time of the first.
        last_close_ts_ms: Close time of the last.
        months: Calendar months covered, holes of more than five days taken out.
        regimes: Calendar months by what the market did in them; a month with fewer than ten
            bars counts for none.
        suffices: Whether evidence from them may promote a model.
    """

    symbol: str
    interval_ms: int
    bars: int
    missing_bars: int
    first_open_ts_ms: int
    last_close_ts_ms: int
    months: float
    regimes: dict[Regime, int]
    suffices: bool


def coverage_of(symbol: str, raws: Sequence[RawBar], interval_ms: int) -> Coverage:
    """Measure the coverage of sound bars, oldest first; there is at least one.

    Source: REQUIREMENTS R170.
    """
    first_ts_ms, last_ts_ms = raws[0].open_ts_ms, raws[-1].open_ts_ms + interval_ms
    between_ms = [
        after.open_ts_ms - before.open_ts_ms - interval_ms
        for before, after in itertools.pairwise(raws)
    ]
    holes_ms = sum(hole_ms for hole_ms in between_ms if hole_ms > HOLE_MS_MIN)
    months = months_between(first_ts_ms, last_ts_ms - holes_ms)
    regimes = _regimes(raws)
    return Coverage(
        symbol=symbol,
        interval_ms=interval_ms,
        bars=len(raws),
        missing_bars=sum(between_ms) // interval_ms,
        first_open_ts_ms=first_ts_ms,
        last_close_ts_ms=last_ts_ms,
        months=round(months, 2),
        regimes=regimes,
        suffices=months >= MONTHS_MIN and len(regimes) >= REGIMES_MIN,
    )


def months_between(first_ts_ms: int, last_ts_ms: int) -> float:
    """Count calendar months: from any day to the same day of the sixth month are six.

    Args:
        first_ts_ms: Begin, Unix milliseconds UTC.
        last_ts_ms: End, not before the begin.
    """
    first, last = (
        dt.datetime.fromtimestamp(ts_ms / 1_000, tz=dt.UTC) for ts_ms in (first_ts_ms, last_ts_ms)
    )
    whole = (last.year - first.year) * 12 + last.month - first.month
    # The days and hours within the month, as a share of an average one.
    within_ms = [
        ((at.day - 1) * DAY_MS + (at.hour * 60 + at.minute) * 60_000 + at.second * 1_000)
        for at in (first, last)
    ]
    part = (within_ms[1] - within_ms[0]) / DAY_MS / DAYS_PER_MONTH
    return whole + part


def _regimes(raws: Sequence[RawBar]) -> dict[Regime, int]:
    """Count the months by regime, in the order of `Regime`; what does not occur is left out.

    A month's return is set against what a driftless walk with the same steps would make of
    it: the root of the sum of its squared steps.
    """
    counts = dict.fromkeys(Regime, 0)
    for _, group in itertools.groupby(raws, key=_month):
        closes = [float(raw.numbers[3]) for raw in group]
        if len(closes) < MONTH_BARS_MIN:
            continue
        steps = [after / before - 1.0 for before, after in itertools.pairwise(closes)]
        moved = closes[-1] / closes[0] - 1.0
        bound = TREND_DEVIATIONS * math.sqrt(math.fsum(step * step for step in steps))
        regime = Regime.RISE if moved > bound else Regime.FALL if moved < -bound else Regime.RANGE
        counts[regime] += 1
    return {regime: count for regime, count in counts.items() if count}


def _month(raw: RawBar) -> tuple[int, int]:
    opened = dt.datetime.fromtimestamp(raw.open_ts_ms / 1_000, tz=dt.UTC)
    return opened.year, opened.month
