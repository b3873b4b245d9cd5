"""Open plans, decide bars, feed data, and read the ledger, with deadlines and typed errors."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from msgspec import structs
from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.calls.feature import (
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
)
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    DecisionResult,
    RecordFillsRequest,
    RecordFillsResponse,
    RecordOutcomesRequest,
    RecordOutcomesResponse,
    ReportLocalAnswersRequest,
    ReportLocalAnswersResponse,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.errors import (
    DeadlineExceeded,
    DetentError,
    InternalError,
    InvalidField,
    InvalidResponse,
    LedgerUnavailable,
    ModelNotReady,
    NotOwner,
    Overloaded,
    ServiceUnavailable,
    SignalFailed,
)
from detent.contracts.reasons import Reason
from detent.core.signals.regime_fallback import LastRegimes, ends_the_call
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.tracing import no_tracer, span
from detent_client.batches import iter_requests
from detent_client.breaker import CircuitBreaker
from detent_client.decision_stream import Asked
from detent_client.journal import Journal, JournalEntry, iter_reports, plan_of
from detent_client.kill_calls import KillCalls
from detent_client.ledger_calls import LedgerCalls
from detent_client.local_answer import answer_rows
from detent_client.opened_plan import OpenedPlan
from detent_client.options import ClientOptions
from detent_client.owners import Owners
from detent_client.plan_calls import PlanCalls
from detent_client.refusals import check_echo, raise_refusal, unrecorded_rows
from detent_client.rollout_calls import RolloutCalls
from detent_client.signal_answer import SignalAnswer, answers_of, local_answers
from detent_client.stream_calls import StreamCalls

T = TypeVar("T")

# Nobody answered the question: the strategist still needs an answer, and gets a local one.
UNANSWERED = (
    ServiceUnavailable,
    DeadlineExceeded,
    LedgerUnavailable,
    Overloaded,
    InternalError,
    InvalidResponse,
)
# The one class of failure after which the same call may be made again at once.
RETRIED = (ServiceUnavailable, LedgerUnavailable)
BINDINGS_MAX = 16


class DetentClient(PlanCalls, LedgerCalls, StreamCalls, KillCalls, RolloutCalls):
    """Is the strategist's side of Detent."""

    def __init__(
        self,
        options: ClientOptions,
        *,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open channels; they connect on first use.

        Raises:
            LedgerUnavailable: The journal cannot be read.
        """
        self._options = options
        self._tracer = tracer or no_tracer()
        self._clock = clock
        self._journal = Journal(options.journal_file)
        # One per process: a feature service that is gone must not keep bars from policy.
        self._policy_breaker, self._feature_breaker, self._inference_breaker = (
            CircuitBreaker(
                failures_max=options.breaker_failures, open_s=options.breaker_open_s, clock=clock
            )
            for _ in range(3)
        )
        self._channels: list[grpc.aio.Channel] = [open_channel(options.policy_target)]
        self._policy = RemoteService(self._channels[0], "PolicyService", self._tracer)
        self._ledger = RemoteService(self._channels[0], "LedgerService", self._tracer)
        self._rollouts = RemoteService(self._channels[0], "RolloutService", self._tracer)
        self._owners = Owners(self._tracer)
        self._features: RemoteService | None = None
        if options.feature_target is not None:
            self._channels.append(open_channel(options.feature_target))
            self._features = RemoteService(self._channels[1], "FeatureService", self._tracer)
        self._inference: RemoteService | None = None
        if options.inference_target is not None:
            self._channels.append(open_channel(options.inference_target))
            self._inference = RemoteService(self._channels[-1], "InferenceService", self._tracer)
        # Per binding, the newest first: a fallback never crosses from one model to another.
        self._last_regimes: OrderedDict[str, LastRegimes] = OrderedDict()
        self._report: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channels."""
        await self.close()

    async def close(self) -> None:
        """Wait for a report under way and close the channels."""
        if self._report is not None:
            await asyncio.gather(self._report, return_exceptions=True)
        for channel in (*self._channels, *self._owners.channels):
            await channel.close()

    # Bars

    async def decide(
        self,
        opened: OpenedPlan,
        *,
        ts_ms: int,
        row: DecisionRow,
        kind: DecisionKind = DecisionKind.BAR,
        deadline_s: float | None = None,
    ) -> Decision:
        """Decide one symbol's bar; always answers, within the deadline.

        Raises:
            DetentError: The question itself is at fault (`InvalidField`, `BindingMismatch`,
                `BarOutOfOrder`, ...); it must not be asked again unchanged.
        """
        results = await self.decide_many(
            opened, ts_ms=ts_ms, rows=(row,), kind=kind, deadline_s=deadline_s
        )
        decision = results[0].decision
        if decision is None:
            raise_refusal(results[0])
        return decision

    async def decide_many(
        self,
        opened: OpenedPlan,
        *,
        ts_ms: int,
        rows: Sequence[DecisionRow],
        kind: DecisionKind = DecisionKind.BAR,
        deadline_s: float | None = None,
    ) -> tuple[DecisionResult, ...]:
        """Decide many symbols on one bar, in the order of the rows.

        A row at fault carries its own refusal; the others are decided. When no service
        answers, every row gets the client's own hold-or-reduce answer, journalled first.

        Raises:
            DetentError: The call as a whole is at fault.
            LedgerUnavailable: No service answered and the journal cannot be written.
        """
        request = DecideTargetWeightsRequest(
            binding_hash=opened.binding_hash,
            plan_id=opened.plan.plan_id,
            ts_ms=ts_ms,
            kind=kind,
            rows=tuple(rows),
        )
        asked = self._call(
            self._policy, request, DecideTargetWeightsResponse, deadline_s=deadline_s
        )
        return await self._settled(opened, request, asked)

    async def _settled(
        self, opened: OpenedPlan, request: DecideTargetWeightsRequest, asked: Asked
    ) -> tuple[DecisionResult, ...]:
        """Give the results of a question, of our own where no service answers."""
        try:
            response = await asked
        except UNANSWERED:
            return await answer_rows(self._journal, opened, request)
        check_echo(response.binding_hash, opened.binding_hash)
        if [result.symbol for result in response.results] != [row.symbol for row in request.rows]:
            return await answer_rows(self._journal, opened, request)
        self._report_soon()
        return await self._completed(opened, request, response.results)

    async def _completed(
        self,
        opened: OpenedPlan,
        request: DecideTargetWeightsRequest,
        results: tuple[DecisionResult, ...],
    ) -> tuple[DecisionResult, ...]:
        """Answer rows by ourselves that the service could not record: it let exits out only."""
        rows = unrecorded_rows(request.rows, results)
        if not rows:
            return results
        local = await answer_rows(self._journal, opened, structs.replace(request, rows=rows))
        answers = {result.symbol: result for result in local}
        return tuple(answers.get(result.symbol, result) for result in results)

    @property
    def unreported_count(self) -> int:
        """Count the client's own answers that no service has yet."""
        return len(self._journal.pending)

    async def report_local_answers(self) -> int:
        """Hand the client's own answers to the service and give how many it took.

        Those of a plan that it refuses keep nobody else's waiting.

        Raises:
            DetentError: The service did not answer, or refused answers of some plan; what it
                has not confirmed stays in the journal.
        """
        reported: list[JournalEntry] = []
        refused: dict[tuple[str, str], DetentError] = {}
        try:
            for same in iter_reports(self._journal.pending):
                plan = plan_of(same[0])
                if plan in refused:
                    continue
                try:
                    await self._report_answers(same)
                except UNANSWERED:
                    raise
                except DetentError as error:
                    refused[plan] = error
                else:
                    reported.extend(same)
        finally:
            if reported:
                # The whole file is written anew, so once for all of them. Whoever does not come
                # to it reports them again, which the service recognises.
                await asyncio.to_thread(self._journal.drop, tuple(reported))
        for refusal in refused.values():
            raise refusal
        return len(reported)

    async def _report_answers(self, entries: Sequence[JournalEntry]) -> None:
        """Hand over answers of one plan; returns once the service has them."""
        plan_id, binding_hash = plan_of(entries[0])
        request = ReportLocalAnswersRequest(
            binding_hash=binding_hash,
            plan_id=plan_id,
            answers=tuple(entry.answer for entry in entries),
        )
        response = await self._call(self._policy, request, ReportLocalAnswersResponse)
        check_echo(response.binding_hash, binding_hash)

    async def record(
        self, request: RecordFillsRequest | RecordOutcomesRequest
    ) -> RecordFillsResponse | RecordOutcomesResponse:
        """Hand fills or outcomes to the service; the same ones again change nothing."""
        response: RecordFillsResponse | RecordOutcomesResponse
        if isinstance(request, RecordFillsRequest):
            response = await self._call(self._policy, request, RecordFillsResponse)
        else:
            response = await self._call(self._policy, request, RecordOutcomesResponse)
        check_echo(response.binding_hash, request.binding_hash)
        return response

    def _report_soon(self) -> None:
        if self._journal.pending and (self._report is None or self._report.done()):
            self._report = asyncio.create_task(self._report_quietly())

    async def _report_quietly(self) -> int:
        try:
            return await self.report_local_answers()
        except DetentError:
            # The entries stay in the journal; the next answered bar tries again.
            return 0

    # Data

    async def ingest(
        self, events: Sequence[MarketEvent], *, deadline_s: float | None = None
    ) -> IngestMarketDataResponse:
        """Feed market data and give the acknowledgement; a repeated bar is recognised.

        Raises:
            InvalidField: The client was not told where the feature service is.
            DetentError: The service refused or did not answer.
        """
        features = self._features
        if features is None:
            raise InvalidField("feature_target", None, "the address of the feature service")

        async def requests() -> AsyncIterator[IngestMarketDataRequest]:
            for request in iter_requests(events):
                yield request

        async def attempt(timeout_s: float, trace: Context) -> IngestMarketDataResponse:
            return await features.stream(
                requests(),
                IngestMarketDataRequest,
                IngestMarketDataResponse,
                timeout_s=timeout_s,
                trace=trace,
            )

        return await self._attempts("ingest", attempt, deadline_s, self._feature_breaker)

    # Signals

    async def infer_signals(
        self,
        binding: ModelBinding,
        rows: Sequence[InferenceRow],
        *,
        attributions: bool = False,
        deadline_s: float | None = None,
    ) -> tuple[SignalAnswer, ...]:
        """Ask for the signals of a head that advises the strategist, in the order of the rows.

        With `attributions` each answer of the model names its three heaviest features; for
        at most 256 rows in a call, and not in the time of a decision.

        Always answers for the regime and toxicity heads, within the deadline: when no service
        does, with the fallback that the binding names. The other heads then have no answer
        but a reason.

        Raises:
            InvalidField: There is no address of inference, or the binding is the proxy's.
            BindingMismatch: The service serves another artifact.
            DetentError: The question itself is at fault; or the regime's binding says that
                a missing answer ends the call.
        """
        inference = self._inference
        if inference is None:
            raise InvalidField("inference_target", None, "the address of the inference service")
        if binding.signal_source is not SignalSource.MODEL:
            raise InvalidField("signal_source", binding.signal_source, "model")
        last = self._regimes_of(binding.binding_hash)
        request = InferSignalsRequest(
            binding_hash=binding.binding_hash, rows=tuple(rows), attributions=attributions
        )

        async def attempt(timeout_s: float, trace: Context) -> InferSignalsResponse:
            return await inference.call(
                request, InferSignalsResponse, timeout_s=timeout_s, trace=trace
            )

        try:
            response = await self._attempts(
                "InferSignals", attempt, deadline_s, self._inference_breaker
            )
            answers = answers_of(binding, rows, response, last)
        except (*UNANSWERED, ModelNotReady) as error:
            if ends_the_call(binding):
                raise
            reason = Reason.CLIENT_NO_SERVICE
            if isinstance(error, ModelNotReady):
                reason = error.gate_reason
            return local_answers(binding, rows, last, reason=reason)
        for answer in answers:
            if answer.reason is not None and ends_the_call(binding):
                raise SignalFailed(answer.symbol, gate_reason=answer.reason)
        return answers

    def _regimes_of(self, binding_hash: str) -> LastRegimes:
        last = self._last_regimes.setdefault(binding_hash, LastRegimes())
        self._last_regimes.move_to_end(binding_hash)
        if len(self._last_regimes) > BINDINGS_MAX:
            self._last_regimes.popitem(last=False)
        return last

    # Calls

    async def _read_ledger(
        self, request: Any, response_type: type[T], *, deadline_s: float | None = None
    ) -> T:
        return await self._call(self._ledger, request, response_type, deadline_s=deadline_s)

    def _follow_rollouts(self, request: Any, response_type: type[T]) -> AsyncGenerator[T, None]:
        return self._rollouts.follow(request, response_type)

    async def _ask_rollouts(
        self, request: Any, response_type: type[T], *, deadline_s: float | None = None
    ) -> T:
        return await self._call(self._rollouts, request, response_type, deadline_s=deadline_s)

    async def _ask_policy(self, request: Any, response_type: type[T]) -> T:
        return await self._call(self._policy, request, response_type)

    async def _ask_replica(self, target: str, request: Any, response_type: type[T]) -> T:
        service = self._owners.at(target)
        if service is None:
            message = f"{target}: one replica more than a client reaches"
            raise ServiceUnavailable(message, replica_target=target)

        async def attempt(timeout_s: float, trace: Context) -> T:
            return await service.call(request, response_type, timeout_s=timeout_s, trace=trace)

        # A replica that is away counts against no other: their bars go on being asked.
        options = self._options
        alone = CircuitBreaker(
            failures_max=options.breaker_failures, open_s=options.breaker_open_s, clock=self._clock
        )
        return await self._attempts(type(request).__name__, attempt, None, alone)

    async def _call(
        self,
        service: RemoteService,
        request: Any,
        response_type: type[T],
        *,
        deadline_s: float | None = None,
    ) -> T:
        """Make a call; every call here is idempotent, by key or by nature.

        A plan's owner is followed once: who is sent on from there was told two things.
        """

        async def attempt(timeout_s: float, trace: Context) -> T:
            return await service.call(request, response_type, timeout_s=timeout_s, trace=trace)

        name = type(request).__name__
        # A replan goes to who owns the plan that it replaces; only an opening has no other.
        plan_id = getattr(request, "plan_id", "") or getattr(
            getattr(request, "plan", None), "plan_id", ""
        )
        if service is self._policy:
            service = self._owners.service(plan_id) or service
        ends_s = self._clock() + self._options.time_for_s(deadline_s)
        try:
            return await self._attempts(name, attempt, deadline_s, self._policy_breaker)
        except NotOwner as error:
            service = self._owners.follow(plan_id, error)
            # Whoever is sent on has no more time than before.
            left_s = ends_s - self._clock()
            return await self._attempts(name, attempt, left_s, self._policy_breaker)

    async def _attempts(
        self,
        name: str,
        attempt: Callable[[float, Context], Awaitable[T]],
        deadline_s: float | None,
        breaker: CircuitBreaker,
    ) -> T:
        """Try within one deadline; again only after UNAVAILABLE, with growing jitter."""
        if not breaker.allows():
            raise ServiceUnavailable("the circuit breaker is open", service=name)
        ends_s = self._clock() + self._options.time_for_s(deadline_s)
        with span(self._tracer, f"client/{name.removesuffix('Request')}", Context()) as trace:
            number = 0
            while True:
                number += 1
                try:
                    answer = await attempt(max(0.001, ends_s - self._clock()), trace)
                except RETRIED:
                    longest_s = self._options.backoff_s * 2**number
                    pause_s = random.uniform(0, longest_s)  # noqa: S311  Jitter is no secret.
                    last = number >= self._options.attempts_max
                    if last or self._clock() + pause_s >= ends_s:
                        breaker.failed()
                        raise
                    await asyncio.sleep(pause_s)
                except DeadlineExceeded:
                    breaker.failed()
                    raise
                except DetentError:
                    breaker.succeeded()
                    raise
                else:
                    breaker.succeeded()
                    return answer
