"""Hold the requests and responses of `PolicyService` that replace plans."""

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import PlanArm, check_source
from detent.contracts.checks import (
    check_count,
    check_name,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.plan import Plan
from detent.contracts.replanning import (
    ReplanCause,
    ReplanOutcome,
    ReplanSkip,
    ReplanSkipReason,
)
from detent.contracts.units import ROWS_MAX


class ReplacePlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a plan to be replaced.

    Attributes:
        binding_hash: Binding of the plan that is replaced, 64 hex.
        plan_id: The plan that is replaced.
        ts_ms: The instant of which the replan is, Unix milliseconds in data time.
        plan: The new plan, under a name of its own.
        model_binding: Its binding; None under a rollout.
        new_binding_hash: Hash of `model_binding`, 64 hex; empty under a rollout.
        cause: What makes the strategist replan.
        note: Why, in words; never material. May be empty.
        rollout_id: The rollout whose bindings are taken, or None.
    """

    binding_hash: str
    plan_id: str
    ts_ms: int
    plan: Plan
    model_binding: ModelBinding | None = None
    new_binding_hash: str = ""
    cause: ReplanCause
    note: str = ""
    rollout_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a replan without a time, and a plan that would replace itself."""
        check_name("plan_id", self.plan_id)
        check_ts_ms("ts_ms", self.ts_ms)
        check_source(self.model_binding, self.rollout_id, hash_given=self.new_binding_hash)
        if self.plan.plan_id == self.plan_id:
            raise InvalidField("plan.plan_id", self.plan_id, "another name than the replaced plan")
        if self.note:
            check_text("note", self.note)


class ReplacePlanResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of a replan, and which plan decides from here on.

    Attributes:
        binding_hash: Binding of the plan that decides from here on.
        outcome: What became of it.
        plan_id: The plan that decides from here on.
        arms: Its arms.
        policy_config_hash: Hash of its policy config.
        skip_reason: Why it was skipped, or None.
        not_before_ts_ms: First instant that is not too early; None unless it was skipped.
    """

    binding_hash: str
    outcome: ReplanOutcome
    plan_id: str
    arms: tuple[PlanArm, ...]
    policy_config_hash: str
    skip_reason: ReplanSkipReason | None = None
    not_before_ts_ms: int | None = None


class RecordReplanSkipsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for skipped replans to be recorded."""

    binding_hash: str
    plan_id: str
    skips: tuple[ReplanSkip, ...]

    def __post_init__(self) -> None:
        """Refuse a report that is empty, too large, or says an instant twice."""
        check_name("plan_id", self.plan_id)
        check_count("skips", self.skips, 1, ROWS_MAX)
        check_unique("skips", [str(skip.ts_ms) for skip in self.skips])


class RecordReplanSkipsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms that skipped replans are durable."""

    binding_hash: str
    accepted_count: int
    known_count: int
