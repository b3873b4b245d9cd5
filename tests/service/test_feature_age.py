"""Proves that a plan says how old market data may be for a model's answer."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.builders import (
    HOUR_MS,
    SYMBOL,
    bar_series,
    call_of,
    close_ms,
    model_binding,
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost
from tests.service.test_feature_handler import ingest

from detent.contracts.calls.policy import DecideTargetWeightsRequest, OpenPlanRequest
from detent.contracts.decision import DecisionKind
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import direction_bars_v1
from detent.servers.feature.handler import FeatureHandler

FEATURES = direction_bars_v1(HOUR_MS)
BINDING = model_binding(feature_version=FEATURES.feature_version)
BARS = bar_series(SYMBOL, seed=1, count=60)
# The bar is asked about so long after its close; no newer one is there.
LATE_MS = 60_000


@pytest.fixture(name="host")
async def _host(tmp_path: Path) -> AsyncIterator[PolicyHost]:
    features = FeatureHandler({BINDING.binding_hash: FEATURES})
    await ingest(features, BARS)
    async with PolicyHost(tmp_path / "ledger.sqlite", BINDING, features=features) as host:
        yield host


async def answered(
    host: PolicyHost, age_ms: int | None, *, late_ms: int = LATE_MS
) -> Reason | None:
    """Open a plan with this age, decide a bar, and give why it was not the model."""
    plan = plan_of(f"plan-{age_ms}-{late_ms}", max_feature_age_ms=age_ms)
    query = OpenPlanRequest(binding_hash=BINDING.binding_hash, plan=plan, model_binding=BINDING)
    await host.handler.open_plan(query, call_of())
    asked = DecideTargetWeightsRequest(
        binding_hash=BINDING.binding_hash,
        plan_id=plan.plan_id,
        ts_ms=close_ms(40) + late_ms,
        kind=DecisionKind.BAR,
        rows=(row_of(),),
    )
    (result,) = (await host.handler.decide_target_weights(asked, call_of())).results
    assert result.decision is not None
    return result.decision.fallback_reason


async def test_data_older_than_the_plan_allows_are_answered_by_the_proxy(
    host: PolicyHost,
) -> None:
    assert await answered(host, LATE_MS - 1) is Reason.FEATURES_STALE


@pytest.mark.parametrize("age_ms", [None, LATE_MS, 10 * LATE_MS])
async def test_data_as_old_as_the_plan_allows_are_the_models(
    host: PolicyHost, age_ms: int | None
) -> None:
    """The control of the test above, and the plan of before: it says nothing."""
    assert await answered(host, age_ms) is None


async def test_plan_that_wants_data_of_the_instant_gets_them(host: PolicyHost) -> None:
    assert await answered(host, 0, late_ms=0) is None
    assert await answered(host, 0, late_ms=1) is Reason.FEATURES_STALE
