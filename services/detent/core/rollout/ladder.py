"""Say on which rung a process stands: OFF, SHADOW or ACTIVE; what is half switched on is an error.

A kill switch is no error but a silent OFF. Everything else that does not fit together is refused
at start, by the name of the guard that found it, and never taken for a lower rung.

Source: ADR-065 of the seeds' system; FORMULAS 1.6 and 1.7; rows R84 to R92 and R334.
"""

from enum import StrEnum

import msgspec

from detent.contracts.errors import GuardRefused
from detent.core.rollout.gates import ACTIVE_ACK, Enablement


class Mode(StrEnum):
    """Names the rungs: nothing runs, it runs unused, it acts."""

    OFF = "off"
    SHADOW = "shadow"
    ACTIVE = "active"


class Guard(StrEnum):
    """Names what is refused at start."""

    INFER_WITHOUT_RUNTIME = "G1"
    INFER_AMBIGUOUS = "G2"
    ACTIVE_WITHOUT_INFER = "G3"
    ACK = "G4"
    ACTIVE_WITHOUT_ARTIFACT = "G5"
    ENVIRONMENT = "G6"
    MANIFEST_INVALID = "G7"
    ACTIVE_LEGACY_PATH = "G-REG-1"
    REGISTRY_MISSING = "G-REG-2"
    REGISTRY_UNRESOLVED = "G-REG-3"
    SHADOW_WITHOUT_INFER = "G-SHADOW-1"
    SHADOW_WITHOUT_ARTIFACT = "G-SHADOW-2"
    PRODUCTION_WITHOUT_ALLOW_LIST = "G-PROD-1"


class ArtifactState(StrEnum):
    """Says what was found where the artifact should be."""

    MISSING = "missing"
    INVALID = "invalid"
    VALID = "valid"


class RegistryState(StrEnum):
    """Says how the artifact was named: by its pinned folder, by a path, or through a registry."""

    PINNED = "pinned"
    LEGACY = "legacy path"
    MISSING = "registry missing"
    UNRESOLVED = "registry without an answer"
    RESOLVED = "resolved"


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the rung of a process depends on.

    Attributes:
        enablement: The keys, the acknowledgement and the environment.
        shadow_mode: Whether the model runs unused.
        is_production: Whether the environments that may act have to be named.
        has_runtime: Whether what runs the graph is there.
        artifact: What was found where the artifact should be.
        registry: How the artifact was named. What a plan binds is pinned by its digest, which
            is more than a registry's word; a bare path is less.
    """

    enablement: Enablement
    shadow_mode: bool = False
    is_production: bool = False
    has_runtime: bool = True
    artifact: ArtifactState = ArtifactState.VALID
    registry: RegistryState = RegistryState.PINNED


_REGISTRY = {
    RegistryState.LEGACY: Guard.ACTIVE_LEGACY_PATH,
    RegistryState.MISSING: Guard.REGISTRY_MISSING,
    RegistryState.UNRESOLVED: Guard.REGISTRY_UNRESOLVED,
}


def rung(ladder: Ladder, *, kill_switch_env: bool) -> Mode:
    """Give the rung, or refuse what does not fit together.

    Args:
        ladder: What it depends on.
        kill_switch_env: Whether `ML_KILL_SWITCH` is exactly `1` at start.

    Raises:
        GuardRefused: A guard found settings that contradict one another.
    """
    enablement = ladder.enablement
    if ladder.is_production and not enablement.allowed_environments:
        raise GuardRefused(
            Guard.PRODUCTION_WITHOUT_ALLOW_LIST, "active_allowed_envs", "[]", "a named environment"
        )
    # K1 and K2: off without a word, whatever else is set.
    if kill_switch_env or enablement.kill_switch:
        return Mode.OFF
    mode = _wanted(ladder)
    if mode is Mode.OFF:
        return mode
    if not ladder.has_runtime:
        raise GuardRefused(
            Guard.INFER_WITHOUT_RUNTIME, "infer_enabled", "true", "a runtime, or false"
        )
    if mode is Mode.ACTIVE:
        _check_active(ladder)
    elif ladder.artifact is ArtifactState.MISSING:
        raise GuardRefused(
            Guard.SHADOW_WITHOUT_ARTIFACT, "artifacts_dir", "missing", "a folder with an artifact"
        )
    elif ladder.artifact is ArtifactState.INVALID:
        # A shadow that cannot be loaded costs nobody anything.
        return Mode.OFF
    return mode


def _wanted(ladder: Ladder) -> Mode:
    """Read the three flags, of whose eight combinations three make sense."""
    match ladder.enablement.infer_enabled, ladder.shadow_mode, ladder.enablement.active_enabled:
        case False, False, False:
            return Mode.OFF
        case True, True, False:
            return Mode.SHADOW
        case True, False, True:
            return Mode.ACTIVE
        case False, _, True:
            raise GuardRefused(Guard.ACTIVE_WITHOUT_INFER, "infer_enabled", "false", "true")
        case False, True, False:
            raise GuardRefused(Guard.SHADOW_WITHOUT_INFER, "infer_enabled", "false", "true")
        case _, shadow, active:
            found = f"shadow_mode {shadow}, active_enabled {active}"
            raise GuardRefused(Guard.INFER_AMBIGUOUS, "infer_enabled", found, "one of the two")


def _check_active(ladder: Ladder) -> None:
    enablement = ladder.enablement
    if enablement.active_ack != ACTIVE_ACK:
        raise GuardRefused(
            Guard.ACK, "active_ack", enablement.active_ack or "(missing)", ACTIVE_ACK
        )
    allowed = enablement.allowed_environments
    if allowed and enablement.environment not in allowed:
        raise GuardRefused(
            Guard.ENVIRONMENT,
            "environment",
            enablement.environment or "(missing)",
            f"one of {', '.join(allowed)}",
        )
    if ladder.registry in _REGISTRY:
        raise GuardRefused(
            _REGISTRY[ladder.registry], "registry", ladder.registry, "an artifact that it resolves"
        )
    if ladder.artifact is ArtifactState.MISSING:
        raise GuardRefused(
            Guard.ACTIVE_WITHOUT_ARTIFACT, "artifacts_dir", "missing", "a folder with an artifact"
        )
    if ladder.artifact is ArtifactState.INVALID:
        raise GuardRefused(
            Guard.MANIFEST_INVALID, "artifacts_dir", "no valid manifest", "an artifact as pinned"
        )
