"""Train a model on a data set, walking forward: `detent train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from detent.contracts.json_codec import to_json
from detent_cli.output import (
    JsonFlag,
    console,
    good,
    print_json,
    print_rows,
    print_sheet,
    progress_bar,
    reported,
)

if TYPE_CHECKING:
    from detent.offline.walk_forward.record import RunRecord

EngineName = Literal["local", "ray"]
Candidates = Annotated[
    list[str] | None,
    typer.Option(help="What to try, again for each; all that need no window by default."),
]
EmbargoBars = Annotated[int, typer.Option(help="Bars between an outcome and the next part.", min=0)]
NewestRows = Annotated[int | None, typer.Option(help="Only so many of the newest rows.", min=1)]
RayAddress = Annotated[
    str | None, typer.Option(help="Cluster of the engine ray; by default one here.")
]
Predecessor = Annotated[
    Path | None,
    typer.Option(help="Predecessor: the version must step as far as what changed."),
]
DatasetId = Annotated[str | None, typer.Option(help="The only data set to accept, by name.")]
PPM_ONE = 1_000_000
PPB_ONE = 1_000_000_000


def train(
    dataset: Annotated[Path, typer.Argument(help="The data set's folder.")],
    *,
    out_dir: Annotated[Path, typer.Option(help="Folder of artifacts; the run lies beside it.")],
    created_at: Annotated[str, typer.Option(help="UTC, for example 2024-01-15T10:30:00Z.")],
    name: Annotated[str, typer.Option(help="Name of the model's line.")] = "direction",
    version: Annotated[str, typer.Option(help="v<major>.<minor>.<patch>.")] = "v1.0.0",
    dataset_id: DatasetId = None,
    seed: Annotated[int, typer.Option(help="Seed of every fit and search.", min=0)] = 0,
    candidate: Candidates = None,
    folds: Annotated[int, typer.Option(help="Test blocks.", min=1)] = 5,
    embargo_bars: EmbargoBars = 1,
    trials: Annotated[int, typer.Option(help="Trials of each search; 0 for none.", min=0)] = 8,
    n_samples: NewestRows = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    engine: Annotated[EngineName, typer.Option(help="Where fits run.")] = "local",
    ray_address: RayAddress = None,
    git_sha: Annotated[str | None, typer.Option(help="Commit of the code, 40 hex.")] = None,
    notes: Annotated[str | None, typer.Option(help="What to remember.")] = None,
    after: Predecessor = None,
    as_json: JsonFlag = False,
) -> None:
    """Search, fit every candidate in every fold, choose, and pin the choice with its evidence."""
    # Imported here: a strategist's installation has no training libraries.
    from detent.offline.walk_forward.candidates import DEFAULT_IDS  # noqa: PLC0415
    from detent.offline.walk_forward.commands import train_folder  # noqa: PLC0415
    from detent.offline.walk_forward.engine import Engine, EngineKind  # noqa: PLC0415
    from detent.offline.walk_forward.training import TrainingRequest  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        request = TrainingRequest(
            model_name=name,
            model_version=version,
            created_at=created_at,
            seed=seed,
            architectures=tuple(candidate or DEFAULT_IDS),
            fold_count=folds,
            embargo_bars=embargo_bars,
            trial_count=trials,
            n_samples=n_samples,
            git_sha=git_sha,
            notes=notes,
        )
        trained = train_folder(
            dataset,
            request,
            out_dir=out_dir,
            engine=Engine(
                kind=EngineKind(engine),
                workers=workers,
                address=ray_address,
            ),
            progress=progress,
            dataset_id=dataset_id,
            predecessor=after,
        )
    record = trained.record
    if as_json:
        print_json(to_json(record))
        return
    console.print(good("trained"), Text(str(trained.artifact)), soft_wrap=True)
    console.print("evidence in", Text(str(trained.run)), soft_wrap=True)
    _print_record(record)


def _print_record(record: "RunRecord") -> None:
    rows: list[tuple[object, ...]] = []
    for one in record.candidates:
        if one.refusal is not None:
            rows.append((one.architecture_id, "-", "-", "-", one.refusal))
            continue
        methods = ", ".join(dict.fromkeys(fold.calibration_method for fold in one.folds))
        loss, brier = one.log_loss_ppm / PPM_ONE, one.brier_ppm / PPM_ONE
        params = " ".join(f"{key}={value}" for key, value in one.params.items())
        rows.append((one.architecture_id, f"{loss:.6f}", f"{brier:.6f}", methods, params))
    rows.append(("a constant", f"{record.base_log_loss_ppm / PPM_ONE:.6f}", "", "", ""))
    rows.append(("the proxy", f"{record.proxy_log_loss_ppm / PPM_ONE:.6f}", "", "", ""))
    test_rows = sum(fold.test_rows for fold in record.folds)
    title = f"Out of fold: {test_rows} rows in {len(record.folds)} folds"
    columns = ("candidate", "log loss", "Brier", "calibration", "fitted with")
    print_rows(title, columns, rows)
    for step in record.choice.comparisons:
        difference, bound = step.difference_ppb / PPB_ONE, step.bound_ppb / PPB_ONE
        verdict = "takes its place" if step.replaced else "no better: the simpler stays"
        beside = f"{step.architecture_id} beside {step.beside}"
        console.print(f"{beside}: {difference:+.6f}, below {bound:+.6f} with 95%: {verdict}")
    print_sheet(
        [
            ("chosen", record.choice.architecture_id),
            ("trials", record.trial_count),
            ("data set", f"{record.dataset_id}, {record.row_count} rows"),
            ("manifest", record.model_version_hash),
        ]
    )
