"""Hold what a strategist may choose about its client."""

from pathlib import Path

import msgspec


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Says where the services are and how long to wait for them.

    Attributes:
        policy_target: Address of the policy service.
        feature_target: Address of the feature service; None when another feed serves it.
        inference_target: Address of the inference service, for the heads that advise the
            strategist itself; None when it asks for none.
        journal_file: Where answers of the client's own are kept until they are reported.
        deadline_s: Time for one call, all its attempts included.
        attempts_max: Attempts of an idempotent call while the service is unavailable.
        backoff_s: Longest wait before the second attempt; it doubles with each.
        breaker_failures: Failures in a row after which no service is asked for a while.
        breaker_open_s: How long it is not asked.
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

    def time_for_s(self, deadline_s: float | None) -> float:
        """Give the time for one call, which may name its own: none left is not the usual one."""
        return self.deadline_s if deadline_s is None else deadline_s
