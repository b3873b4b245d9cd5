"""Hold the requests and responses of `PolicyService`."""

import dataclasses

from detent.contracts.binding import ModelBinding
from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_name,
    check_ts_ms,
    check_unique,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow, LocalAnswer
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.reasons import ErrorReason
from detent.contracts.units import ROWS_MAX


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlanRequest:
    """Asks for a plan to be opened under one binding."""

    binding_hash: str
    plan: Plan
    model_binding: ModelBinding


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanArm:
    """Names one arm of a plan."""

    plan_id: str
    binding_hash: str
    symbols: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlanResponse:
    """Confirms a plan."""

    binding_hash: str
    arms: tuple[PlanArm, ...]
    policy_config_hash: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClosePlanRequest:
    """Asks for a plan to be closed."""

    binding_hash: str
    plan_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClosePlanResponse:
    """Confirms that a plan is closed."""

    binding_hash: str
    plan_id: str
    status: PlanStatus


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GetPlanRequest:
    """Asks for a plan."""

    plan_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GetPlanResponse:
    """Gives a plan with its binding."""

    binding_hash: str
    plan: Plan
    model_binding: ModelBinding
    status: PlanStatus
    policy_config_hash: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecideTargetWeightsRequest:
    """Asks for decisions on one bar."""

    binding_hash: str
    plan_id: str
    ts_ms: int
    kind: DecisionKind
    rows: tuple[DecisionRow, ...]

    def __post_init__(self) -> None:
        """Refuse a bar without a time and a symbol asked twice."""
        check_name("plan_id", self.plan_id)
        check_ts_ms("ts_ms", self.ts_ms)
        check_count("rows", self.rows, 1, ROWS_MAX)
        check_unique("rows", [row.symbol for row in self.rows])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowRefusal:
    """Says why one row was refused; the others were decided."""

    reason: ErrorReason
    message: str
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecisionResult:
    """Gives one row's decision, or the reason why the row was refused."""

    symbol: str
    decision: Decision | None = None
    refusal: RowRefusal | None = None

    def __post_init__(self) -> None:
        """Refuse a result that says nothing or both."""
        check_exactly_one("outcome", decision=self.decision, refusal=self.refusal)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecideTargetWeightsResponse:
    """Gives the decisions in the order in which they were asked for."""

    binding_hash: str
    results: tuple[DecisionResult, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportLocalAnswersRequest:
    """Asks for local answers to be recorded."""

    binding_hash: str
    plan_id: str
    answers: tuple[LocalAnswer, ...]

    def __post_init__(self) -> None:
        """Refuse a report that is empty or too large."""
        check_count("answers", self.answers, 1, ROWS_MAX)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportLocalAnswersResponse:
    """Confirms that local answers are durable."""

    binding_hash: str
    accepted_count: int
    known_count: int
