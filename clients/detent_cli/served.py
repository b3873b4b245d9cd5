"""Find the artifact that `detent up` serves, and refuse to let one act that nothing answers for.

An artifact that acts is resolved through the registry, or given by a person as a folder whose
digest plans then pin; in production only the first will do. What resolves to nothing is fatal and
never a lower rung (rows R334; G-REG-1 to G-REG-4).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from detent.contracts.errors import (
    ArtifactInvalid,
    ControlUnavailable,
    DataInvalid,
    DetentError,
    InvalidField,
    ModelNotRegistered,
)
from detent.core.rollout.gates import Enablement
from detent.core.rollout.ladder import Ladder, Mode, RegistryState, rung

if TYPE_CHECKING:
    from detent.adapters.ml_settings import MlSettings

PROFILE = "DETENT_POLICY_PROFILE"


class ServedBy(msgspec.Struct, frozen=True, kw_only=True):
    """Says how the artifact was named on the command line, and by the `ml:` file.

    Attributes:
        artifact: A folder.
        registry: A control database, `sqlite:///FILE` or `postgresql://...`.
        name: Line of models in it.
        settings: The `ml:` file; its `model_dir` and `registry` stand in for what is not said.
        ack: The acknowledgement; empty lets nothing act.
    """

    artifact: Path | None = None
    registry: str | None = None
    name: str | None = None
    settings: "MlSettings | None" = None
    ack: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the artifact's folder, and the rung on which it is served."""

    folder: Path
    mode: Mode


def served(by: ServedBy, state: Path) -> Served:
    """Give the artifact that was named, or a verified copy of the one in production.

    The registry is asked once: what comes to production later is served after the next start.

    Args:
        by: How it was named.
        state: Folder of the copy.

    Raises:
        GuardRefused: It would act, and its name does not resolve as that asks for.
        InvalidField: Both ways were named, or neither, or a folder that is not there.
        DetentError: It would not act, and there is none all the same, or it is not what was
            registered, or not what the `ml:` file allows.
    """
    found, registry, failed = _found(by, state)
    mode = rung(_ladder(by, registry), kill_switch_env=os.environ.get("ML_KILL_SWITCH") == "1")
    if failed is not None:
        raise failed
    assert found is not None
    if by.settings is not None:
        from detent.adapters.artifact_store import read_pinned_manifest  # noqa: PLC0415
        from detent.adapters.ml_agreement import check_agrees  # noqa: PLC0415

        check_agrees(by.settings, read_pinned_manifest(found))
    # Here, and not by processes that wait for one another until their time is up.
    if not found.is_dir():
        raise InvalidField("artifact", found, "the folder of an artifact")
    return Served(folder=found, mode=mode)


def _ladder(by: ServedBy, registry: RegistryState) -> Ladder:
    """Say what the processes will be told; the rest of the ladder is checked by policy itself."""
    flags = by.settings.policy if by.settings is not None else {}
    acts = bool(by.ack)
    return Ladder(
        enablement=Enablement(
            infer_enabled=flags.get("infer_enabled", acts),
            active_enabled=flags.get("active_enabled", acts),
            active_ack=by.ack,
        ),
        shadow_mode=flags.get("shadow_mode", False),
        registry=registry,
    )


def _found(by: ServedBy, state: Path) -> tuple[Path | None, RegistryState, DetentError | None]:
    """Give the folder, how its name resolves, and why there is none."""
    registry, model_dir = by.registry, None
    if by.settings is not None and by.artifact is None:
        if by.name is None:
            model_dir = by.settings.model_dir if registry is None else None
        else:
            registry = registry or by.settings.registry.url
    match by.artifact, registry, by.name:
        case Path() as artifact, None, None:
            in_production = os.environ.get(PROFILE) == "production"
            kind = RegistryState.LEGACY if in_production else RegistryState.PINNED
            return artifact, kind, None
        case None, None, None if model_dir is not None:
            return Path(model_dir), RegistryState.LEGACY, None
        case None, str() as url, str() as name:
            return _resolved(url, name, state)
        case _:
            raise InvalidField("--artifact", by.artifact, "either it, or --registry and --name")


def _resolved(
    url: str, name: str, state: Path
) -> tuple[Path | None, RegistryState, DetentError | None]:
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
    from detent.adapters.model_registry import ModelRegistry  # noqa: PLC0415
    from detent.offline.registry.artifact_url import load_artifact  # noqa: PLC0415

    try:
        # Opening a file that is not there would make an empty registry of it.
        database = ControlDatabase(url, must_exist=True)
        pointer = ModelRegistry(database).production(name).pointer
    except ControlUnavailable as error:
        return None, RegistryState.MISSING, error
    except ModelNotRegistered as error:
        return None, RegistryState.UNRESOLVED, error
    digest = pointer.model_version_hash
    try:
        folder = load_artifact(pointer.artifact_url, state / "artifacts", model_version_hash=digest)
    except (ArtifactInvalid, DataInvalid) as error:
        return None, RegistryState.UNRESOLVED, error
    return folder, RegistryState.RESOLVED, None
