"""Build, verify and show artifacts: `detent artifact build|verify|show`."""

from pathlib import Path
from typing import Annotated

import typer

from detent.contracts.json_codec import to_json
from detent.contracts.manifest import Manifest
from detent_cli.output import JsonFlag, console, print_facts, print_json, progress_bar, reported

app = typer.Typer(help="Build, verify and show artifacts.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The artifact's directory.")]


@app.command()
def build(
    *,
    data: Annotated[Path, typer.Option(help="Bars: .parquet, .csv, or the EURUSD wheel.")],
    out: Annotated[Path, typer.Option(help="Folder of artifacts.")],
    created_at: Annotated[str, typer.Option(help="UTC, for example 2024-01-15T10:30:00Z.")],
    name: Annotated[str, typer.Option(help="Name of the model's line.")] = "direction_logistic",
    version: Annotated[str, typer.Option(help="v<major>.<minor>.<patch>.")] = "v1.0.0",
    horizon_bars: Annotated[int, typer.Option(help="How far ahead the label looks.", min=1)] = 4,
    horizon_id: Annotated[str, typer.Option(help="Name of the horizon.")] = "h4",
    as_json: JsonFlag = False,
) -> None:
    """Train, calibrate, measure and pin a direction model; refuses an existing directory."""
    # Imported here: a strategist's installation has no training libraries.
    from detent.offline.commands import build_artifact, load_table  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        path = build_artifact(
            load_table(data),
            model_name=name,
            version=version,
            horizon_bars=horizon_bars,
            horizon_id=horizon_id,
            created_at=created_at,
            out_dir=out,
            progress=progress,
        )
    show(path, as_json=as_json)


@app.command()
def verify(
    folder: Folder,
    *,
    model_version_hash: Annotated[
        str | None, typer.Option(help="The only manifest hash to accept, 64 hex.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every byte, check every hash, run the golden rows; exit 2 when anything differs."""
    from detent.offline.commands import verify_artifact  # noqa: PLC0415

    with reported(as_json=as_json):
        serving = verify_artifact(folder, model_version_hash=model_version_hash)
    pinned = serving.artifact.pinned
    facts = {
        "artifact": folder.name,
        "binding_hash": pinned.binding_hash,
        "model_version_hash": serving.artifact.manifest.model_version_hash,
        "golden_rows": len(serving.artifact.golden.rows),
        "execution_provider": serving.session.execution_provider,
    }
    if as_json:
        print_json({"verified": True, **facts})
        return
    print_facts("Verified", list(facts.items()))


@app.command()
def show(folder: Folder, *, as_json: JsonFlag = False) -> None:
    """Show what an artifact says of itself and the binding that it gives."""
    from detent.adapters.artifact_store import read_pinned_manifest  # noqa: PLC0415

    with reported(as_json=as_json):
        pinned = read_pinned_manifest(folder)
    manifest, binding = pinned.manifest, pinned.binding
    if as_json:
        manifest_facts = to_json(manifest) | {"model_version_hash": manifest.model_version_hash}
        binding_facts = to_json(binding) | {"binding_hash": pinned.binding_hash}
        print_json({"manifest": manifest_facts, "binding": binding_facts})
        return
    print_facts(manifest.model_id, _manifest_facts(manifest, pinned.binding_hash))
    metrics = manifest.training_metadata.metrics
    print_facts("On held-out rows", [(metric.name, metric.value) for metric in metrics])
    console.print(f"features: {', '.join(manifest.input_features)}")


def _manifest_facts(manifest: Manifest, binding_hash: str) -> list[tuple[str, object]]:
    rows, window = manifest.training_metadata, manifest.training_window
    samples = f"{rows.train_samples} / {rows.calibration_samples} / {rows.test_samples}"
    return [
        ("binding_hash", binding_hash),
        ("model_version_hash", manifest.model_version_hash),
        ("model_hash", manifest.model_hash),
        ("feature_version", manifest.feature_version),
        ("calibration", f"{manifest.calibration_method} {manifest.calibration_version}"),
        ("head", manifest.head),
        ("architecture", manifest.architecture_id),
        ("label", manifest.label_definition),
        ("horizon", f"{manifest.horizon_id} ({manifest.horizon_bars} bars)"),
        ("training window", f"{window.start_ts_ms} to {window.end_ts_ms}"),
        ("data cutoff", manifest.data_cutoff_ts_ms),
        ("created at", manifest.created_at),
        ("train / calibration / test rows", samples),
        ("files", ", ".join(entry.path for entry in manifest.files)),
    ]
