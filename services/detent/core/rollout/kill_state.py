"""Say whether the kill switch forbids the model: off wins, and stale is off.

Every replica holds what it last read of the shared state and how long ago that was. What is not
known counts as off; a release needs somebody's name and a higher epoch, so that no late or
repeated message brings a model back.

Source: DESIGN section 4, promise P7; RELIABILITY A3 and F5.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import structs

from detent.contracts.errors import InvalidField, KillEpochStale
from detent.contracts.kill_switch import EPOCH_FIRST, KillPosition, KillScope, KillSwitch
from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout, RolloutArm, RolloutStage, base_plan_id

# A replica that could not read the truth for this long answers without the model.
STALE_S = 1.0
READ_EVERY_S = 0.2
# Begins the name of every actor that is no person.
AUTOMATIC = "automatic:"

Key = tuple[KillScope, str]
EVERYTHING: Key = (KillScope.GLOBAL, "")


class KillState(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the switches that are on and how rollouts stand, as they were read at one instant.

    Attributes:
        on: Keys of the switches that are on.
        read_s: When they were read, on the monotonic clock; None before the first time.
        stages: How far each rollout has come, by its name.
    """

    on: frozenset[Key] = frozenset()
    read_s: float | None = None
    stages: Mapping[str, RolloutStage] = msgspec.field(default_factory=dict)


class KillReading(msgspec.Struct, frozen=True, kw_only=True):
    """Holds all that a process knows of switches at one instant, beside its own settings.

    Attributes:
        file: Keys that the watched file holds.
        latched: Keys that a latch of this process holds until the shared state does.
        shared: What was read of the control database; None where none is configured.
        now_s: The monotonic clock at this instant.
    """

    file: frozenset[Key] = frozenset()
    latched: frozenset[Key] = frozenset()
    shared: KillState | None = None
    now_s: float = 0.0


NOTHING_READ = KillReading()


def killed_symbols(
    reading: KillReading, *, model_id: str, plan_id: str, symbols: Collection[str]
) -> dict[str, Reason]:
    """Say of every symbol of a plan whose model is off why it is; of the others nothing.

    Args:
        reading: What is known now.
        model_id: The model that the plan binds.
        plan_id: The plan.
        symbols: Instruments.

    Returns:
        The first reason that holds, by symbol: the watched file, then the shared state.
    """
    shared, file = reading.shared, reading.file
    if shared is None and not file and not reading.latched:
        return {}
    known = shared if shared is not None else KillState(read_s=reading.now_s)
    known = structs.replace(known, on=known.on | reading.latched)
    reasons = {}
    for symbol in symbols:
        reason = kill_reason(
            known, now_s=reading.now_s, model_id=model_id, plan_id=plan_id, symbol=symbol
        )
        if file and not file.isdisjoint(_keys(model_id, plan_id, symbol)):
            reason = Reason.KILL_SWITCH_FILE
        if reason is not None:
            reasons[symbol] = reason
    return reasons


def newest_of(switches: Iterable[KillSwitch]) -> dict[Key, KillSwitch]:
    """Give each switch once; of two with one key the higher epoch holds, then off.

    Whoever has seen an epoch takes no lower one, so that a database that was put back to an
    earlier day releases nothing.
    """
    newest: dict[Key, KillSwitch] = {}
    for switch in switches:
        key = (switch.scope, switch.key)
        before = newest.get(key)
        if before is None or (before.epoch, before.is_on) < (switch.epoch, switch.is_on):
            newest[key] = switch
    return newest


def state_of(
    switches: Iterable[KillSwitch],
    *,
    read_s: float,
    stages: Mapping[str, RolloutStage] | None = None,
) -> KillState:
    """Give the state that switches make; of two with one key the newest holds."""
    newest = newest_of(switches)
    on = frozenset(key for key, switch in newest.items() if switch.is_on)
    return KillState(on=on, read_s=read_s, stages=stages or {})


def rollout_reason(reading: KillReading, rollout: PlanRollout | None) -> Reason | None:
    """Say why a plan's model may not answer as far as its rollout goes, or None when it may.

    The percent says nothing here: it is settled when a plan opens. Mid-plan a candidate can
    only be taken back; one that nobody knows anything of is in no canary (RELIABILITY F2).

    Args:
        reading: What is known now; that it is fresh is another gate.
        rollout: Which arm of which rollout the plan is; None for a plan of its own.

    Source: decision D10; DESIGN section 4.
    """
    if rollout is None or rollout.arm is RolloutArm.STABLE:
        return None
    stages = reading.shared.stages if reading.shared is not None else {}
    stage = stages.get(rollout.rollout_id)
    if stage is None:
        return Reason.NOT_IN_CANARY
    return Reason.ROLLED_BACK if stage is RolloutStage.ROLLED_BACK else None


def kill_reason(
    state: KillState, *, now_s: float, model_id: str, plan_id: str, symbol: str
) -> Reason | None:
    """Say why the model may not answer for a symbol of a plan, or None when it may.

    Args:
        state: What was read last.
        now_s: The monotonic clock now.
        model_id: The model that the plan binds.
        plan_id: The plan.
        symbol: Instrument.

    Returns:
        `KILL_STATE_STALE` where nothing was read for a second, `KILL_SWITCH_STATE` where a
        switch of any scope is on.
    """
    if is_stale(state, now_s):
        return Reason.KILL_STATE_STALE
    if state.on and not state.on.isdisjoint(_keys(model_id, plan_id, symbol)):
        return Reason.KILL_SWITCH_STATE
    return None


def is_stale(state: KillState, now_s: float) -> bool:
    """Say whether a reading is too old to be believed, on the monotonic clock."""
    # A clock that went backwards says nothing of how old the reading is.
    return state.read_s is None or not 0.0 <= now_s - state.read_s < STALE_S


def _keys(model_id: str, plan_id: str, symbol: str) -> tuple[Key, ...]:
    return (
        (KillScope.GLOBAL, ""),
        (KillScope.MODEL, model_id),
        (KillScope.PLAN, plan_id),
        # Whoever switches a plan off by the name that it was opened under means both arms.
        (KillScope.PLAN, base_plan_id(plan_id)),
        (KillScope.SYMBOL, symbol),
    )


def next_switch(
    switches: Mapping[Key, KillSwitch],
    *,
    scope: KillScope,
    key: str,
    position: KillPosition,
    seen_epoch: int | None,
    actor: str,
    reason: str,
    at_ms: int,
) -> KillSwitch:
    """Give the switch as a change leaves it.

    Switching off the model is always taken. A release has to name the epoch that it releases:
    who has not seen the newest change does not undo it.

    Args:
        switches: Every switch as it stands, by its key.
        scope: What is switched.
        key: Which one.
        position: Whether the model is to be off there.
        seen_epoch: The epoch that whoever releases has seen; not looked at for `off`.
        actor: Who switches.
        reason: Why.
        at_ms: When.

    Raises:
        KillEpochStale: A release names another epoch than the newest.
        InvalidField: The scope has no such key, nobody or nothing is named, or what is
            automatic releases.
    """
    if position is KillPosition.RELEASED and actor.startswith(AUTOMATIC):
        raise InvalidField("actor", actor, "a person: what is automatic releases nothing")
    before = switches.get((scope, key))
    newest = before.epoch if before is not None else EPOCH_FIRST - 1
    if position is KillPosition.RELEASED and seen_epoch != newest:
        raise KillEpochStale(seen_epoch, newest)
    return KillSwitch(
        scope=scope,
        key=key,
        position=position,
        epoch=newest + 1,
        actor=actor,
        reason=reason,
        at_ms=at_ms,
    )
