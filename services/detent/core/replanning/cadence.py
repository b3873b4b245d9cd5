"""Say whether it is time to replan: on an event or a heartbeat, and not too often."""

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.replanning import ReplanCause, ReplanSkipReason
from detent.contracts.units import INT64_MAX

MIN_INTERVAL_MS = 900_000
HEARTBEAT_MS = 3_600_000
MINUTE_MS = 60_000


class Cadence(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how often a plan is thought over; both in milliseconds of data time.

    Attributes:
        min_interval_ms: Least time between two, at least 0.
        heartbeat_ms: Time after which one is due without an event, at least `min_interval_ms`.

    Source: FORMULAS 2.3; row R355.
    """

    min_interval_ms: int = MIN_INTERVAL_MS
    heartbeat_ms: int = HEARTBEAT_MS

    def __post_init__(self) -> None:
        """Refuse a heartbeat that would always come too early."""
        check_int("min_interval_ms", self.min_interval_ms, 0, INT64_MAX)
        check_int("heartbeat_ms", self.heartbeat_ms, max(1, self.min_interval_ms), INT64_MAX)


def cadence_of_bars(bar_interval_ms: int) -> Cadence:
    """Give the cadence for bars of a length: minute bars have the faster heartbeat."""
    heartbeat_ms = MIN_INTERVAL_MS if bar_interval_ms <= MINUTE_MS else HEARTBEAT_MS
    return Cadence(heartbeat_ms=heartbeat_ms)


def judge_cadence(
    cadence: Cadence, *, ts_ms: int, last_ts_ms: int | None, is_running: bool, has_event: bool
) -> ReplanCause | ReplanSkipReason:
    """Say what makes a replan due at an instant, or why it is not.

    Args:
        cadence: How often.
        ts_ms: The instant, data time.
        last_ts_ms: When the last one began; None before the first.
        is_running: Whether one is under way.
        has_event: Whether something happened that asks for one.

    Returns:
        The cause of the replan, or the first reason against it: single flight comes before
        everything, and an instant at which nothing asks for one is not too early but idle.
    """
    if is_running:
        return ReplanSkipReason.ALREADY_RUNNING
    is_due = last_ts_ms is None or ts_ms - last_ts_ms >= cadence.heartbeat_ms
    if not has_event and not is_due:
        return ReplanSkipReason.NO_EVENT_AND_NO_HEARTBEAT
    if not_before_ts_ms(cadence.min_interval_ms, last_ts_ms) > ts_ms:
        return ReplanSkipReason.COOLDOWN_NOT_EXPIRED
    return ReplanCause.EVENT if has_event else ReplanCause.HEARTBEAT


def not_before_ts_ms(min_interval_ms: int, last_ts_ms: int | None) -> int:
    """Give the first instant that is not too early; 0 before the first replan.

    An instant before the last one is too early as well: time that goes back is no reason.
    """
    return 0 if last_ts_ms is None else last_ts_ms + min_interval_ms
