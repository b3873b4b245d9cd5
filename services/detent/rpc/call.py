"""Give handlers what they may know of a call: deadline, identity, trace.

Cancellation needs no field: a caller that leaves cancels the task that serves it.
"""

from collections.abc import Callable

import msgspec
from msgspec import structs
from opentelemetry.context import Context

from detent.contracts.errors import DeadlineExceeded

# A server keeps a slice of what is left for its own answer, so that it can still say what
# timed out: 20 ms, or a tenth where that is less.
RESERVE_S_MAX = 0.020
RESERVE_SHARE = 0.10
REMAINING_S_MIN = 0.001


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Carries what is known of one call, whatever transport brought it.

    Attributes:
        deadline_s: Instant at which the caller stops waiting, on `clock`.
        clock: Monotonic clock in seconds.
        identity: Who calls, as far as the transport knows; empty in process.
        trace: The caller's trace context.
    """

    deadline_s: float
    clock: Callable[[], float]
    identity: str
    trace: Context

    def remaining_s(self) -> float:
        """Give the time left, in seconds; not positive when the deadline has passed."""
        return self.deadline_s - self.clock()

    def budget_s(self) -> float:
        """Give what a dependency may take: what is left, less our own reserve.

        Raises:
            DeadlineExceeded: Too little is left to ask anybody.
        """
        remaining_s = self.remaining_s()
        if remaining_s < REMAINING_S_MIN:
            raise DeadlineExceeded(
                "too little of the deadline is left", remaining_ms=round(remaining_s * 1000)
            )
        return remaining_s - min(RESERVE_S_MAX, RESERVE_SHARE * remaining_s)

    def narrowed(self, *, budget_s: float, trace: Context) -> "Call":
        """Give the call that a dependency sees."""
        return structs.replace(self, deadline_s=self.clock() + budget_s, trace=trace)
