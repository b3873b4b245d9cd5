"""Make and inspect artifacts: `detent artifact build|verify|show|diff|import|sign`."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from detent.contracts.binding import FallbackMode, Head
from detent.contracts.calibration import CalibrationMethod
from detent.contracts.canonical import JsonValue
from detent.contracts.checks import is_hash64
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.json_codec import to_json
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    good,
    print_json,
    print_rows,
    print_sheet,
    progress_bar,
    reported,
)

app = typer.Typer(help="Make, inspect and sign artifacts.", no_args_is_help=True)
# What keeps an artifact from being judged at all; everything else is a judgement.
UNJUDGED = frozenset({Reason.ARTIFACT_DIR_MISSING, Reason.ONNX_UNAVAILABLE})
PASSWORD = "DETENT_SIGNING_PASSWORD"  # noqa: S105  The name of a variable, not a secret.
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
    horizon_id: Annotated[
        str, typer.Option(help="Name of the horizon; by default h and how many bars.")
    ] = "",
    after: Annotated[
        Path | None,
        typer.Option(help="Predecessor: the version must step as far as what changed."),
    ] = None,
    choose_calibration: Annotated[
        bool,
        typer.Option(
            "--choose-calibration", help="The method that does best on rows held out, not Platt."
        ),
    ] = False,
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
            horizon_id=horizon_id or f"h{horizon_bars}",
            created_at=created_at,
            out_dir=out,
            progress=progress,
            after=after,
            calibration_method=None if choose_calibration else CalibrationMethod.PLATT,
        )
    _show(path, as_json=as_json, done="built")


@app.command()
def verify(
    folder: Folder,
    *,
    model_version_hash: Annotated[
        str | None, typer.Option(help="The only manifest hash to accept, 64 hex.")
    ] = None,
    trusted_key: Annotated[
        list[Path] | None, typer.Option(help="Public key, PEM; asks for a signature by it.")
    ] = None,
    trusted_root: Annotated[
        list[Path] | None, typer.Option(help="Certificate, PEM, that may issue the signer's.")
    ] = None,
    signer: Annotated[
        list[str] | None, typer.Option(help="Signer that a certificate must name.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every byte, check every hash, run the golden rows, check the signature if asked.

    Exit 0: sound. Exit 1: not what it should be. Exit 2: it could not be judged.
    """
    from detent.adapters.artifact_signature import SignatureTrust  # noqa: PLC0415
    from detent.offline.commands import verify_artifact  # noqa: PLC0415

    with reported(as_json=as_json):
        trust = SignatureTrust(
            required=bool(trusted_key or trusted_root or signer),
            public_keys=tuple(_read_pem(path) for path in trusted_key or ()),
            roots=tuple(_read_pem(path) for path in trusted_root or ()),
            identities=tuple(signer or ()),
            now=lambda: datetime.now(UTC),
        )
    with reported(as_json=as_json, negative=_is_judgement):
        serving = verify_artifact(folder, model_version_hash=model_version_hash, trust=trust)
    pinned = serving.artifact.pinned
    facts = {
        "artifact": folder.name,
        "binding_hash": pinned.binding_hash,
        "model_version_hash": serving.artifact.manifest.model_version_hash,
        "golden_rows": len(serving.artifact.golden.rows),
        "execution_provider": serving.session.execution_provider,
        "signer": pinned.signer,
    }
    if as_json:
        print_json({"verified": True, **facts})
        return
    console.print(good("sound"), folder.name)
    asked = "not asked for: --trusted-key or --trusted-root"
    print_sheet(
        [
            ("binding", pinned.binding_hash),
            ("manifest", serving.artifact.manifest.model_version_hash),
            ("golden rows", f"{facts['golden_rows']} reproduced, in a batch and one by one"),
            ("runs on", serving.session.execution_provider),
            ("signed by", pinned.signer or asked),
        ]
    )


