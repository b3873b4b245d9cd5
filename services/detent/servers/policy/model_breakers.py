"""Keep one breaker per model of this process, and say in the log when one opens."""

import logging
from collections.abc import Callable, Mapping

from detent.contracts import events
from detent.core.rollout.model_breaker import BreakerLimits, ModelBreaker
from detent.core.signals.choice import ModelOutcome

log = logging.getLogger(__name__)


class ModelBreakers:
    """Owns the breakers."""

    def __init__(self, limits: BreakerLimits, clock: Callable[[], float]) -> None:
        """Begin with none.

        Args:
            limits: When one opens.
            clock: The monotonic clock, seconds.
        """
        self._limits = limits
        self._clock = clock
        self._breakers: dict[str, ModelBreaker] = {}

    def is_open(self, model_id: str) -> bool:
        """Say whether a model may not be asked now."""
        breaker = self._breakers.get(model_id)
        return breaker is not None and breaker.is_open(self._clock())

    def note(self, model_id: str, outcomes: Mapping[str, ModelOutcome]) -> None:
        """Count what came of asking a model."""
        breaker = self._breakers.setdefault(model_id, ModelBreaker(self._limits))
        if breaker.note([one.reason for one in outcomes.values()], self._clock()):
            facts = {"model_id": model_id, "episode": breaker.episode_count}
            log.error(events.MODEL_BREAKER_OPENED, extra=facts)
