"""Proves that a decision waits for its data, within its deadline and no longer."""

import asyncio
import time

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, SYMBOL, row_of
from tests.conftest import Artifacts
from tests.strategist import Strategist, feed

from detent.contracts.binding import SignalSource
from detent.contracts.reasons import Reason
from detent_client import DetentClient

LATE_SYMBOL = "NZDUSD"
DEADLINE_S = 1.0
SLACK_S = 0.5


async def test_a_bar_asked_before_its_data_came_is_answered_by_the_model_once_they_do(
    client: DetentClient, artifacts: Artifacts
) -> None:
    series = [structs.replace(bar, symbol=LATE_SYMBOL) for bar in artifacts.bars[SYMBOL]]
    await feed(client, {LATE_SYMBOL: series[:100]})
    strategist = await Strategist.open(
        client, {LATE_SYMBOL: series}, artifacts.stable_binding, symbols=(LATE_SYMBOL,)
    )

    asked = asyncio.create_task(strategist.decide(100))
    await asyncio.sleep(0.3)
    assert not asked.done()
    await feed(client, {LATE_SYMBOL: series[100:101]})
    decision = await asked

    assert decision.signal_source is SignalSource.MODEL
    assert decision.fallback_reason is None


@pytest.mark.proves("R99", "R321")
async def test_a_bar_that_the_data_never_reach_is_stale_within_the_deadline(
    client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    last = strategist.bars[-1]
    reasons = []
    for bar in range(1, 4):
        started_s = time.monotonic()
        decision = await client.decide(
            strategist.opened,
            ts_ms=last.ts_ms + bar * HOUR_MS,
            row=row_of(close=last.close),
            deadline_s=DEADLINE_S,
        )
        assert time.monotonic() - started_s < DEADLINE_S + SLACK_S
        assert decision.signal_source is SignalSource.PROXY
        reasons.append(decision.fallback_reason)

    # A busy machine may let the feature service's own answer miss the deadline by a hair.
    assert Reason.FEATURES_STALE in reasons
    late = {Reason.FEATURES_UNAVAILABLE, Reason.CLIENT_NO_SERVICE}
    assert set(reasons) <= {Reason.FEATURES_STALE, *late}
