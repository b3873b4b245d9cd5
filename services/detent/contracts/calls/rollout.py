"""Hold the requests and responses of `RolloutService`."""

from enum import StrEnum

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.checks import check_int, check_name, check_text
from detent.contracts.errors import InvalidField
from detent.contracts.kill_switch import (
    EPOCH_FIRST,
    KillPosition,
    KillReader,
    KillScope,
    KillSwitch,
    LocalKill,
    check_scope,
)
from detent.contracts.rollout import (
    RampStep,
    Rollout,
    RolloutEvent,
    StepPower,
    check_bindings,
    check_evidence,
    check_ramp,
    check_seen_revision,
    check_symbols_of_rollout,
)
from detent.contracts.units import BPS_ONE, INT64_MAX


class SharedKillState(StrEnum):
    """Says what a process has of the shared state."""

    NONE = "none"
    FRESH = "fresh"
    STALE = "stale"


class SetKillSwitchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks to switch models off in a scope, or to release them there.

    Attributes:
        scope: What is reached.
        key: `model_id`, `plan_id` or symbol; empty for everything.
        position: How the switch shall stand.
        seen_epoch: The epoch that is released; None for switching off.
        actor: Who asks.
        reason: Why.
    """

    scope: KillScope
    key: str = ""
    position: KillPosition
    seen_epoch: int | None = None
    actor: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse a switch that nobody sets, or a release of nothing that was seen."""
        check_scope(self.scope, self.key)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        if self.seen_epoch is not None:
            check_int("seen_epoch", self.seen_epoch, EPOCH_FIRST, INT64_MAX)
        elif self.position is KillPosition.RELEASED:
            raise InvalidField("seen_epoch", "(missing)", "the epoch that is released")


class SetKillSwitchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Reports a change that holds everywhere.

    Attributes:
        kill_switch: The switch as it stands now.
        applied_count: Replicas that said that they obey it.
        leased_out_count: Replicas that said nothing, whose lease has run out.
    """

    kill_switch: KillSwitch
    applied_count: int
    leased_out_count: int


class GetKillSwitchesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the switches."""


class GetKillSwitchesResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives the switches as one process knows them.

    Attributes:
        kill_switches: The shared ones, the released ones too.
        readers: The replicas, and what each obeys.
        local_kills: What this process has off by itself.
        shared_state: What this process has of the shared state.
    """

    kill_switches: tuple[KillSwitch, ...] = ()
    readers: tuple[KillReader, ...] = ()
    local_kills: tuple[LocalKill, ...] = ()
    shared_state: SharedKillState


class StartRolloutRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks to start a rollout, in shadow.

    Attributes:
        rollout_id: Its name, never used before.
        book: Whose plans it is for.
        symbols: Those that the book trades.
        stable_binding: What answers for symbols that are not the candidate's.
        candidate_binding: What is rolled out.
        salt: Makes the buckets of the symbols its own; empty takes the name.
        ramp: Its steps; empty takes `DEFAULT_RAMP`.
        actor: Who asks.
        reason: Why.
    """

    rollout_id: str
    book: str
    symbols: tuple[str, ...]
    stable_binding: ModelBinding
    candidate_binding: ModelBinding
    salt: str = ""
    ramp: tuple[RampStep, ...] = ()
    actor: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse a rollout of nothing, or one that nobody starts."""
        check_name("rollout_id", self.rollout_id)
        check_name("book", self.book)
        check_symbols_of_rollout(self.symbols)
        check_bindings(self.stable_binding, self.candidate_binding)
        if self.salt:
            check_name("salt", self.salt)
        if self.ramp:
            check_ramp(self.ramp)
        check_name("actor", self.actor)
        check_text("reason", self.reason)


class StartRolloutResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms a rollout and says per step of its ramp what can be told."""

    rollout: Rollout
    steps: tuple[StepPower, ...]


class SetCanaryPercentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for another share of the symbols.

    Attributes:
        rollout_id: Which rollout.
        canary_bps: The share, basis points.
        seen_revision: The revision that is changed.
        actor: Who asks.
        reason: Why.
        override_reason: Why the hold or the step is not kept to; None keeps to them.
    """

    rollout_id: str
    canary_bps: int
    seen_revision: int
    actor: str
    reason: str
    override_reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse a share that cannot be, and a change that nobody makes."""
        check_name("rollout_id", self.rollout_id)
        check_int("canary_bps", self.canary_bps, 0, BPS_ONE)
        check_seen_revision(self.seen_revision)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        if self.override_reason is not None:
            check_text("override_reason", self.override_reason)


class SetCanaryPercentResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms a share, and says which symbols it makes the candidate's."""

    rollout: Rollout
    step: StepPower


class PromoteRolloutRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the candidate to be used for all symbols.

    Attributes:
        rollout_id: Which rollout.
        seen_revision: The revision that is changed.
        actor: Who asks.
        reason: Why.
        override_reason: Why the hold or the step is not kept to; None keeps to them.
        evidence: What the decision goes by, as JSON; may be empty.
    """

    rollout_id: str
    seen_revision: int
    actor: str
    reason: str
    override_reason: str | None = None
    evidence: str = ""

    def __post_init__(self) -> None:
        """Refuse a promotion that nobody makes."""
        check_name("rollout_id", self.rollout_id)
        check_seen_revision(self.seen_revision)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        check_evidence(self.evidence)
        if self.override_reason is not None:
            check_text("override_reason", self.override_reason)


class PromoteRolloutResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Confirms a promotion."""

    rollout: Rollout


class RollBackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the candidate to be taken back; nobody has to have seen anything before.

    Attributes:
        rollout_id: Which rollout.
        actor: Who asks.
        reason: Why.
        evidence: What the decision goes by, as JSON; may be empty.
    """

    rollout_id: str
    actor: str
    reason: str
    evidence: str = ""

    def __post_init__(self) -> None:
        """Refuse a rollback that nobody makes."""
        check_name("rollout_id", self.rollout_id)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        check_evidence(self.evidence)


class RollBackResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Reports a rollback that holds everywhere.

    Attributes:
        rollout: The rollout as it stands now.
        applied_count: Replicas that said that they obey it.
        leased_out_count: Replicas that said nothing, whose lease has run out.
    """

    rollout: Rollout
    applied_count: int
    leased_out_count: int


class GetRolloutRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a rollout."""

    rollout_id: str


class GetRolloutResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives a rollout with its changes, oldest first."""

    rollout: Rollout
    history: tuple[RolloutEvent, ...]


class ListRolloutsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the rollouts of a book; an empty one asks for all."""

    book: str = ""


class ListRolloutsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives rollouts, newest change first."""

    rollouts: tuple[Rollout, ...]


class WatchRolloutRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks to be told of changes.

    Attributes:
        book: Which book; empty watches all.
        after_revision: The newest revision that the caller knows; 0 knows nothing.
    """

    book: str = ""
    after_revision: int = 0

    def __post_init__(self) -> None:
        """Refuse a revision that cannot be."""
        check_int("after_revision", self.after_revision, 0, INT64_MAX)


class WatchRolloutResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of changes.

    Attributes:
        rollouts: Those that changed since the last answer, as they stand.
        revision: The newest revision that there is.
    """

    rollouts: tuple[Rollout, ...]
    revision: int
