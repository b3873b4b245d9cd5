"""Stop asking a model that fails more often than not, for a while: the proxy answers meanwhile.

The forerunner's breaker stood over a gate that let orders pass, and opened it when the gate said no
too often: it failed open. Here the model is what is in doubt, and a model in doubt is not asked
(promise P4), so the breaker fails to the proxy. It never lets through what a gate holds back, and
what a kill switch, a key or the book says comes before it.

Unlike the latch it closes by itself; it spares callers' deadlines, and is no judgement.

Source: ADR-073 of the seeds' system (FORMULAS 1.7, fill probability); row R342; ADR 0055.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.reasons import Reason
from detent.contracts.units import INT32_MAX, PPM_ONE
from detent.core.rollout.latch import FAILURES


class BreakerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """States when the breaker opens; time is the process's own, on the monotonic clock.

    Attributes:
        rows_min: Rows within the window before it may open; 0 never opens it.
        window_s: Length of the window, and how long it stays open, seconds.
        share_ppm: It opens above this share of rows that failed.
    """

    rows_min: int = 0
    window_s: int = 300
    share_ppm: int = 500_000

    def __post_init__(self) -> None:
        """Refuse a window of no time and a share of more than all."""
        check_int("rows_min", self.rows_min, 0, INT32_MAX)
        check_int("window_s", self.window_s, 1, INT32_MAX)
        check_int("share_ppm", self.share_ppm, 0, PPM_ONE)


class ModelBreaker:
    """Counts the rows of one model.

    Attributes:
        episode_count: How often it opened; one for each time, however many rows failed.
    """

    def __init__(self, limits: BreakerLimits) -> None:
        """Begin closed, with nothing counted."""
        self._limits = limits
        # Each call: when, how many rows, how many of them failed.
        self._calls: deque[tuple[float, int, int]] = deque()
        self._row_count = self._failure_count = 0
        self._opened_s: float | None = None
        self.episode_count = 0

    def is_open(self, now_s: float) -> bool:
        """Say whether the model may not be asked; closes when its time is over.

        Args:
            now_s: The monotonic clock, seconds.
        """
        if self._opened_s is None:
            return False
        # A clock that went backwards says nothing of how long it was open.
        if 0.0 <= now_s - self._opened_s < self._limits.window_s:
            return True
        self._opened_s = None
        return False

    def note(self, reasons: Iterable[Reason | None], now_s: float) -> bool:
        """Count what came of asking, and say whether an episode began with it.

        Args:
            reasons: Of each row that the model was asked for; None where it answered.
            now_s: The monotonic clock, seconds.
        """
        if self.is_open(now_s):
            # Calls that were under way when it opened begin no further episode.
            return False
        counted = [reason in FAILURES for reason in reasons]
        if not counted or not self._limits.rows_min:
            return False
        self._calls.append((now_s, len(counted), sum(counted)))
        self._row_count += len(counted)
        self._failure_count += sum(counted)
        while now_s - self._calls[0][0] >= self._limits.window_s:
            _, rows, failures = self._calls.popleft()
            self._row_count -= rows
            self._failure_count -= failures
        if self._row_count < self._limits.rows_min:
            return False
        if self._failure_count * PPM_ONE <= self._limits.share_ppm * self._row_count:
            return False
        self._opened_s = now_s
        self.episode_count += 1
        # What comes after it is judged by itself.
        self._calls.clear()
        self._row_count = self._failure_count = 0
        return True
