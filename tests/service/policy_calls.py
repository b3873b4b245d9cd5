"""Asks a policy handler as a strategist would: open, decide, close."""

import asyncio
from typing import Any

from msgspec import structs
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    call_of,
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    OpenPlanRequest,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.plan import Plan
from detent.rpc.call import Call

PLAN = plan_of("plan", (SYMBOL, OTHER_SYMBOL))


async def open_plan(host: PolicyHost, plan: Plan, binding: ModelBinding) -> None:
    query = OpenPlanRequest(binding_hash=binding.binding_hash, plan=plan, model_binding=binding)
    await host.handler.open_plan(query, call_of())


async def close_plan(host: PolicyHost, plan: Plan = PLAN) -> None:
    query = ClosePlanRequest(binding_hash=host.binding.binding_hash, plan_id=plan.plan_id)
    await host.handler.close_plan(query, call_of())


async def ask(
    host: PolicyHost,
    *rows: DecisionRow,
    bar: int = 0,
    kind: DecisionKind = DecisionKind.BAR,
    plan: Plan = PLAN,
    call: Call | None = None,
    timeout_s: float = 5.0,
    **changes: Any,
) -> DecideTargetWeightsResponse:
    query = DecideTargetWeightsRequest(
        binding_hash=host.binding.binding_hash,
        plan_id=plan.plan_id,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=kind,
        rows=rows or (row_of(),),
    )
    query = structs.replace(query, **changes)
    return await host.handler.decide_target_weights(query, call or call_of(timeout_s))


async def decide(host: PolicyHost, *rows: DecisionRow, **options: Any) -> Decision:
    result = (await ask(host, *rows, **options)).results[0]
    assert result.decision is not None, result.refusal
    return result.decision


async def refusal(host: PolicyHost, *rows: DecisionRow, **options: Any) -> Any:
    result = (await ask(host, *rows, **options)).results[0]
    assert result.decision is None
    return result.refusal


def waits_for(going: asyncio.Event, host: PolicyHost) -> Any:
    async def behavior(query: Any, call: Any) -> Any:
        await going.wait()
        return await host.inference.answers(query, call)

    return behavior
