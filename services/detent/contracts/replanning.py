"""Hold what a replan carries over, why it is made, and what becomes of it."""

from enum import StrEnum

import msgspec

from detent.contracts.checks import check_hash64, check_name, check_ts_ms
from detent.contracts.plan import PolicyState


class ReplanCause(StrEnum):
    """Says what makes a strategist replan."""

    EVENT = "event"
    HEARTBEAT = "heartbeat"


class ReplanOutcome(StrEnum):
    """Says what became of a replan."""

    REPLACED = "replaced"
    SUPPRESSED = "suppressed"
    SKIPPED = "skipped"


class ReplanSkipReason(StrEnum):
    """Says why it was not the time of a replan.

    Source: FORMULAS 2.3, the skip reasons that do not depend on its states; row R355.
    """

    ALREADY_RUNNING = "already_running"
    NO_EVENT_AND_NO_HEARTBEAT = "no_event_and_no_heartbeat"
    COOLDOWN_NOT_EXPIRED = "cooldown_not_expired"


class CarriedState(msgspec.Struct, frozen=True, kw_only=True):
    """Holds where a symbol stood when the plan that decided it was replaced.

    Attributes:
        plan_id: The plan that wrote the cited record.
        record_hash: Its last record of the symbol, 64 hex.
        ts_ms: Close time of that record's bar, Unix milliseconds.
        state: What policy remembered after it.
    """

    plan_id: str
    record_hash: str
    ts_ms: int
    state: PolicyState

    def __post_init__(self) -> None:
        """Refuse what cites no record."""
        check_name("plan_id", self.plan_id)
        check_hash64("record_hash", self.record_hash)
        check_ts_ms("ts_ms", self.ts_ms)


class ReplanSkip(msgspec.Struct, frozen=True, kw_only=True):
    """Notes that a strategist did not replan at an instant (data time), and why not."""

    ts_ms: int
    reason: ReplanSkipReason

    def __post_init__(self) -> None:
        """Refuse an instant that is none."""
        check_ts_ms("ts_ms", self.ts_ms)
