"""Keep the registry of models in the control database.

Every act is one transaction that no other runs beside: the model, whatever it displaces, and the
history change together or not at all.

Source: seed 003, section 12.10; decision D26; rows R124 to R127, R263, R330, R331, R333.
"""

import datetime as dt
from collections.abc import Sequence

import msgspec
from msgspec import structs
from sqlalchemy import Connection, delete, insert, or_, select, update

from detent.adapters.control_database import ControlDatabase
from detent.adapters.control_tables import HISTORY, MODELS
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.checks import check_int, check_name, check_text, check_ts_ms
from detent.contracts.errors import ModelNotRegistered, RegistryConflict
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.manifest import Manifest, manifest_bytes, parse_manifest
from detent.contracts.registered import (
    ModelPointer,
    ModelStatus,
    RegisteredModel,
    RegistryAction,
    RegistryEvent,
)
from detent.contracts.units import INT32_MAX
from detent.core.artifacts.registry import (
    HISTORY_SHOWN_MAX,
    VERSIONS_MAX,
    before_production,
    in_production,
    pruned,
    rolled_back,
    to_production,
)

_EVENT_SCHEMA = "detent.registry_event.v1"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Says who does something, by what, when and why."""

    actor: str
    source: str
    at_ms: int
    reason: str

    def __post_init__(self) -> None:
        """Refuse an act that nobody does, or that has no reason: also one that is then refused."""
        check_name("actor", self.actor)
        check_name("source", self.source)
        check_ts_ms("at_ms", self.at_ms)
        check_text("reason", self.reason)

    @property
    def at_utc(self) -> str:
        """Give the time as the registry writes it."""
        at = dt.datetime.fromtimestamp(self.at_ms // 1000, dt.UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class ModelRegistry:
    """Registers models and moves them: staged, production, deprecated."""

    def __init__(self, database: ControlDatabase, *, versions_max: int = VERSIONS_MAX) -> None:
        """Take a control database, and how many versions of a line it keeps.

        Raises:
            InvalidField: It would keep none.
        """
        check_int("max_versions", versions_max, 1, INT32_MAX)
        self._database = database
        self._versions_max = versions_max

    def register(
        self,
        manifest: Manifest,
        artifact_url: str,
        act: Act,
        *,
        git_sha: str | None = None,
        dataset_id: str | None = None,
        notes: str | None = None,
    ) -> RegisteredModel:
        """Add a model, staged; of too many versions the oldest spare ones go.

        Args:
            manifest: Of the artifact, which the caller has verified.
            artifact_url: Where the artifact lies.
            act: Who, when and why.
            git_sha: Commit, where the manifest names none.
            dataset_id: Data set, where the manifest names none.
            notes: What a person wants to remember.

        Raises:
            RegistryConflict: The model or its id is registered.
            InvalidField: A field is malformed.
            ControlUnavailable: The database cannot be used.
        """
        stamp = dt.datetime.fromtimestamp(act.at_ms // 1000, dt.UTC).strftime("%Y%m%d_%H%M%S")
        model = RegisteredModel(
            pointer=ModelPointer(
                registry_id=f"{manifest.model_id}_{stamp}",
                status=ModelStatus.STAGED,
                artifact_url=artifact_url,
                model_id=manifest.model_id,
                model_version_hash=manifest.model_version_hash,
                feature_version=manifest.feature_version,
                git_sha=manifest.git_sha or git_sha,
                dataset_id=manifest.dataset_id or dataset_id,
                promoted_at_utc=None,
                actor=act.actor,
                source=act.source,
                notes=notes,
            ),
            registered_at_ms=act.at_ms,
            manifest=manifest,
        )
        with self._database.writing() as link:
            taken = _found(link, manifest.model_id) or _found(link, model.pointer.registry_id)
            if taken is not None:
                held = taken.pointer.registry_id
                message = f"{manifest.model_id} is registered as {held}; give a new version"
                raise RegistryConflict(message, registry_id=held)
            link.execute(insert(MODELS).values(_row(model)))
            _record(link, model.pointer, RegistryAction.REGISTER, act, before=None)
            self._prune(link, manifest.model_name, act)
        return model

    def promote(
        self,
        key: str,
        act: Act,
        *,
        champion: str | None,
        evidence_sha256: str | None,
    ) -> RegisteredModel:
        """Bring a staged model to production and take back the one that is there, at once.

        Args:
            key: Registry id, or model id.
            act: Who, when and why.
            champion: Manifest hash of the model that the evidence compares with: the one in
                production, or None where there is none.
            evidence_sha256: SHA-256 of the report.

        Raises:
            ModelNotRegistered: There is no such model.
            RegistryConflict: It is not staged, or another model came to production meanwhile.
            InvalidField: It lacks what production needs.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.writing() as link:
            model = _needed(link, key)
            current = in_production(_line(link, model.pointer.model_name))
            found = None if current is None else current.pointer.model_version_hash
            if found != champion:
                message = f"in production: found {found or 'nothing'}, expected {champion}"
                raise RegistryConflict(message, found=found, expected=champion)
            pointer = to_production(
                model.pointer, at_utc=act.at_utc, actor=act.actor, source=act.source
            )
            if current is not None:
                _demote(link, current, act)
            _move(link, model, pointer)
            _record(
                link,
                pointer,
                RegistryAction.PROMOTE,
                act,
                before=model.pointer.status,
                evidence_sha256=evidence_sha256,
            )
        return structs.replace(model, pointer=pointer)

    def roll_back(self, name: str, act: Act) -> RegisteredModel:
        """Put back what was in production before; nothing has to be acknowledged.

        Raises:
            ModelNotRegistered: Nothing was in production before.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.writing() as link:
            models, events = _line(link, name), _events(link, name)
            model = rolled_back(models, events, name)
            current = in_production(models)
            if current is not None:
                _demote(link, current, act)
            # As it was: the pointer keeps when and by whom it once came to production.
            pointer = structs.replace(model.pointer, status=ModelStatus.PRODUCTION)
            _move(link, model, pointer)
            _record(link, pointer, RegistryAction.ROLL_BACK, act, before=model.pointer.status)
        return structs.replace(model, pointer=pointer)

    def deprecate(self, key: str, act: Act) -> RegisteredModel:
        """Take a model out of use; a line without one in production is the proxy's.

        Raises:
            ModelNotRegistered: There is no such model.
            RegistryConflict: It is deprecated.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.writing() as link:
            model = _needed(link, key)
            if model.pointer.status is ModelStatus.DEPRECATED:
                message = f"{model.pointer.registry_id} is deprecated already"
                raise RegistryConflict(message, registry_id=model.pointer.registry_id)
            pointer = structs.replace(model.pointer, status=ModelStatus.DEPRECATED)
            _move(link, model, pointer)
            _record(link, pointer, RegistryAction.DEPRECATE, act, before=model.pointer.status)
        return structs.replace(model, pointer=pointer)

    def find(self, key: str) -> RegisteredModel:
        """Give a model by its registry id or its model id.

        Raises:
            ModelNotRegistered: There is no such model.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return _needed(link, key)

    def production(self, name: str) -> RegisteredModel:
        """Give the model of a line that is in production.

        Raises:
            ModelNotRegistered: None is.
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            found = in_production(_line(link, name))
        if found is None:
            raise ModelNotRegistered(f"{name}: none is in production", model_name=name)
        return found

    def models(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """List the models of a line, or all, newest first.

        Raises:
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return tuple(reversed(_line(link, name)))

    def history(self, name: str | None = None) -> tuple[RegistryEvent, ...]:
        """List the last `HISTORY_SHOWN_MAX` acts on a line, or on all, newest first.

        Raises:
            ControlUnavailable: The database cannot be used.
        """
        with self._database.reading() as link:
            return tuple(reversed(_events(link, name)))[:HISTORY_SHOWN_MAX]

    def _prune(self, link: Connection, name: str, act: Act) -> None:
        kept = before_production(_events(link, name))
        for model in pruned(_line(link, name), kept, self._versions_max):
            key = model.pointer.registry_id
            link.execute(delete(MODELS).where(MODELS.c.registry_id == key))
            _record(
                link,
                model.pointer,
                RegistryAction.PRUNE,
                act,
                before=model.pointer.status,
                is_gone=True,
            )


def _demote(link: Connection, model: RegisteredModel, act: Act) -> None:
    pointer = structs.replace(model.pointer, status=ModelStatus.DEPRECATED)
    _move(link, model, pointer)
    _record(link, pointer, RegistryAction.DEMOTE, act, before=model.pointer.status)


def _move(link: Connection, model: RegisteredModel, pointer: ModelPointer) -> None:
    values = _row(structs.replace(model, pointer=pointer))
    key = MODELS.c.registry_id == pointer.registry_id
    link.execute(update(MODELS).where(key).values(values))


def _record(
    link: Connection,
    pointer: ModelPointer,
    action: RegistryAction,
    act: Act,
    *,
    before: ModelStatus | None,
    evidence_sha256: str | None = None,
    is_gone: bool = False,
) -> None:
    current = in_production(_line(link, pointer.model_name))
    happened = RegistryEvent(
        at_ms=act.at_ms,
        action=action,
        from_status=before,
        to_status=None if is_gone else pointer.status,
        actor=act.actor,
        source=act.source,
        reason=act.reason,
        pointer=pointer,
        production=None if current is None else current.pointer.registry_id,
        evidence_sha256=evidence_sha256,
    )
    link.execute(
        insert(HISTORY).values(
            model_name=pointer.model_name,
            registry_id=pointer.registry_id,
            event=canonical_bytes(_EVENT_SCHEMA, to_json(happened)).decode("ascii"),
        )
    )


def _row(model: RegisteredModel) -> dict[str, object]:
    pointer = model.pointer
    return {
        "registry_id": pointer.registry_id,
        "model_name": pointer.model_name,
        "model_id": pointer.model_id,
        "model_version_hash": pointer.model_version_hash,
        "status": pointer.status.value,
        "registered_at_ms": model.registered_at_ms,
        "pointer": canonical_bytes(ModelPointer.SCHEMA, to_json(pointer)).decode("ascii"),
        "manifest": manifest_bytes(model.manifest).decode("ascii"),
    }


def _model(pointer: str, manifest: str, registered_at_ms: int) -> RegisteredModel:
    return RegisteredModel(
        pointer=from_json(ModelPointer, parse_json("pointer", pointer.encode())),
        registered_at_ms=registered_at_ms,
        manifest=parse_manifest(manifest.encode()),
    )


_COLUMNS = (MODELS.c.pointer, MODELS.c.manifest, MODELS.c.registered_at_ms)


def _found(link: Connection, key: str) -> RegisteredModel | None:
    named = or_(MODELS.c.registry_id == key, MODELS.c.model_id == key)
    row = link.execute(select(*_COLUMNS).where(named)).one_or_none()
    return None if row is None else _model(*row)


def _needed(link: Connection, key: str) -> RegisteredModel:
    found = _found(link, key)
    if found is None:
        raise ModelNotRegistered(f"{key}: no such model is registered", key=key)
    return found


def _line(link: Connection, name: str | None) -> Sequence[RegisteredModel]:
    """Give the models of a line, or all, oldest first."""
    asked = select(*_COLUMNS).order_by(MODELS.c.registered_at_ms, MODELS.c.registry_id)
    if name is not None:
        asked = asked.where(MODELS.c.model_name == name)
    return [_model(*row) for row in link.execute(asked)]


def _events(link: Connection, name: str | None) -> Sequence[RegistryEvent]:
    """Give the acts on a line, or on all, oldest first."""
    asked = select(HISTORY.c.event).order_by(HISTORY.c.id)
    if name is not None:
        asked = asked.where(HISTORY.c.model_name == name)
    return [
        from_json(RegistryEvent, parse_json("event", text.encode()))
        for (text,) in link.execute(asked)
    ]
