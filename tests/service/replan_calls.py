"""Asks a policy handler to replace plans, as a strategist would."""

import json
from typing import Any

from msgspec import structs
from tests.builders import HOUR_MS, START_MS, call_of, policy_config
from tests.fakes import PolicyHost
from tests.strategist import ledger_rows

from detent.contracts.calls.policy import GetPlanRequest, GetPlanResponse
from detent.contracts.calls.replanning import ReplacePlanRequest, ReplacePlanResponse
from detent.contracts.plan import Plan
from detent.contracts.replanning import ReplanCause


def next_of(plan: Plan, name: str, **changes: Any) -> Plan:
    return structs.replace(plan, plan_id=name, **changes)


def looser(tau_bps: int = 500) -> dict[str, Any]:
    """Give a change that is material and no tightening."""
    return {"policy_config": policy_config(tau_bps=tau_bps)}


def question(
    host: PolicyHost, plan: Plan, old: str = "plan", *, bar: int = 0, **changes: Any
) -> ReplacePlanRequest:
    query = ReplacePlanRequest(
        binding_hash=host.binding.binding_hash,
        plan_id=old,
        ts_ms=START_MS + bar * HOUR_MS,
        plan=plan,
        model_binding=host.binding,
        new_binding_hash=host.binding.binding_hash,
        cause=ReplanCause.EVENT,
        note="the judge asked",
    )
    return structs.replace(query, **changes)


async def replace(
    host: PolicyHost, plan: Plan, old: str = "plan", **changes: Any
) -> ReplacePlanResponse:
    return await host.handler.replace_plan(question(host, plan, old, **changes), call_of())


async def get(host: PolicyHost, plan_id: str) -> GetPlanResponse:
    return await host.handler.get_plan(GetPlanRequest(plan_id=plan_id), call_of())


def replans(host: PolicyHost) -> list[dict[str, Any]]:
    return ledger_rows(host.ledger_file, "SELECT * FROM replans ORDER BY id")


def record_text(host: PolicyHost, record_hash: str) -> dict[str, Any]:
    """Give a record as an auditor reads it."""
    sql = "SELECT canonical FROM decision_records WHERE record_hash = ?"
    (row,) = ledger_rows(host.ledger_file, sql, record_hash)
    return dict(json.loads(row["canonical"]))
