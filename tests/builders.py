"""Builds valid values, so that a test states only what it is about."""

import math
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec import structs
from opentelemetry.context import Context

from detent.adapters.sqlite_ledger import Written
from detent.contracts.binding import (
    PROXY_BINDING,
    Head,
    ModelBinding,
    SignalSource,
    TrainingWindow,
)
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionKind, DecisionRecord, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import (
    STATE_INITIAL,
    ExitIntent,
    ExitKind,
    Plan,
    PolicyConfig,
    PositionState,
    Trigger,
    TriggerState,
    VolUnit,
)
from detent.core.ledger.record import CHAIN_START, BoundPlan, bind_plan, record_decision
from detent.core.policy.inputs import PolicyInputs
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import ProxyAnswer
from detent.rpc.call import Call

HOUR_MS = 3_600_000
# A whole hour in November 2023.
START_MS = 1_700_002_800_000
SYMBOL = "EURUSD"
OTHER_SYMBOL = "GBPUSD"
TRIGGER = "breakout"
HORIZON = "h4"
PARAMETERS_HASH = "3" * 64


def close_ms(index: int) -> int:
    """Give the close time of the bar with this index."""
    return START_MS + (index + 1) * HOUR_MS


def bar_series(symbol: str, *, seed: int, count: int) -> tuple[Bar, ...]:
    """Give bars of a slow wave under noise: something to learn, the same on every machine."""
    state, price = seed, 100_000
    bars = []
    for index in range(count):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        close = price + (state >> 33) % 401 - 200 + int(120 * math.sin(index / 9))
        bars.append(
            Bar(
                symbol=symbol,
                ts_ms=close_ms(index),
                interval_ms=HOUR_MS,
                open=Decimal(price) / 1000,
                high=Decimal(max(price, close) + (state >> 20) % 60) / 1000,
                low=Decimal(min(price, close) - (state >> 13) % 60) / 1000,
                close=Decimal(close) / 1000,
                volume=Decimal(1),
            )
        )
        price = close
    return tuple(bars)


def model_binding(**changes: Any) -> ModelBinding:
    """Give a model binding of no real artifact."""
    binding = ModelBinding(
        signal_source=SignalSource.MODEL,
        head=Head.DIRECTION,
        model_id="direction_test_v1.0.0",
        model_version_hash="a" * 64,
        feature_version="b" * 64,
        label_definition="sign of the return over 4 bars of 3600000 ms",
        horizon_id=HORIZON,
        horizon_bars=4,
        calibration_version="c" * 64,
        training_window=TrainingWindow(
            start_ts_ms=START_MS - 1_000 * HOUR_MS, end_ts_ms=START_MS - 100 * HOUR_MS
        ),
        data_cutoff_ts_ms=START_MS - HOUR_MS,
        architecture_id="logistic",
    )
    return structs.replace(binding, **changes)


def policy_config(**changes: Any) -> PolicyConfig:
    """Give the default config on a named horizon, volatilities per bar."""
    return structs.replace(PolicyConfig(horizon_id=HORIZON, vol_unit=VolUnit.PER_BAR), **changes)


def plan_of(plan_id: str, symbols: Sequence[str] = (SYMBOL,), **changes: Any) -> Plan:
    """Give a plan in a book of its own."""
    plan = Plan(
        plan_id=plan_id,
        book=f"book-{plan_id}",
        symbols=tuple(symbols),
        bar_interval_ms=HOUR_MS,
        triggers=(Trigger(trigger_id=TRIGGER, parameters_hash=PARAMETERS_HASH),),
        policy_config=policy_config(),
    )
    return structs.replace(plan, **changes)


def row_of(
    symbol: str = SYMBOL,
    *,
    close: Decimal | str = "100",
    weight_ppm: int = 0,
    trigger_state: TriggerState = TriggerState.LONG_ALLOWED,
    **changes: Any,
) -> DecisionRow:
    """Give a row whose volatility is on target, so that it does not scale."""
    permits = trigger_state in (TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED)
    row = DecisionRow(
        symbol=symbol,
        bar_close=Decimal(close),
        trigger_state=trigger_state,
        active_trigger_ids=(TRIGGER,) if permits else (),
        exit_intent=None,
        position=PositionState(current_weight_ppm=weight_ppm, equity=Decimal(1_000_000)),
        vol_hat_ppm=150_000,
        vol_unit=VolUnit.PER_BAR,
        risk_overrides=None,
    )
    return structs.replace(row, **changes)


def emergency(exit_rule_id: str = "stop_loss") -> ExitIntent:
    """Give an emergency intent."""
    return ExitIntent(kind=ExitKind.EMERGENCY, exit_rule_id=exit_rule_id)


def policy_inputs_of(**changes: Any) -> PolicyInputs:
    """Give policy inputs of a flat symbol on its first bar."""
    inputs = PolicyInputs(
        symbol=SYMBOL,
        ts_ms=START_MS,
        bar_interval_ms=HOUR_MS,
        trigger_state=TriggerState.LONG_ALLOWED,
        triggers_known=True,
        signal_strength_bps=8_000,
        vol_hat_ppm=150_000,
        current_weight_ppm=0,
        equity=Decimal(1_000_000),
        exit_intent=None,
        emergency_only=False,
        overrides=None,
        config=policy_config(),
        limits=plan_of("limits").risk_limits,
        state=STATE_INITIAL,
    )
    return structs.replace(inputs, **changes)


def record_of(
    *,
    bound: BoundPlan | None = None,
    ts_ms: int = START_MS,
    row: DecisionRow | None = None,
    model: ModelOutcome | None = None,
    **changes: Any,
) -> DecisionRecord:
    """Give the record of one decision, by default the first of a proxy plan."""
    arguments: dict[str, Any] = {
        "kind": DecisionKind.BAR,
        "proxy": ProxyAnswer(p_hat_bps=7_000, reason=None),
        "point": CHAIN_START,
    }
    return record_decision(
        bound=bound or bind_plan(plan_of("plan"), PROXY_BINDING),
        ts_ms=ts_ms,
        row=row or row_of(),
        model=model,
        **(arguments | changes),
    )


def call_of(timeout_s: float = 5.0) -> Call:
    """Give a call that came in now."""
    return Call(
        deadline_s=time.monotonic() + timeout_s,
        clock=time.monotonic,
        identity="test",
        trace=Context(),
    )


def written_of(record: DecisionRecord) -> Written:
    """Give a record with its bytes and its hash, as a ledger takes it."""
    canonical = record.canonical
    return Written(record=record, canonical=canonical, record_hash=sha256_hex(canonical))
