"""Hold the requests and responses of `RolloutService`."""

from enum import StrEnum

import msgspec

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
from detent.contracts.units import INT64_MAX


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
