"""Walk through the bars of one plan as a strategist would, and time the answers."""

import collections
import time
from decimal import Decimal

import msgspec

from benchmarks.decide.hops import Hops
from benchmarks.decide.market import HORIZON_ID, INTERVAL_MS, Market, close_ts_ms
from benchmarks.decide.timing import Timing, timing_of
from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    DecisionResult,
)
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.plan import (
    OrderStyle,
    Plan,
    PolicyConfig,
    PositionState,
    Trigger,
    TriggerState,
    VolUnit,
)
from detent.contracts.wire import to_wire
from detent_client import DecisionStream, DetentClient, OpenedPlan

EQUITY = Decimal(100_000)
VOL_HAT_PPM = 150_000
DEADLINE_S = 20.0
TRIGGER_ID = "bench"


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was seen of one batch size.

    Attributes:
        rows: Rows in a call.
        call: The whole call, as the strategist waits for it.
        echo: A bare echo of the same request and answer sizes, in the same rounds.
        request_bytes: Size of the request on the wire.
        answer_bytes: Size of the answer.
        ingest: Feeding the bar of these rows, which comes before and is not in `call`.
        sources: Rows by what answered them: `model`, or the reason why it was the proxy.
        hops: Where the time went; empty without spans.
    """

    rows: int
    call: Timing
    echo: Timing
    request_bytes: int
    answer_bytes: int
    ingest: Timing
    sources: dict[str, int]
    hops: Hops

    @property
    def rows_per_second(self) -> float:
        """Give rows decided per second, one call at a time."""
        return self.rows / self.call.p50_us * 1e6


class Strategist:
    """Holds one plan of so many symbols and walks through its bars."""

    def __init__(
        self,
        client: DetentClient,
        rows: int,
        *,
        bar_count: int,
        stream: DecisionStream | None = None,
        way: str = "",
    ) -> None:
        """Draw the bars; nothing is asked yet. With a stream, bars are asked over it.

        `way` tells plans and symbols of one size apart.
        """
        self.rows = rows
        way = way or ("" if stream is None else "S")
        self.plan_id = f"bench-{rows}{way}"
        symbols = tuple(f"B{rows}{way}N{number}" for number in range(rows))
        self._client = client
        self._stream = stream
        self._market = Market(symbols, bar_count=bar_count, seed=rows)
        self._weights_ppm = dict.fromkeys(symbols, 0)
        self._opened: OpenedPlan | None = None
        self._index = 0
        self.measured_from_ts_ms = 0
        self.sizes = (0, 0)
        self._call_us: list[float] = []
        self._ingest_us: list[float] = []
        self._sources: collections.Counter[str] = collections.Counter()

    async def open(self, binding: ModelBinding) -> None:
        """Open the plan under the model's binding."""
        plan = Plan(
            plan_id=self.plan_id,
            book=self.plan_id,
            symbols=self._market.symbols,
            bar_interval_ms=INTERVAL_MS,
            triggers=(Trigger(trigger_id=TRIGGER_ID, parameters_hash="0" * 64),),
            policy_config=PolicyConfig(horizon_id=HORIZON_ID, vol_unit=VolUnit.PER_BAR),
        )
        self._opened = await self._client.open_plan(plan, binding)

    async def bar(self) -> None:
        """Feed the next bar of every symbol and have it decided."""
        assert self._opened is not None, "the plan is opened first"
        index = self._index
        events = self._market.events(index)
        rows = [self._row(column) for column in range(self.rows)]
        ts_ms = close_ts_ms(index)
        before_ns = time.perf_counter_ns()
        await self._client.ingest(events, deadline_s=DEADLINE_S)
        between_ns = time.perf_counter_ns()
        results = await self._decided(self._opened, ts_ms, rows)
        after_ns = time.perf_counter_ns()
        self._ingest_us.append((between_ns - before_ns) / 1_000)
        self._call_us.append((after_ns - between_ns) / 1_000)
        self._note(results)
        if self.sizes == (0, 0):
            self.sizes = self._measured_sizes(rows, results, ts_ms)
        self._index += 1

    async def _decided(
        self, opened: OpenedPlan, ts_ms: int, rows: list[DecisionRow]
    ) -> tuple[DecisionResult, ...]:
        if self._stream is None:
            return await self._client.decide_many(
                opened, ts_ms=ts_ms, rows=rows, deadline_s=DEADLINE_S
            )
        await self._stream.ask(opened, ts_ms=ts_ms, rows=rows, deadline_s=DEADLINE_S)
        answer = await anext(self._stream)
        assert answer.error is None, answer.error
        return answer.results

    @property
    def calls_us(self) -> tuple[float, ...]:
        """Give the time of every call since the last `forget`, microseconds."""
        return tuple(self._call_us)

    def forget(self) -> None:
        """Drop what was measured so far: it was the warm-up."""
        self._call_us.clear()
        self._ingest_us.clear()
        self._sources.clear()
        self.measured_from_ts_ms = close_ts_ms(self._index)
        self.sizes = (0, 0)

    def result(self, *, echo: Timing, hops: Hops) -> BatchResult:
        """Summarise what was measured."""
        return BatchResult(
            rows=self.rows,
            call=timing_of(self._call_us),
            echo=echo,
            request_bytes=self.sizes[0],
            answer_bytes=self.sizes[1],
            ingest=timing_of(self._ingest_us),
            sources=dict(self._sources.most_common()),
            hops=hops,
        )

    def _row(self, column: int) -> DecisionRow:
        symbol = self._market.symbols[column]
        return DecisionRow(
            symbol=symbol,
            bar_close=self._market.close(self._index, column),
            trigger_state=TriggerState.LONG_ALLOWED,
            active_trigger_ids=(TRIGGER_ID,),
            exit_intent=None,
            position=PositionState(current_weight_ppm=self._weights_ppm[symbol], equity=EQUITY),
            vol_hat_ppm=VOL_HAT_PPM,
            vol_unit=VolUnit.PER_BAR,
            risk_overrides=None,
        )

    def _note(self, results: tuple[DecisionResult, ...]) -> None:
        for result in results:
            decision = result.decision
            if decision is None:
                self._sources["refused"] += 1
                continue
            reason = decision.fallback_reason
            self._sources[str(reason or decision.signal_source)] += 1
            if decision.order_style is not OrderStyle.NONE:
                self._weights_ppm[result.symbol] = decision.target_weight_final_ppm

    def _measured_sizes(
        self, rows: list[DecisionRow], results: tuple[DecisionResult, ...], ts_ms: int
    ) -> tuple[int, int]:
        assert self._opened is not None, "the plan is opened first"
        binding_hash = self._opened.binding_hash
        request = DecideTargetWeightsRequest(
            binding_hash=binding_hash,
            plan_id=self.plan_id,
            ts_ms=ts_ms,
            kind=DecisionKind.BAR,
            rows=tuple(rows),
        )
        answer = DecideTargetWeightsResponse(binding_hash=binding_hash, results=results)
        return to_wire(request).ByteSize(), to_wire(answer).ByteSize()
