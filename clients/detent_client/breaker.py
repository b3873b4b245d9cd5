"""Stop asking a service that does not answer, and find out gently when it does again."""

from collections.abc import Callable


class CircuitBreaker:
    """Opens after failures in a row; while open it lets one probe through per interval."""

    def __init__(self, *, failures_max: int, open_s: float, clock: Callable[[], float]) -> None:
        """Start closed; the clock is monotonic, in seconds."""
        self._failures_max = failures_max
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._retry_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether calls are being held back."""
        return self._failures >= self._failures_max

    def allows(self) -> bool:
        """Say whether a call may go out now; while open, the first to ask is the probe."""
        if not self.is_open:
            return True
        now_s = self._clock()
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + self._open_s
        return True

    def succeeded(self) -> None:
        """Close: the service answered, whatever it said."""
        self._failures = 0

    def failed(self) -> None:
        """Count a call that got no answer."""
        self._failures += 1
        if self.is_open:
            self._retry_at_s = self._clock() + self._open_s
