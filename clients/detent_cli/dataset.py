"""Make and check data sets: `detent dataset build|verify|show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.contracts.binding import Head
from detent.contracts.errors import DataInvalid
from detent.contracts.json_codec import to_json
from detent_cli.output import (
    JsonFlag,
    bad,
    console,
    good,
    print_json,
    print_sheet,
    progress_bar,
    reported,
)

if TYPE_CHECKING:
    from detent.offline.datasets.manifest import DatasetManifest

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The data set's folder.")]


@app.command()
def build(
    *,
    data: Annotated[Path, typer.Option(help="Bars: .parquet or .csv.")],
    out: Annotated[Path, typer.Option(help="Folder of data sets.")],
    dataset_id: Annotated[str, typer.Option(help="Its name: 3 to 65 of a-z 0-9 . _ -")],
    created_at: Annotated[str, typer.Option(help="UTC, for example 2024-01-15T10:30:00Z.")],
    source: Annotated[str, typer.Option(help="synthetic, backtest, export or manual.")] = "export",
    head: Annotated[Head, typer.Option(help="The question that its labels answer.")] = (
        Head.DIRECTION
    ),
    feature_set: Annotated[
        str | None, typer.Option(help="Name of a feature set, or a file that holds one.")
    ] = None,
    horizon_bars: Annotated[
        int | None,
        typer.Option(help="How far ahead the label looks; by default 4, toxicity 60 s.", min=1),
    ] = None,
    horizon_id: Annotated[
        str, typer.Option(help="Name of the horizon; by default h and how many bars.")
    ] = "",
    cadence_evidence: Annotated[
        Path | None, typer.Option(help="Why the bars are not of 15 minutes: a file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write labelled rows, and a manifest that pins every byte of them."""
    # Imported here: a strategist's installation has no training libraries.
    from detent.offline.datasets.commands import build_dataset_folder  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        path = build_dataset_folder(
            data,
            out_dir=out,
            dataset_id=dataset_id,
            created_at=created_at,
            source=source,
            head=head,
            feature_set=feature_set,
            horizon_bars=horizon_bars,
            horizon_id=horizon_id,
            cadence_evidence=cadence_evidence,
            progress=progress,
        )
    _show(path, as_json=as_json, done="built")


@app.command()
def verify(
    folder: Folder,
    *,
    bars: Annotated[
        Path | None, typer.Option(help="The bars: rows are computed again from them.")
    ] = None,
    for_promotion: Annotated[
        bool, typer.Option("--for-promotion", help="Also ask for 6 months and 2 regimes.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read every byte, check every hash and label. Exit 1: not what it should be."""
    from detent.offline.datasets.commands import verify_dataset  # noqa: PLC0415

    with reported(as_json=as_json, negative=lambda error: isinstance(error, DataInvalid)):
        dataset, compared = verify_dataset(folder, bars=bars, for_promotion=for_promotion)
    manifest = dataset.manifest
    if as_json:
        facts = {"dataset_id": manifest.dataset_id, "dataset_hash": manifest.dataset_hash}
        print_json({"verified": True, "rows_computed_again": compared, **facts})
        return
    console.print(good("sound"), manifest.dataset_id)
    asked = f"{compared} of {manifest.row_count}" if bars else bad("not asked for: --bars")
    print_sheet([("data set", manifest.dataset_hash), ("rows computed again", asked)])


@app.command()
def show(folder: Folder, *, as_json: JsonFlag = False) -> None:
    """Show what a data set says of itself; it is verified first."""
    _show(folder, as_json=as_json)


def _show(folder: Path, *, as_json: bool, done: str = "sound") -> None:
    from detent.offline.datasets.folder import read_dataset  # noqa: PLC0415

    with reported(as_json=as_json, negative=lambda error: isinstance(error, DataInvalid)):
        manifest = read_dataset(folder).manifest
    if as_json:
        print_json(to_json(manifest) | {"dataset_hash": manifest.dataset_hash})
        return
    console.print(good(done), manifest.dataset_id)
    print_sheet(_facts(manifest))


def _facts(manifest: "DatasetManifest") -> list[tuple[str, object]]:
    from detent.offline.findings import utc  # noqa: PLC0415

    evidence = manifest.cadence_evidence or "not needed"
    return [
        ("data set", manifest.dataset_hash),
        ("source", manifest.source),
        ("head", manifest.head),
        ("label", manifest.label_definition),
        ("horizon", f"{manifest.horizon_id}, {manifest.horizon_bars} bars"),
        ("cadence", f"{manifest.bar_interval_ms} ms, evidence: {evidence}"),
        ("symbols", ", ".join(manifest.symbols)),
        ("rows", f"{manifest.row_count} of {manifest.bar_count} bars, {manifest.gap_count} gaps"),
        ("span", f"{utc(manifest.first_ts_ms)} to {utc(manifest.last_ts_ms)}"),
        ("features", manifest.feature_version),
        ("order", manifest.feature_order_hash),
        ("inputs", ", ".join(manifest.input_features)),
        ("bars", manifest.data_hash),
    ]
