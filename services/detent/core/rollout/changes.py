"""Change a rollout: every step up is asked for twice, every step down is taken at once.

Raising the share goes to the next step of the ramp, when the present one has lasted, by
somebody who has seen how the rollout stands. Lowering it needs the last, rolling back nothing.

Source: decisions D10 and D18; rows R116, R119, R123 and R333; ADR 0049.
"""

import msgspec
from msgspec import structs

from detent.contracts.errors import (
    RolloutArmEmpty,
    RolloutConflict,
    RolloutHold,
    RolloutRevisionStale,
)
from detent.contracts.rollout import (
    RampStep,
    Rollout,
    RolloutAction,
    RolloutEvent,
    RolloutStage,
)
from detent.contracts.units import BPS_ONE
from detent.core.rollout.assignment import bucket_of, resolve_arms


class RolloutChange(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs a rollout as a change leaves it with what is kept of the change."""

    rollout: Rollout
    event: RolloutEvent


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Says who changes a rollout, when and why.

    Attributes:
        actor: Who.
        reason: Why.
        at_ms: When, Unix milliseconds UTC.
        override_reason: Why the hold or the step is not kept to; None keeps to them.
        evidence: What it goes by, as JSON; may be empty.
    """

    actor: str
    reason: str
    at_ms: int
    override_reason: str | None = None
    evidence: str = ""


def started(rollout: Rollout, change: Change) -> RolloutChange:
    """Give a rollout as it starts: in shadow.

    Raises:
        RolloutArmEmpty: Its first share above nothing gives the candidate no symbol.
    """
    first_bps = next(step.canary_bps for step in rollout.ramp if step.canary_bps)
    check_arm(rollout, first_bps)
    begun = structs.replace(
        rollout, canary_bps=0, stage=RolloutStage.SHADOW, since_ms=change.at_ms, revision=0
    )
    return _changed(begun, RolloutAction.STARTED, change)


def percent_set(
    rollout: Rollout, canary_bps: int, *, seen_revision: int, change: Change
) -> RolloutChange:
    """Give a rollout with another share of the symbols.

    Args:
        rollout: As it stands.
        canary_bps: The share, basis points.
        seen_revision: What whoever changes it has seen.
        change: Who, when and why.

    Raises:
        RolloutRevisionStale: It no longer stands so.
        RolloutConflict: It is past shares: promoted, taken back or ended.
        RolloutHold: The present step has not lasted, or one would be left out.
        RolloutArmEmpty: The share is of no symbol.
    """
    _check_seen(rollout, seen_revision)
    if rollout.stage not in (RolloutStage.SHADOW, RolloutStage.CANARY):
        raise RolloutConflict(rollout.rollout_id, found=rollout.stage, expected="shadow or canary")
    if canary_bps > rollout.canary_bps and change.override_reason is None:
        _check_hold(rollout, canary_bps, change.at_ms)
    if canary_bps:
        check_arm(rollout, canary_bps)
    stage = RolloutStage.CANARY if canary_bps else RolloutStage.SHADOW
    changed = structs.replace(rollout, canary_bps=canary_bps, stage=stage, since_ms=change.at_ms)
    return _changed(changed, RolloutAction.PERCENT_SET, change)


def promoted(rollout: Rollout, *, seen_revision: int, change: Change) -> RolloutChange:
    """Give a rollout whose candidate all symbols use; errors as for `percent_set`."""
    _check_seen(rollout, seen_revision)
    if rollout.stage not in (RolloutStage.SHADOW, RolloutStage.CANARY):
        raise RolloutConflict(rollout.rollout_id, found=rollout.stage, expected="canary")
    wait_ms = not_before_ms(rollout) - change.at_ms
    if change.override_reason is None and (rollout.canary_bps != BPS_ONE or wait_ms > 0):
        raise RolloutHold(
            rollout.rollout_id,
            canary_bps=BPS_ONE,
            canary_bps_max=next_bps(rollout),
            wait_ms=max(0, wait_ms),
            at_ms=change.at_ms,
        )
    changed = structs.replace(
        rollout, canary_bps=BPS_ONE, stage=RolloutStage.FULL, since_ms=change.at_ms
    )
    return _changed(changed, RolloutAction.PROMOTED, change)


def rolled_back(rollout: Rollout, change: Change) -> RolloutChange | None:
    """Give a rollout whose candidate is taken back; None where it is already."""
    if rollout.stage is RolloutStage.ROLLED_BACK:
        return None
    changed = structs.replace(
        rollout, canary_bps=0, stage=RolloutStage.ROLLED_BACK, since_ms=change.at_ms
    )
    return _changed(changed, RolloutAction.ROLLED_BACK, change)


def ended(rollout: Rollout, change: Change) -> RolloutChange:
    """Give a promoted rollout that another one follows.

    Raises:
        RolloutConflict: It is still under way.
    """
    if rollout.stage is not RolloutStage.FULL:
        expected = "no rollout of the book under way: promote it or take it back"
        raise RolloutConflict(rollout.rollout_id, found=rollout.stage, expected=expected)
    changed = structs.replace(rollout, stage=RolloutStage.ENDED, since_ms=change.at_ms)
    return _changed(changed, RolloutAction.ENDED, change)


def step_at(ramp: tuple[RampStep, ...], canary_bps: int) -> RampStep:
    """Give the step that a share belongs to: the first that reaches so far."""
    return next(step for step in ramp if step.canary_bps >= canary_bps)


def next_bps(rollout: Rollout) -> int:
    """Say how far the share may be raised: to the end of the step after the present one."""
    beyond = [step.canary_bps for step in rollout.ramp if step.canary_bps > rollout.canary_bps]
    return beyond[0] if beyond else BPS_ONE


def not_before_ms(rollout: Rollout) -> int:
    """Say from when on the share may be raised: when the present step has lasted.

    Without a step at 0 there is no hold in shadow.
    """
    step = step_at(rollout.ramp, rollout.canary_bps)
    # In shadow a step that begins above 0 has not begun.
    begun = bool(rollout.canary_bps) or not step.canary_bps
    return rollout.since_ms + (step.hold_ms if begun else 0)


def check_arm(rollout: Rollout, canary_bps: int) -> None:
    """Refuse a share that is of no symbol: what nobody sees cannot be judged.

    Raises:
        RolloutArmEmpty: It says from which share on there is one.
    """
    arms = resolve_arms(rollout.symbols, salt=rollout.salt, canary_bps=canary_bps)
    if not arms.candidate:
        least = min(bucket_of(rollout.salt, symbol) for symbol in rollout.symbols)
        raise RolloutArmEmpty(
            rollout.rollout_id,
            canary_bps=canary_bps,
            symbols=len(rollout.symbols),
            canary_bps_min=least + 1,
        )


def _check_seen(rollout: Rollout, seen_revision: int) -> None:
    if seen_revision != rollout.revision:
        raise RolloutRevisionStale(rollout.rollout_id, found=seen_revision, newest=rollout.revision)


def _check_hold(rollout: Rollout, canary_bps: int, at_ms: int) -> None:
    most, wait_ms = next_bps(rollout), not_before_ms(rollout) - at_ms
    if canary_bps > most or wait_ms > 0:
        raise RolloutHold(
            rollout.rollout_id,
            canary_bps=canary_bps,
            canary_bps_max=most,
            wait_ms=max(0, wait_ms),
            at_ms=at_ms,
        )


def _changed(rollout: Rollout, action: RolloutAction, change: Change) -> RolloutChange:
    event = RolloutEvent(
        rollout_id=rollout.rollout_id,
        action=action,
        stage=rollout.stage,
        canary_bps=rollout.canary_bps,
        actor=change.actor,
        reason=change.reason,
        override_reason=change.override_reason or "",
        evidence=change.evidence,
        at_ms=change.at_ms,
    )
    return RolloutChange(rollout=rollout, event=event)
