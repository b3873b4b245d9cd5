"""Hold what an operator has switched off, in which scope, by whom and why."""

from enum import StrEnum

import msgspec

from detent.contracts.checks import check_int, check_name, check_symbol, check_text, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT64_MAX

EPOCH_FIRST = 1


class KillScope(StrEnum):
    """Names what a kill switch reaches, from everything to one instrument."""

    GLOBAL = "global"
    MODEL = "model"
    PLAN = "plan"
    SYMBOL = "symbol"


class KillPosition(StrEnum):
    """Says how a switch stands."""

    OFF = "off"
    RELEASED = "released"


class KillSource(StrEnum):
    """Names where one process by itself may read that the model is off."""

    ENVIRONMENT = "environment"
    CONFIG = "config"
    FILE = "file"
    LATCH = "latch"


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """States one switch as it stands.

    Attributes:
        scope: What it reaches.
        key: Which one: `model_id`, `plan_id` or symbol; empty for everything. The name that a
            plan was opened under reaches both arms of its rollout.
        position: `off` keeps the model off there; `released` is kept for who asks later.
        epoch: Counts the changes of this switch from 1 on; the higher one holds.
        actor: Who set it so.
        reason: Why.
        at_ms: When, Unix milliseconds UTC.
    """

    scope: KillScope
    key: str = ""
    position: KillPosition
    epoch: int
    actor: str
    reason: str
    at_ms: int

    def __post_init__(self) -> None:
        """Refuse a switch that nobody set, or that reaches nothing."""
        check_scope(self.scope, self.key)
        check_int("epoch", self.epoch, EPOCH_FIRST, INT64_MAX)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        check_ts_ms("at_ms", self.at_ms)

    @property
    def is_on(self) -> bool:
        """Say whether the model is off there."""
        return self.position is KillPosition.OFF


class LocalKill(msgspec.Struct, frozen=True, kw_only=True):
    """States what one process alone has off.

    Attributes:
        source: Where it read that.
        scope: What it reaches.
        key: Which one; empty for everything.
    """

    source: KillSource
    scope: KillScope
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse a key that its scope does not have."""
        check_scope(self.scope, self.key)


class KillReader(msgspec.Struct, frozen=True, kw_only=True):
    """States what a replica of policy has applied of the shared switches.

    Attributes:
        reader_id: Which replica.
        revision: The newest change that it obeys; 0 before the first.
        seen_ms: When it last said so, by its own clock, Unix milliseconds UTC.
    """

    reader_id: str
    revision: int
    seen_ms: int

    def __post_init__(self) -> None:
        """Refuse a reader without a name."""
        check_name("reader_id", self.reader_id)
        check_int("revision", self.revision, 0, INT64_MAX)
        check_ts_ms("seen_ms", self.seen_ms)


def check_scope(scope: KillScope, key: str) -> None:
    """Refuse a key that its scope does not have."""
    if scope is KillScope.GLOBAL:
        if key:
            raise InvalidField("key", key, "empty: the scope is everything")
    elif scope is KillScope.SYMBOL:
        check_symbol("key", key)
    else:
        check_name("key", key)


def parse_scope(text: str) -> tuple[KillScope, str]:
    """Read `global`, `model:ID`, `plan:ID` or `symbol:NAME`.

    Raises:
        InvalidField: It is none of them.
    """
    name, _, key = text.partition(":")
    if name not in list(KillScope) or (name == KillScope.GLOBAL and text != name):
        raise InvalidField("scope", text, "global, model:ID, plan:ID or symbol:NAME")
    scope = KillScope(name)
    check_scope(scope, key)
    return scope, key
