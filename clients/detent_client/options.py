"""Hold what a strategist may choose about its client."""

import math
from pathlib import Path

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Says where the services are and how long to wait for them.

    Attributes:
        policy_target: Address of the policy service.
        feature_target: Address of the feature service; None when another feed serves it.
        inference_target: Address of the inference service, for the heads that advise the
            strategist itself; None when it asks for none.
        journal_file: Where answers of the client's own are kept until they are reported.
        deadline_s: Time for one call, all its attempts included, above 0.
        attempts_max: Attempts of an idempotent call while the service is unavailable, at least 1.
        backoff_s: Longest wait before the second attempt, at least 0; it doubles with each.
        breaker_failures: Failures in a row after which no service is asked for a while, at
            least 1.
        breaker_open_s: How long it is not asked, at least 0.
    """

    journal_file: Path
    policy_target: str = "127.0.0.1:7303"
    feature_target: str | None = None
    inference_target: str | None = None
    deadline_s: float = 1.0
    attempts_max: int = 5
    backoff_s: float = 0.05
    breaker_failures: int = 5
    breaker_open_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no call could keep to, an endless wait above all."""
        check_int("attempts_max", self.attempts_max, 1, INT32_MAX)
        check_int("breaker_failures", self.breaker_failures, 1, INT32_MAX)
        for field in ("deadline_s", "backoff_s", "breaker_open_s"):
            seconds = getattr(self, field)
            _check_seconds(field, seconds)
            if seconds < 0 or (field == "deadline_s" and seconds == 0):
                expected = "above 0" if field == "deadline_s" else "at least 0"
                raise InvalidField(field, seconds, f"{expected}, in seconds")

    def time_for_s(self, deadline_s: float | None) -> float:
        """Give the time for one call, which may name its own: none left is not the usual one.

        Raises:
            InvalidField: It names one that never ends, or none at all.
        """
        if deadline_s is None:
            return self.deadline_s
        _check_seconds("deadline_s", deadline_s)
        return deadline_s


def _check_seconds(field: str, value: float) -> None:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise InvalidField(field, value, "a finite number of seconds")
