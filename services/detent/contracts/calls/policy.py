"""Hold the requests and responses of `PolicyService`."""

from collections.abc import Sequence

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_name,
    check_symbol,
    check_ts_ms,
    check_unique,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow, LocalAnswer
from detent.contracts.errors import InvalidField
from detent.contracts.plan import Plan, PlanStatus, StandDown, StandDownSource
from detent.contracts.reasons import ErrorReason
from detent.contracts.rollout import PlanRollout
from detent.contracts.trades import Fill, Outcome
from detent.contracts.units import ROWS_MAX


class OpenPlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a plan to be opened, under one binding or under those of a rollout.

    Attributes:
        binding_hash: Hash of `model_binding`, 64 hex; empty under a rollout.
        plan: The plan.
        model_binding: Its binding; None under a rollout.
        rollout_id: The rollout whose bindings are taken, or None.
    """

    binding_hash: str = ""
    plan: Plan
    model_binding: ModelBinding | None = None
    rollout_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a plan under nothing, and under both."""
        check_source(self.model_binding, self.rollout_id, hash_given=self.binding_hash)


class PlanArm(msgspec.Struct, frozen=True, kw_only=True):
    """Names one arm of a plan."""

    plan_id: str
    binding_hash: str
    symbols: tuple[str, ...]


class OpenPlanResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms a plan."""

    binding_hash: str
    arms: tuple[PlanArm, ...]
    policy_config_hash: str


class ClosePlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a plan to be closed."""

    binding_hash: str
    plan_id: str


class ClosePlanResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that a plan is closed."""

    binding_hash: str
    plan_id: str
    status: PlanStatus


class GetPlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a plan."""

    plan_id: str


class GetPlanResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives a plan with its binding.

    Attributes:
        binding_hash: Hash of `model_binding`.
        plan: The plan as it was opened.
        model_binding: Its binding.
        status: Whether it decides.
        policy_config_hash: Hash of its policy config.
        rollout: Which arm of which rollout it is; None for a plan of its own.
        shadow_binding: What answers beside, for comparison only, or None.
    """

    binding_hash: str
    plan: Plan
    model_binding: ModelBinding
    status: PlanStatus
    policy_config_hash: str
    rollout: PlanRollout | None = None
    shadow_binding: ModelBinding | None = None


class DecideTargetWeightsRequest(msgspec.Struct, frozen=True, kw_only=True):
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


class RowRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Says why one row, or one item of a stream, was refused; the others were decided."""

    reason: ErrorReason
    message: str
    metadata: dict[str, str]


class DecisionResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Gives one row's decision, or the reason why the row was refused."""

    symbol: str
    decision: Decision | None = None
    refusal: RowRefusal | None = None

    def __post_init__(self) -> None:
        """Refuse a result that says nothing or both."""
        if (self.decision is None) is (self.refusal is None):
            check_exactly_one("outcome", decision=self.decision, refusal=self.refusal)


class DecideTargetWeightsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives the decisions in the order in which they were asked for."""

    binding_hash: str
    results: tuple[DecisionResult, ...]


class ReportLocalAnswersRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for local answers to be recorded."""

    binding_hash: str
    plan_id: str
    answers: tuple[LocalAnswer, ...]

    def __post_init__(self) -> None:
        """Refuse a report that is empty or too large."""
        check_count("answers", self.answers, 1, ROWS_MAX)


class ReportLocalAnswersResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that local answers are durable."""

    binding_hash: str
    accepted_count: int
    known_count: int


class RecordFillsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for fills to be recorded."""

    binding_hash: str
    plan_id: str
    fills: tuple[Fill, ...]

    def __post_init__(self) -> None:
        """Refuse a report that is empty, too large, of several plans, or says a fill twice."""
        check_name("plan_id", self.plan_id)
        check_count("fills", self.fills, 1, ROWS_MAX)
        check_unique("fills", [fill.fill_id for fill in self.fills])
        _check_plan("fills", self.plan_id, self.fills)


class RecordFillsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that fills are durable."""

    binding_hash: str
    accepted_count: int
    known_count: int


class RecordOutcomesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for outcomes to be recorded."""

    binding_hash: str
    plan_id: str
    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        """Refuse a report that is empty, too large, of several plans, or says a bar twice."""
        check_name("plan_id", self.plan_id)
        check_count("outcomes", self.outcomes, 1, ROWS_MAX)
        check_unique("outcomes", [f"{one.symbol} at {one.ts_ms}" for one in self.outcomes])
        _check_plan("outcomes", self.plan_id, self.outcomes)


class RecordOutcomesResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that outcomes are durable."""

    binding_hash: str
    accepted_count: int
    known_count: int


def _check_plan(field: str, plan_id: str, facts: Sequence[Fill | Outcome]) -> None:
    """Refuse facts of another plan than the call's."""
    for index, fact in enumerate(facts):
        if fact.plan_id != plan_id:
            raise InvalidField(f"{field}[{index}].plan_id", fact.plan_id, plan_id)


class SetStandDownRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a stand-down of a book, or of some of its symbols, or for its end.

    Attributes:
        book: The book.
        symbols: 1 to 5,000 of them; empty means the whole book.
        stand_down: What its source asks for, in the place of what it set before.
        lift: The source whose stand-down ends.
    """

    book: str
    symbols: tuple[str, ...] = ()
    stand_down: StandDown | None = None
    lift: StandDownSource | None = None

    def __post_init__(self) -> None:
        """Refuse a scope that is none, and a change that says nothing or both."""
        check_name("book", self.book)
        check_count("symbols", self.symbols, 0, ROWS_MAX)
        check_unique("symbols", self.symbols)
        for symbol in self.symbols:
            check_symbol("symbols", symbol)
        check_exactly_one("change", stand_down=self.stand_down, lift=self.lift)


class SetStandDownResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that a stand-down, or its end, is durable and obeyed.

    Attributes:
        book: The book.
        changed_count: Scopes (the book, or symbols) that changed.
        known_count: Scopes that were so already.
        other_targets: Addresses of replicas that have not been told: each keeps stand-downs of
            its own.
    """

    book: str
    changed_count: int
    known_count: int
    other_targets: tuple[str, ...] = ()


def check_source(
    model_binding: ModelBinding | None, rollout_id: str | None, *, hash_given: str
) -> None:
    """Refuse a plan that says neither binding nor rollout, or both."""
    check_exactly_one("source", model_binding=model_binding, rollout_id=rollout_id)
    if rollout_id is None:
        return
    check_name("rollout_id", rollout_id)
    if hash_given:
        raise InvalidField("binding_hash", hash_given, "empty: the rollout says the binding")
