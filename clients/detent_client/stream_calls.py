"""Open streams of decisions out of the parts of a client."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from opentelemetry.trace import Tracer

from detent.contracts.calls.policy import DecideTargetWeightsRequest, DecisionResult
from detent.rpc.channel import RemoteService
from detent_client.breaker import CircuitBreaker
from detent_client.decision_stream import Asked, DecisionStream
from detent_client.opened_plan import OpenedPlan
from detent_client.options import ClientOptions
from detent_client.owners import Owners


class StreamCalls(ABC):
    """Is the part of the client that decides over streams."""

    _policy: RemoteService
    _owners: Owners
    _policy_breaker: CircuitBreaker
    _options: ClientOptions
    _tracer: Tracer
    _clock: Callable[[], float]

    @abstractmethod
    async def _settled(
        self, opened: OpenedPlan, request: DecideTargetWeightsRequest, asked: Asked
    ) -> tuple[DecisionResult, ...]:
        """Give the results of a question, of the client's own where no service answers."""

    def stream_decisions(self) -> DecisionStream:
        """Decide bars of any open plans over one stream, with the promises of `decide_many`.

        Use it in an `async with`; it connects with the first bar.
        """
        return DecisionStream(
            policy=self._policy,
            owners=self._owners,
            breaker=self._policy_breaker,
            options=self._options,
            settle=self._settled,
            tracer=self._tracer,
            clock=self._clock,
        )
