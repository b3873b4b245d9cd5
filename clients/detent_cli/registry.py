"""Keep models: `detent registry register|list|show|history|load|deprecate|rollback|...`."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from detent.contracts.json_codec import to_json
from detent.contracts.registered import ModelPointer, ModelStatus, RegisteredModel
from detent_cli.acting import Actor, Reason
from detent_cli.instants import second_text
from detent_cli.output import (
    JsonFlag,
    bad,
    console,
    good,
    print_json,
    print_rows,
    print_sheet,
    reported,
)
from detent_cli.promotion import SOURCE, Registry

app = typer.Typer(help="Keep models: staged, production, deprecated.", no_args_is_help=True)
TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105  The name of a variable, not a secret.
Model = Annotated[str, typer.Argument(help="Registry id, or model id.")]
Name = Annotated[str, typer.Argument(help="Name of a line of models.")]
NameOptional = Annotated[str | None, typer.Option(help="Only this line of models.")]
Into = Annotated[Path, typer.Option(help="Folder of artifacts; the copy is verified.")]
GitSha = Annotated[str | None, typer.Option(help="Commit, where the manifest names none; 40 hex.")]
MaxVersions = Annotated[
    int | None, typer.Option(help="Versions of a line to keep; ten without it.", min=1)
]
MlSettingsFile = Annotated[
    Path | None,
    typer.Option("--ml-settings", help="The seed's `ml:` file, for its registry.max_versions."),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset-id", help="Data set, where the manifest names none.")
]


@app.command()
def migrate(*, registry: Registry, as_json: JsonFlag = False) -> None:
    """Bring the database to today's form; a SQLite file is brought there by itself."""
    with reported(as_json=as_json):
        step = _database(registry).migrate()
    if as_json:
        print_json({"step": step})
    else:
        console.print(f"at step {step}")


@app.command()
def register(
    artifact: Annotated[str, typer.Argument(help="The artifact's folder: a path or a URL.")],
    *,
    registry: Registry,
    actor: Actor,
    reason: Reason,
    store: Annotated[
        str | None, typer.Option(help="URL to copy it below; else it stays where it is.")
    ] = None,
    git_sha: GitSha = None,
    dataset_id: Dataset = None,
    notes: Annotated[str | None, typer.Option(help="What to remember.")] = None,
    max_versions: MaxVersions = None,
    ml_settings: MlSettingsFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a verified artifact, staged; of too many versions the oldest spare ones go."""
    from detent.offline.registry.artifact_url import (  # noqa: PLC0415
        read_artifact_at,
        store_artifact,
        url_of,
    )

    with reported(as_json=as_json):
        url = url_of(artifact)
        if store is not None:
            url = store_artifact(url, url_of(store))
        manifest = read_artifact_at(url)[0].manifest
        model = _keeping(registry, max_versions, ml_settings).register(
            manifest,
            url,
            _act(actor, reason),
            git_sha=git_sha,
            dataset_id=dataset_id,
            notes=notes,
        )
    _show(model, as_json=as_json, done="staged")


@app.command(name="import-mlflow")
def import_mlflow(
    name: Annotated[str, typer.Argument(help="Registered model of the MLflow server.")],
    *,
    alias: Annotated[str, typer.Option(help="Alias, for example champion.")],
    tracking: Annotated[str, typer.Option(help=f"Its address; a token in {TOKEN}.")],
    registry: Registry,
    into: Into,
    actor: Actor,
    reason: Reason,
    git_sha: GitSha = None,
    dataset_id: Dataset = None,
    max_versions: MaxVersions = None,
    ml_settings: MlSettingsFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Resolve an alias once, to a digest, and register the artifact that it pointed to."""
    from detent.adapters.artifact_store import read_pinned_manifest  # noqa: PLC0415
    from detent.offline.registry.artifact_url import url_of  # noqa: PLC0415
    from detent.offline.registry.mlflow_alias import MlflowRegistry  # noqa: PLC0415

    with reported(as_json=as_json):
        server = MlflowRegistry(tracking, token=os.environ.get(TOKEN))
        resolved = server.resolve(name, alias)
        folder = server.load(resolved, into)
        model = _keeping(registry, max_versions, ml_settings).register(
            read_pinned_manifest(folder).manifest,
            url_of(str(folder)),
            _act(actor, reason),
            git_sha=git_sha,
            dataset_id=dataset_id,
            notes=f"mlflow {name}@{alias}, version {resolved.version} then",
        )
    _show(model, as_json=as_json, done="staged")


@app.command(name="list")
def list_(*, registry: Registry, name: NameOptional = None, as_json: JsonFlag = False) -> None:
    """List models, newest first."""
    with reported(as_json=as_json):
        models = _registry(registry).models(name)
    if as_json:
        print_json({"models": [to_json(model.pointer) for model in models]})
        return
    rows = [
        (
            model.pointer.registry_id,
            _status(model.pointer.status),
            model.pointer.model_version_hash[:16],
            second_text(model.registered_at_ms),
        )
        for model in models
    ]
    print_rows("Models", ("model", "status", "manifest", "registered"), rows)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Registry id, model id, or a line's name.")],
    *,
    registry: Registry,
    as_json: JsonFlag = False,
) -> None:
    """Show a model; of a line the one in production."""
    from detent.contracts.errors import ModelNotRegistered  # noqa: PLC0415

    with reported(as_json=as_json, negative=lambda one: isinstance(one, ModelNotRegistered)):
        found = _named(registry, model)
    _show(found, as_json=as_json)


