"""Plays a book over given closes, and fills what it decides, so that it can be attributed."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from tests.builders import HORIZON, HOUR_MS, START_MS, SYMBOL, model_binding, plan_of, row_of
from tests.builders import policy_config as config_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.plan import HorizonAlpha, OrderStyle, Plan, TriggerState
from detent.contracts.trades import Fill, Side
from detent.core.ledger.record import (
    CHAIN_START,
    BoundPlan,
    ChainPoint,
    bind_plan,
    record_decision,
)
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import ProxyAnswer

EQUITY = 1_000_000
LONG = TriggerState.LONG_ALLOWED


def plain_plan(plan_id: str = "plan", *, alpha_ppm: int = 1_000_000, **changes: Any) -> Plan:
    """Give a plan that does at once what the signal asks for."""
    config = config_of(
        tau_bps=0,
        w_min_ppm=0,
        w_max_ppm=1_000_000,
        epsilon_w_ppm=0,
        rebalance_cooldown_bars=0,
        min_hold_bars=0,
        alpha_by_horizon=(HorizonAlpha(horizon_id=HORIZON, alpha_ppm=alpha_ppm),),
    )
    return plan_of(plan_id, **({"policy_config": config} | changes))


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """States one bar of a script: what the market, the trigger and the signals said."""

    close: str
    trigger: TriggerState = LONG
    proxy_bps: int = 7_000
    model_bps: int | None = None
    slip: str = "0"
    row: dict[str, Any] = {}


class Played(msgspec.Struct, kw_only=True):
    """Holds what came of a script."""

    bound: BoundPlan
    records: list[DecisionRecord]
    fills: list[Fill]


def play(
    bars: Sequence[Bar], *, plan: Plan | None = None, symbol: str = SYMBOL, fee: str = "0"
) -> Played:
    """Decide every bar and fill what it asks for, `slip` worse than its close."""
    plan = plan or plain_plan()
    with_model = any(bar.model_bps is not None for bar in bars)
    bound = bind_plan(plan, model_binding() if with_model else PROXY_BINDING)
    point, held, weight_ppm = CHAIN_START, Decimal(0), 0
    played = Played(bound=bound, records=[], fills=[])
    for index, bar in enumerate(bars):
        model = None
        if bar.model_bps is not None:
            model = ModelOutcome(
                features_hash="f" * 64, p_hat_raw_bps=bar.model_bps, p_hat_bps=bar.model_bps
            )
        record = record_decision(
            bound=bound,
            ts_ms=START_MS + index * HOUR_MS,
            kind=DecisionKind.BAR,
            row=row_of(
                symbol,
                close=bar.close,
                weight_ppm=weight_ppm,
                trigger_state=bar.trigger,
                **bar.row,
            ),
            proxy=ProxyAnswer(p_hat_bps=bar.proxy_bps, reason=None),
            model=model,
            point=point,
        )
        played.records.append(record)
        point = ChainPoint(
            sequence=index + 1, previous_hash=record.record_hash, state=record.state_after
        )
        if record.outcome.order_style is OrderStyle.NONE:
            continue
        weight_ppm = record.outcome.target_weight_final_ppm
        target = round(Decimal(weight_ppm) * EQUITY / 1_000_000 / Decimal(bar.close), 6)
        delta, held = target - held, target
        if delta:
            sign = 1 if delta > 0 else -1
            played.fills.append(
                Fill(
                    fill_id=f"{plan.plan_id}/{symbol}/{index}",
                    plan_id=plan.plan_id,
                    book=plan.book,
                    symbol=symbol,
                    ts_ms=record.ts_ms,
                    sequence=0,
                    side=Side.BUY if sign > 0 else Side.SELL,
                    quantity=abs(delta),
                    price=Decimal(bar.close) + sign * Decimal(bar.slip),
                    fee=Decimal(fee),
                    record_hash=record.record_hash,
                    learning=record.learning,
                )
            )
    return played
