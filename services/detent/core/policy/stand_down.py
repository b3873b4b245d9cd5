"""Say which stand-down is in force at an instant: a state with an end, a cause and a source."""

from collections.abc import Iterable

from detent.contracts.plan import StandDown


def stand_down_in_force(candidates: Iterable[StandDown | None], ts_ms: int) -> StandDown | None:
    """Give the stand-down that holds at an instant and ends last; None when none holds.

    One ends by itself: the instant of its end is free again. Of two that end together the
    first is given, so that the same candidates in the same order give the same record.

    Args:
        candidates: Stand-downs of every source, in a fixed order; None counts as none.
        ts_ms: Close time of the bar, Unix milliseconds: an end is data time, like every age.

    Source: seed 002, phase 1 D; rows R220 to R222.
    """
    found: StandDown | None = None
    for candidate in candidates:
        if candidate is None or candidate.until_ts_ms <= ts_ms:
            continue
        if found is None or candidate.until_ts_ms > found.until_ts_ms:
            found = candidate
    return found