@app.command()
def history(*, registry: Registry, name: NameOptional = None, as_json: JsonFlag = False) -> None:
    """List what was done, newest first, at most 50 acts."""
    with reported(as_json=as_json):
        events = _registry(registry).history(name)
    if as_json:
        print_json({"history": [to_json(event) for event in events]})
        return
    rows = [
        (
            second_text(event.at_ms),
            event.action.value,
            event.pointer.registry_id,
            f"{event.from_status or '-'} -> {event.to_status or '-'}",
            event.actor,
            event.reason,
        )
        for event in events
    ]
    print_rows("History", ("at", "act", "model", "status", "actor", "reason"), rows)


@app.command()
def load(
    model: Annotated[str, typer.Argument(help="Registry id, model id, or a line's name.")],
    *,
    registry: Registry,
    into: Into,
    as_json: JsonFlag = False,
) -> None:
    """Copy an artifact here, verified against the digest that was registered."""
    from detent.offline.registry.artifact_url import load_artifact  # noqa: PLC0415

    with reported(as_json=as_json):
        pointer = _named(registry, model).pointer
        folder = load_artifact(
            pointer.artifact_url, into, model_version_hash=pointer.model_version_hash
        )
    if as_json:
        print_json({"artifact": str(folder), "pointer": to_json(pointer)})
    else:
        console.print(good("loaded"), Text(str(folder)), soft_wrap=True)


@app.command()
def deprecate(
    model: Model, *, registry: Registry, actor: Actor, reason: Reason, as_json: JsonFlag = False
) -> None:
    """Take a model out of use; a line without one in production is the proxy's."""
    with reported(as_json=as_json):
        found = _registry(registry).deprecate(model, _act(actor, reason))
    _show(found, as_json=as_json, done="deprecated")


@app.command()
def rollback(
    name: Name, *, registry: Registry, actor: Actor, reason: Reason, as_json: JsonFlag = False
) -> None:
    """Put back what was in production before; nothing has to be acknowledged."""
    with reported(as_json=as_json):
        found = _registry(registry).roll_back(name, _act(actor, reason))
    _show(found, as_json=as_json, done="in production again")


def _named(registry: str, key: str) -> RegisteredModel:
    from detent.contracts.manifest import is_model_id  # noqa: PLC0415

    # A line's name has no version in it.
    stem = key.rsplit("_", 2)[0]
    is_one = is_model_id(key) or is_model_id(stem)
    held = _registry(registry)
    found: RegisteredModel = held.find(key) if is_one else held.production(key)
    return found


def _database(url: str, *, must_exist: bool = False) -> Any:
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415

    return ControlDatabase(url, must_exist=must_exist)


def _registry(url: str) -> Any:
    from detent.adapters.model_registry import ModelRegistry  # noqa: PLC0415

    # Only registering makes one: a mistyped URL would else read as a registry without models.
    return ModelRegistry(_database(url, must_exist=True))


def _keeping(url: str, max_versions: int | None, ml_settings: Path | None) -> Any:
    """Give a registry that keeps so many versions: an option says more than the file."""
    from detent.adapters.ml_settings import read_ml_settings  # noqa: PLC0415
    from detent.adapters.model_registry import ModelRegistry  # noqa: PLC0415
    from detent.core.artifacts.registry import VERSIONS_MAX  # noqa: PLC0415

    kept = VERSIONS_MAX
    if ml_settings is not None:
        kept = read_ml_settings(ml_settings).registry.max_versions
    return ModelRegistry(_database(url), versions_max=max_versions or kept)


def _act(actor: str, reason: str) -> Any:
    from detent.adapters.model_registry import Act  # noqa: PLC0415

    at_ms = time.time_ns() // 1_000_000
    return Act(actor=actor, source=SOURCE, at_ms=at_ms, reason=reason)


def _show(model: RegisteredModel, *, as_json: bool, done: str = "") -> None:
    pointer = model.pointer
    if as_json:
        print_json({"pointer": to_json(pointer), "registered_at_ms": model.registered_at_ms})
        return
    console.print(good(done or pointer.registry_id), pointer.registry_id if done else "")
    print_sheet(_facts(pointer, model.registered_at_ms))


def _facts(pointer: ModelPointer, registered_at_ms: int) -> list[tuple[str, object]]:
    return [
        ("status", _status(pointer.status)),
        ("artifact", pointer.artifact_url),
        ("manifest", pointer.model_version_hash),
        ("features", pointer.feature_version),
        ("commit", pointer.git_sha or "-"),
        ("data set", pointer.dataset_id or "-"),
        ("registered", second_text(registered_at_ms)),
        ("promoted", pointer.promoted_at_utc or "-"),
        ("by", f"{pointer.actor}, {pointer.source}"),
        ("notes", pointer.notes or "-"),
    ]


def _status(status: ModelStatus) -> Text:
    match status:
        case ModelStatus.PRODUCTION:
            return good(status.value)
        case ModelStatus.DEPRECATED:
            return bad(status.value)
        case _:
            return Text(status.value)
