"""Say whether the model may be used at all, cheapest check first, one reason out.

Source: seed 003, milestone M8-02c; ADR-065 of its system; DESIGN section 4.
"""

from collections.abc import Collection, Mapping

import msgspec

from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout
from detent.core.rollout.kill_state import KillReading, killed_symbols, rollout_reason

ACTIVE_ACK = "I_UNDERSTAND_THIS_AFFECTS_TRADING"

# The ten seed codes in their order of priority: the first that holds is the reason.
GATE_PRIORITY = (
    Reason.KILL_SWITCH_ENV,
    Reason.KILL_SWITCH_CONFIG,
    Reason.INFER_DISABLED,
    Reason.ACTIVE_DISABLED,
    Reason.BAD_ACK,
    Reason.ONNX_UNAVAILABLE,
    Reason.ARTIFACT_DIR_MISSING,
    Reason.MANIFEST_INVALID,
    Reason.MODEL_NOT_LOADED,
    Reason.ENV_NOT_ALLOWED,
)


class Enablement(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the switches of one process; the defaults keep the model off.

    Attributes:
        kill_switch: The configuration's kill switch.
        infer_enabled: First key.
        active_enabled: Second key.
        active_ack: Must be `ACTIVE_ACK` to the letter.
        environment: Name of the environment; empty when it has none.
        allowed_environments: Where the model may act; empty allows everywhere.
    """

    kill_switch: bool = False
    infer_enabled: bool = False
    active_enabled: bool = False
    active_ack: str = ""
    environment: str = ""
    allowed_environments: tuple[str, ...] = ()


def first_reason(holding: Collection[Reason]) -> Reason | None:
    """Give the first of the ten codes that holds, or None when none does."""
    return next((reason for reason in GATE_PRIORITY if reason in holding), None)


def enablement_reason(enablement: Enablement, *, kill_switch_env: bool) -> Reason | None:
    """Say why the model may not be asked, or None when it may.

    Args:
        enablement: The switches of this process.
        kill_switch_env: Whether `ML_KILL_SWITCH` is exactly `1` right now; it is read
            again for every bar.
    """
    closed = {
        Reason.KILL_SWITCH_ENV: kill_switch_env,
        Reason.KILL_SWITCH_CONFIG: enablement.kill_switch,
        Reason.INFER_DISABLED: not enablement.infer_enabled,
        Reason.ACTIVE_DISABLED: not enablement.active_enabled,
        Reason.BAD_ACK: enablement.active_ack != ACTIVE_ACK,
        Reason.ENV_NOT_ALLOWED: bool(enablement.allowed_environments)
        and enablement.environment not in enablement.allowed_environments,
    }
    return first_reason([reason for reason, holds in closed.items() if holds])


def closed_symbols(
    enablement: Enablement,
    reading: KillReading,
    *,
    kill_switch_env: bool,
    model_id: str,
    plan_id: str,
    symbols: Collection[str],
    rollout: PlanRollout | None = None,
) -> Mapping[str, Reason]:
    """Say for which symbols the model may not be asked, and why: off by any switch first.

    Args:
        enablement: The switches of this process.
        reading: What is known now of the watched file and of the shared state.
        kill_switch_env: Whether the environment's switch is on right now.
        model_id: The model that the plan binds.
        plan_id: The plan.
        symbols: Instruments of this bar.
        rollout: Which arm of which rollout the plan is; None for a plan of its own.

    Returns:
        The first reason in the order of the gates, by symbol; the others may be asked.
    """
    closed = enablement_reason(enablement, kill_switch_env=kill_switch_env)
    if closed in (Reason.KILL_SWITCH_ENV, Reason.KILL_SWITCH_CONFIG):
        return dict.fromkeys(symbols, closed)
    killed = killed_symbols(reading, model_id=model_id, plan_id=plan_id, symbols=symbols)
    if closed is None:
        closed = rollout_reason(reading, rollout)
    if closed is None:
        return killed
    return dict.fromkeys(symbols, closed) | killed
