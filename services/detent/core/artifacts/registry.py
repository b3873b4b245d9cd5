"""Decide what an act of the registry changes; the database only keeps it.

Source: seed 003, section 12.10; rows R125, R263 and R333.
"""

from collections.abc import Iterable, Sequence

from msgspec import structs

from detent.contracts.errors import ModelNotRegistered, RegistryConflict
from detent.contracts.registered import (
    ModelPointer,
    ModelStatus,
    RegisteredModel,
    RegistryAction,
    RegistryEvent,
)

VERSIONS_MAX = 10
HISTORY_SHOWN_MAX = 50


def in_production(models: Iterable[RegisteredModel]) -> RegisteredModel | None:
    """Give the one model of a line that is in production."""
    found = [one for one in models if one.pointer.status is ModelStatus.PRODUCTION]
    assert len(found) <= 1
    return found[0] if found else None


def to_production(pointer: ModelPointer, *, at_utc: str, actor: str, source: str) -> ModelPointer:
    """Give the pointer in production.

    Raises:
        RegistryConflict: It is not staged: what was taken back is not promoted again.
        InvalidField: It lacks what production needs.
    """
    if pointer.status is not ModelStatus.STAGED:
        message = f"{pointer.registry_id} is {pointer.status}, expected {ModelStatus.STAGED}"
        raise RegistryConflict(message, registry_id=pointer.registry_id, status=pointer.status)
    return structs.replace(
        pointer,
        status=ModelStatus.PRODUCTION,
        promoted_at_utc=at_utc,
        actor=actor,
        source=source,
    )


def pruned(
    models: Sequence[RegisteredModel], kept: str | None, versions_max: int = VERSIONS_MAX
) -> tuple[RegisteredModel, ...]:
    """Name the versions that are too many: the oldest that are not in production.

    Args:
        models: Those of one line.
        kept: Registry id that a rollback would need.
        versions_max: How many may stay.
    """
    spare = sorted(
        (
            one
            for one in models
            if one.pointer.status is not ModelStatus.PRODUCTION and one.pointer.registry_id != kept
        ),
        key=lambda one: (one.registered_at_ms, one.pointer.registry_id),
    )
    return tuple(spare[: max(0, len(models) - versions_max)])


def before_production(events: Iterable[RegistryEvent]) -> str | None:
    """Give the registry id that was in production before the one that is.

    A rollback takes back the promotion before it, so that two in a row go back two steps and
    not to what was just taken away.

    Args:
        events: Of one line, oldest first.
    """
    stack: list[str] = []
    for event in events:
        if event.action is RegistryAction.PROMOTE:
            stack.append(event.pointer.registry_id)
        elif event.action is RegistryAction.ROLL_BACK:
            stack.pop()
    return stack[-2] if len(stack) > 1 else None


def rolled_back(
    models: Sequence[RegisteredModel], events: Sequence[RegistryEvent], name: str
) -> RegisteredModel:
    """Give the model that a rollback puts in production.

    Raises:
        ModelNotRegistered: Nothing was in production before.
    """
    wanted = before_production(events)
    found = [one for one in models if one.pointer.registry_id == wanted]
    if not found:
        raise ModelNotRegistered(
            f"{name}: nothing was in production before; bind the proxy instead", model_name=name
        )
    return found[0]