@app.command()
def show(folder: Folder, *, as_json: JsonFlag = False) -> None:
    """Show what an artifact says of itself and the binding that it gives."""
    _show(folder, as_json=as_json)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="The earlier artifact's directory.")],
    after: Annotated[Path, typer.Argument(help="The later artifact's directory.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Show what differs, and which version step that takes.

    Exit 0: the same. Exit 1: they differ. Exit 2: one of them cannot be read.
    """
    from detent.adapters.artifact_store import read_pinned_manifest  # noqa: PLC0415
    from detent.core.artifacts.version_step import (  # noqa: PLC0415
        manifest_differences,
        step_needed,
        step_taken,
    )

    with reported(as_json=as_json):
        first, second = (read_pinned_manifest(path).manifest for path in (before, after))
    found = manifest_differences(first, second)
    needed, taken = step_needed(first, second), step_taken(first, second)
    is_enough = taken >= needed and first.model_name == second.model_name
    if as_json:
        listed = [to_json_difference(one) for one in found]
        steps = {"step_needed": needed.name.lower(), "step_taken": taken.name.lower()}
        print_json({"differences": listed, **steps, "step_is_enough": is_enough})
    elif not found:
        console.print(good("the same"), first.model_id)
    else:
        rows = [
            (one.what, _short(one.before), _short(one.after), one.step.name.lower())
            for one in found
        ]
        title = f"{first.model_id} -> {second.model_id}"
        print_rows(title, ("what", "before", "after", "step"), rows)
        mark = good("enough") if is_enough else bad("too little")
        steps_text = f"{needed.name.lower()} step needed, {taken.name.lower()} taken:"
        console.print(steps_text, mark)
    if found:
        raise typer.Exit(EXIT_NEGATIVE)


@app.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Artifact of form 1, v1 or v1.1.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of artifacts.")],
    facts: Annotated[
        Path, typer.Option(help="JSON with what the form does not say; see docs/importing.md.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Bring an artifact of an earlier form into ours; what nobody states is an error."""
    from detent.offline.importing.importing import import_artifact  # noqa: PLC0415

    with reported(as_json=as_json):
        path = import_artifact(folder, facts=facts, out_dir=out)
    _show(path, as_json=as_json, done="imported")


@app.command()
def sign(
    folder: Folder,
    *,
    key: Annotated[Path, typer.Option(help=f"Private EC key, PEM; password in {PASSWORD}.")],
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate of the key, PEM; names the signer.")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option(help="Certificate between that and the trusted one.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Sign again; the artifact itself stays.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Sign an artifact offline with OpenSSF model-signing; see docs/signing.md."""
    from detent.offline.signing import sign_artifact  # noqa: PLC0415

    with reported(as_json=as_json):
        signer = sign_artifact(
            folder,
            key=key,
            now=lambda: datetime.now(UTC),
            password=os.environ.get(PASSWORD),
            certificate=certificate,
            chain=tuple(chain or ()),
            replace=replace,
        )
    if as_json:
        print_json({"artifact": folder.name, "signer": signer})
        return
    console.print(good("signed"), folder.name)
    print_sheet([("signed by", signer)])


def to_json_difference(difference: Any) -> dict[str, JsonValue]:
    """Give a difference as JSON, its step by name."""
    return {
        "what": difference.what,
        "before": difference.before,
        "after": difference.after,
        "step": difference.step.name.lower(),
    }


def _show(folder: Path, *, as_json: bool, done: str = "") -> None:
    """Show an artifact; if it was just made, also where it is."""
    from detent.adapters.artifact_store import read_pinned_manifest  # noqa: PLC0415
    from detent.core.evaluation.scores import stated_name  # noqa: PLC0415

    with reported(as_json=as_json):
        pinned = read_pinned_manifest(folder)
    manifest, binding = pinned.manifest, pinned.binding
    if as_json:
        manifest_facts = to_json(manifest) | {"model_version_hash": manifest.model_version_hash}
        binding_facts = to_json(binding) | {"binding_hash": pinned.binding_hash}
        print_json({"manifest": manifest_facts, "binding": binding_facts})
        return
    if done:
        # A path that is broken over two lines cannot be copied.
        console.print(good(done), Text(str(folder)), soft_wrap=True)
    else:
        console.print(good(manifest.model_id))
    print_sheet(_manifest_facts(manifest, pinned.binding_hash))
    metrics = [(stated_name(one.name), one.value) for one in manifest.training_metadata.metrics]
    if metrics:
        print_rows("On rows held out", ("metric", "value"), metrics)


def _is_judgement(error: Exception) -> bool:
    return isinstance(error, ArtifactInvalid) and error.gate_reason not in UNJUDGED


def _read_pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactInvalid(
            f"{path}: {error.strerror}, expected a PEM file",
            gate_reason=Reason.ARTIFACT_DIR_MISSING,
            file=path,
        ) from error


def _short(value: JsonValue) -> str:
    """Write a value for a column: hashes by their first 16 hex, the rest as it is."""
    if value is None:
        return "-"
    if isinstance(value, str) and is_hash64(value):
        return value[:16]
    return str(value)


def _utc(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _manifest_facts(manifest: Manifest, binding_hash: str) -> list[tuple[str, object]]:
    rows, window = manifest.training_metadata, manifest.training_window
    samples = f"{rows.train_samples} train, {rows.calibration_samples} calibration, "
    features = ", ".join(manifest.input_features)
    return [
        ("binding", binding_hash),
        ("manifest", manifest.model_version_hash),
        ("features", manifest.feature_version),
        ("calibration", manifest.calibration_version),
        ("model", manifest.model_hash),
        ("head", f"{manifest.head}: {', '.join(manifest.output_classes)}"),
        *_particular_facts(manifest),
        ("made by", f"{manifest.architecture_id}, {manifest.framework}"),
        ("calibrated", manifest.calibration_method),
        ("label", manifest.label_definition),
        ("horizon", f"{manifest.horizon_id}, {manifest.horizon_bars} bars"),
        ("trained on", f"{_utc(window.start_ts_ms)} to {_utc(window.end_ts_ms)}"),
        ("data cutoff", _utc(manifest.data_cutoff_ts_ms)),
        ("created at", manifest.created_at),
        ("rows", f"{samples}{rows.test_samples} test"),
        *_origin_facts(manifest),
        ("files", ", ".join(entry.path for entry in manifest.files)),
        ("inputs", features),
    ]


def _particular_facts(manifest: Manifest) -> list[tuple[str, object]]:
    """Say what only some heads or graphs have."""
    facts: list[tuple[str, object]] = [
        ("beside it", f"{output.name}: {', '.join(output.classes)}")
        for output in manifest.further_outputs
    ]
    if manifest.head is Head.REGIME:
        fallback = manifest.fallback
        mode = FallbackMode.NEUTRAL if fallback is None else fallback.mode
        age_ms = None if fallback is None else fallback.max_age_ms
        limit = "" if age_ms is None else f", at most {age_ms} ms old"
        facts.append(("fallback", f"{mode}{limit}"))
    if manifest.input_shape:
        facts.append(("input shape", " x ".join(map(str, manifest.input_shape))))
    return facts


def _origin_facts(manifest: Manifest) -> list[tuple[str, object]]:
    """Say where it comes from, as far as anybody said."""
    said = (
        ("commit", manifest.git_sha),
        ("data set", manifest.dataset_id),
        ("notes", manifest.notes),
    )
    return [(name, value) for name, value in said if value is not None]
