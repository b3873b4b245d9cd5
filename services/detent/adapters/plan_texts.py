"""Write bound plans as the texts of the plan log, and read them back."""

from typing import Any

from detent.adapters.sqlite_file import Statement
from detent.contracts.binding import ModelBinding
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.rollout import PlanRollout
from detent.core.ledger.record import BoundPlan, bind_plan


def plan_event(
    bound: BoundPlan, status: PlanStatus, summary: bytes | None = None
) -> list[Statement]:
    """Give what notes that a plan was opened, or closed with a summary of what it did."""
    plan = bound.plan
    values = (
        plan.plan_id,
        "opened" if status is PlanStatus.OPEN else "closed",
        plan.book,
        bound.binding_hash,
        canonical_text(Plan.SCHEMA, plan),
        canonical_text(ModelBinding.SCHEMA, bound.binding),
    )
    sql = "INSERT INTO plan_log (plan_id, event, book, binding_hash, plan, binding)"
    statements: list[Statement] = [(f"{sql} VALUES (?, ?, ?, ?, ?, ?)", [values])]
    if bound.rollout is not None and status is PlanStatus.OPEN:
        shadow = bound.shadow_binding
        beside = "" if shadow is None else canonical_text(ModelBinding.SCHEMA, shadow)
        arm = (plan.plan_id, canonical_text(PlanRollout.SCHEMA, bound.rollout), beside)
        sql = "INSERT INTO plan_rollouts (plan_id, rollout, shadow_binding) VALUES (?, ?, ?)"
        statements.append((sql, [arm]))
    if summary is not None:
        sql = "INSERT INTO results_summary (plan_id, book, canonical) VALUES (?, ?, ?)"
        statements.append((sql, [(plan.plan_id, plan.book, summary.decode("ascii"))]))
    return statements


def bound_of(row: tuple[Any, ...]) -> BoundPlan:
    """Read a bound plan from its texts, in the order of `ledger_columns.BOUND`."""
    plan, binding, rollout, shadow = row[:4]
    arm, beside = None, None
    if rollout is not None:
        arm = from_json(PlanRollout, parse_json("rollout", rollout.encode()))
    if shadow:
        beside = from_json(ModelBinding, parse_json("shadow_binding", shadow.encode()))
    return bind_plan(
        from_json(Plan, parse_json("plan", plan.encode())),
        from_json(ModelBinding, parse_json("binding", binding.encode())),
        rollout=arm,
        shadow_binding=beside,
    )


def canonical_text(schema: str, value: object) -> str:
    """Give the canonical text of a value."""
    return canonical_bytes(schema, to_json(value)).decode("ascii")
