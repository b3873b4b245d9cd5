"""Say in numbers for Prometheus who decided, and why the model did not.

What a label may not name, a plan or a symbol, stands in the ledger: these series say that
something is going on, and which question to ask there.

Source: seed 003, section 12.5.2; row R71.
"""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from detent.adapters.metrics import Metrics
from detent.adapters.sqlite_ledger import Written
from detent.contracts.binding import SignalSource
from detent.contracts.reasons import Reason
from detent.core.ledger.record import BoundPlan


class ManifestState(StrEnum):
    """Says whether a manifest of the artifacts folder may be bound."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class DecisionMetrics:
    """Owns the policy process's series."""

    def __init__(self, metrics: Metrics, *, accepted_count: int, refused_count: int) -> None:
        """Declare them all.

        Args:
            metrics: The numbers of the process.
            accepted_count: Manifests that may be bound.
            refused_count: Manifests that may not.
        """
        self._decisions = metrics.counter(
            "detent_policy_decisions_total",
            "Durable decisions, by whose answer scaled them.",
            {"source": SignalSource},
        )
        self._fallbacks = metrics.counter(
            "detent_policy_fallbacks_total",
            "Durable decisions of plans of a model that the proxy answered, by why.",
            {"reason": Reason},
        )
        manifests = metrics.gauge(
            "detent_policy_manifests",
            "Artifacts by whether they may be bound, from the start of the process.",
            {"state": ManifestState},
        )
        manifests.labels(ManifestState.ACCEPTED.value).set(accepted_count)
        manifests.labels(ManifestState.REFUSED.value).set(refused_count)

    def count(self, _bound: BoundPlan, decided: Sequence[Written]) -> None:
        """Count decisions of one call that are durable."""
        signals = [item.record.signal for item in decided]
        for source, count in Counter(one.signal_source for one in signals).items():
            self._decisions.labels(source.value).inc(count)
        for reason, count in Counter(one.fallback_reason for one in signals).items():
            if reason is not None:
                self._fallbacks.labels(reason.value).inc(count)
