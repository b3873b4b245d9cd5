"""Decides bars by the real handlers of one process, and leaves the ledger for a monitor to read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import structs
from tests.builders import call_of, plan_of, row_of

from detent.adapters.artifact_store import read_artifact
from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.calls.policy import DecideTargetWeightsRequest, OpenPlanRequest
from detent.contracts.decision import DecisionKind
from detent.contracts.market import Bar
from detent.contracts.plan import PolicyConfig, TriggerState, VolUnit
from detent.core.features.feature_set import direction_bars_v1
from detent.core.rollout.gates import ACTIVE_ACK
from detent.offline.bars import BarTable
from detent.offline.building import Recipe, build_direction_artifact
from detent.rpc.tracing import no_tracer
from detent.servers.feature.main import build as build_features
from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.main import load
from detent.servers.inference.settings import InferenceSettings
from detent.servers.policy.main import Policy, wall_clock_ms
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.settings import PolicySettings

HORIZON_BARS = 4
PLAN_ID = "watched"
ACTIVE: dict[str, Any] = {
    "infer_enabled": True,
    "active_enabled": True,
    "active_ack": ACTIVE_ACK,
}
SHADOW: dict[str, Any] = {"infer_enabled": True, "shadow_mode": True, "drain_grace_s": 30.0}


def artifact_of(table: BarTable, symbol: str, *, train_bars: int, out_dir: Path) -> Path:
    """Train on the first bars of one symbol."""
    recipe = Recipe(
        model_name="direction_watched",
        model_version="v1.0.0",
        horizon_bars=HORIZON_BARS,
        horizon_id="h4",
        created_at="2024-01-15T10:30:00Z",
        feature_set=direction_bars_v1(table.interval_ms),
    )
    first = table.first(symbol, train_bars)
    build_direction_artifact(first, recipe, out_dir=out_dir, progress=lambda *_: None)
    return out_dir / "direction_watched_v1.0.0"


def stretched(bars: Sequence[Bar], start: int, factor: int) -> list[Bar]:
    """Plant a shift: from one bar on, every price moves so many times as far as it did."""
    level = bars[start].open

    def moved(price: Decimal, opened: Decimal) -> Decimal:
        return max(Decimal("0.01"), round(opened + factor * (price - opened), 2))

    found = list(bars[:start])
    for bar in bars[start:]:
        # Each bar opens at the true open, scaled to where the last one closed.
        scale = level / bar.open
        prices = {
            name: moved(getattr(bar, name) * scale, level) for name in ("high", "low", "close")
        }
        found.append(structs.replace(bar, open=level, **prices))
        level = prices["close"]
    return found


def decide(
    ledger_file: Path,
    artifact: Path,
    history: Sequence[Bar],
    bars: Sequence[Bar],
    settings: Mapping[str, Any] = ACTIVE,
) -> None:
    """Feed the history, then decide bar after bar, on the rung that the settings say."""
    asyncio.run(_decide(ledger_file, artifact, history, bars, settings))


async def _decide(
    ledger_file: Path,
    artifact: Path,
    history: Sequence[Bar],
    bars: Sequence[Bar],
    settings: Mapping[str, Any],
) -> None:
    features, _ = build_features(FeatureSettings(artifacts_dir=artifact.parent))
    serving = load(InferenceSettings(artifact_dir=artifact))
    signals = InferenceHandler(serving, max_inference_latency_ms=5_000, clock=time.monotonic)
    policy = Policy(
        PolicySettings(
            artifacts_dir=artifact.parent,
            ledger_file=ledger_file,
            ledger_durability="unsafe_memory",
            **settings,
        ),
        routes=FixedRoutes(features, signals),
        tracer=no_tracer(),
        now_ms=wall_clock_ms,
    )
    await policy.start()
    binding = read_artifact(artifact).pinned.binding
    symbol, interval_ms = bars[0].symbol, bars[0].interval_ms
    plan = plan_of(
        PLAN_ID,
        (symbol,),
        bar_interval_ms=interval_ms,
        policy_config=PolicyConfig(horizon_id="h4", vol_unit=VolUnit.PER_BAR),
    )
    opening = OpenPlanRequest(binding_hash=binding.binding_hash, plan=plan, model_binding=binding)
    await policy.handler.open_plan(opening, call_of())
    await features.ingest_market_data(_requests(history), call_of())
    for bar in bars:
        await features.ingest_market_data(_requests([bar]), call_of())
        row = row_of(symbol, close=bar.close, trigger_state=TriggerState.LONG_ALLOWED)
        query = DecideTargetWeightsRequest(
            binding_hash=binding.binding_hash,
            plan_id=PLAN_ID,
            ts_ms=bar.ts_ms,
            kind=DecisionKind.BAR,
            rows=(row,),
        )
        response = await policy.handler.decide_target_weights(query, call_of())
        assert response.results[0].decision is not None, response.results[0].refusal
    await policy.close()
    signals.close()


async def _requests(bars: Sequence[Bar]) -> AsyncIterator[IngestMarketDataRequest]:
    for start in range(0, len(bars), 500):
        events = tuple(MarketEvent(bar=bar) for bar in bars[start : start + 500])
        yield IngestMarketDataRequest(events=events)
