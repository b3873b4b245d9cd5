"""Plays a back-test's strategist against the real handlers, bar after bar, as a live one would.

It holds an account of its own and trades what the service answers; nothing of the back-test's
walk, policy or records takes part.
"""

import collections
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import NoOpTracer
from tests.builders import call_of

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    DecideTargetWeightsRequest,
    OpenPlanRequest,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import OrderStyle, Plan, PositionState, TriggerState
from detent.core.policy.columns import TRIGGER_STATES
from detent.core.rollout.gates import ACTIVE_ACK
from detent.offline.backtesting.account import Account, cents_of
from detent.offline.backtesting.engine import Setup
from detent.offline.bars import BarTable
from detent.servers.feature.main import build
from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.main import load
from detent.servers.inference.settings import InferenceSettings
from detent.servers.policy.main import Policy, wall_clock_ms
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.settings import PolicySettings


class LiveServices:
    """Composes the three services in this process, as `detent up --single` does."""

    def __init__(self, artifact: Path, ledger_file: Path) -> None:
        self.features, _ = build(FeatureSettings(artifacts_dir=artifact.parent))
        serving = load(InferenceSettings(artifact_dir=artifact))
        self.inference = InferenceHandler(
            serving, max_inference_latency_ms=10_000, clock=time.monotonic
        )
        self.policy = Policy(
            PolicySettings(
                artifacts_dir=artifact.parent,
                ledger_file=ledger_file,
                ledger_reserve_bytes=0,
                # What a record says does not depend on how hard its commit is.
                ledger_durability="unsafe_memory",
                infer_enabled=True,
                active_enabled=True,
                active_ack=ACTIVE_ACK,
                inputs_retention_days=0,
            ),
            routes=FixedRoutes(self.features, self.inference),
            tracer=NoOpTracer(),
            now_ms=wall_clock_ms,
        )

    async def close(self) -> None:
        await self.policy.close()
        self.inference.close()


async def play(
    services: LiveServices, table: BarTable, setup: Setup, binding: ModelBinding
) -> None:
    """Open the plan of a setup, ask every bar of it, trade what is answered, and close it."""
    plan, handler = setup.bound.plan, services.policy.handler
    await services.policy.start()
    opening = OpenPlanRequest(binding_hash=binding.binding_hash, plan=plan, model_binding=binding)
    await handler.open_plan(opening, call_of(60.0))
    account = Account(len(plan.symbols), cash=setup.cash, costs=setup.costs)
    bars: dict[int, dict[str, Bar]] = collections.defaultdict(dict)
    for symbol, series in table.bars.items():
        for bar in series:
            bars[bar.ts_ms][symbol] = bar
    for at, ts_ms in enumerate(sorted(bars)):
        assert ts_ms == setup.market.ts_ms[at]
        await feed(services, bars[ts_ms].values())
        present = setup.market.present[at]
        account.fill(setup.market.open[at], None if present.all() else present)
        if setup.market.funding is not None:
            account.pay_funding(setup.market.close[at], setup.market.funding[at])
        equity, held_ppm = account.mark(setup.market.close[at])
        rows = tuple(
            row_at(
                setup,
                at,
                place,
                bar=bars[ts_ms][symbol],
                equity=equity,
                held_ppm=int(held_ppm[place]),
            )
            for place, symbol in enumerate(plan.symbols)
            if symbol in bars[ts_ms]
        )
        query = DecideTargetWeightsRequest(
            binding_hash=binding.binding_hash,
            plan_id=plan.plan_id,
            ts_ms=ts_ms,
            kind=DecisionKind.BAR,
            rows=rows,
        )
        answer = await handler.decide_target_weights(query, call_of(60.0))
        decisions = [result.decision for result in answer.results]
        trade(account, plan, equity, setup.market.close[at], decisions)
    closing = ClosePlanRequest(binding_hash=binding.binding_hash, plan_id=plan.plan_id)
    await handler.close_plan(closing, call_of(60.0))


async def feed(services: LiveServices, bars: Iterable[Bar]) -> None:
    async def batches() -> AsyncIterator[IngestMarketDataRequest]:
        events = tuple(MarketEvent(bar=bar) for bar in bars)
        yield IngestMarketDataRequest(events=events)

    answer = await services.features.ingest_market_data(batches(), call_of(60.0))
    assert answer.refused_count == 0, answer.refusals


def row_at(
    setup: Setup, at: int, place: int, *, bar: Bar, equity: float, held_ppm: int
) -> DecisionRow:
    """State one bar as the strategist sees it: close of the feed, holdings of the account."""
    plan = setup.bound.plan
    state = TRIGGER_STATES[int(setup.trigger[at, place])]
    permits = state in (TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED)
    vol_hat_ppm = int(setup.vol_hat_ppm[at, place])
    return DecisionRow(
        symbol=bar.symbol,
        bar_close=bar.close,
        trigger_state=state,
        active_trigger_ids=(plan.triggers[0].trigger_id,) if permits else (),
        exit_intent=None,
        position=PositionState(current_weight_ppm=held_ppm, equity=Decimal(cents_of(equity)) / 100),
        vol_hat_ppm=vol_hat_ppm or None,
        vol_unit=plan.policy_config.vol_unit,
        risk_overrides=None,
    )


def trade(
    account: Account,
    plan: Plan,
    equity: float,
    price: NDArray[np.float64],
    decisions: Sequence[Decision | None],
) -> None:
    """Order what the answers say."""
    final_ppm = np.zeros(len(plan.symbols))
    trades = np.zeros(len(plan.symbols), dtype=np.bool_)
    for decision in decisions:
        assert decision is not None
        place = plan.symbols.index(decision.symbol)
        final_ppm[place] = decision.target_weight_final_ppm
        trades[place] = decision.order_style is not OrderStyle.NONE
    if trades.any():
        account.order(equity, price, final_ppm, trades)
