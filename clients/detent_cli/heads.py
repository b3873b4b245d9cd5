"""Train the heads beside direction, and discover rules: `detent heads`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from detent_cli.output import (
    JsonFlag,
    console,
    good,
    print_json,
    print_rows,
    progress_bar,
    reported,
)

app = typer.Typer(help="Train the heads beside direction, offline.", no_args_is_help=True)
Out = Annotated[Path, typer.Option(help="Folder of artifacts.")]
CreatedAt = Annotated[str, typer.Option(help="UTC, for example 2024-01-15T10:30:00Z.")]
Name = Annotated[str, typer.Option(help="Name of the model's line.")]
Version = Annotated[str, typer.Option(help="v<major>.<minor>.<patch>.")]
Seed = Annotated[int, typer.Option(help="Seed of every fit.", min=0)]
Folds = Annotated[int, typer.Option(help="Test blocks.", min=1)]
BarIntervalMs = Annotated[
    int, typer.Option(help="Length of the bars of the plans that will ask.", min=1)
]


@app.command(name="class")
def class_(
    dataset: Annotated[Path, typer.Argument(help="A data set of the head regime or toxicity.")],
    *,
    out_dir: Out,
    created_at: CreatedAt,
    name: Name,
    version: Version = "v1.0.0",
    seed: Seed = 0,
    folds: Folds = 5,
    spacing: Annotated[
        Path | None, typer.Option(help="For the regime: what each spacing earned.")
    ] = None,
    spacing_target: Annotated[
        str, typer.Option(help="What a spacing is best by: sharpe, rt_expectancy or fill_rate.")
    ] = "sharpe",
    drawdown_max: Annotated[
        float, typer.Option(help="A spacing that lost more is out.", min=0, max=1)
    ] = 0.05,
    as_json: JsonFlag = False,
) -> None:
    """Train LOW, MID and HIGH: of volatility with a spacing, or of toxicity with what follows."""
    from detent.offline.heads.commands import train_class_folder  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        trained = train_class_folder(
            dataset,
            out_dir=out_dir,
            created_at=created_at,
            model_name=name,
            version=version,
            seed=seed,
            fold_count=folds,
            spacing=spacing,
            spacing_target=spacing_target,
            drawdown_max=drawdown_max,
            progress=progress,
        )
    _print_trained(trained.artifact, trained.folds, as_json=as_json)


@app.command()
def fill(
    orders: Annotated[Path, typer.Argument(help="What became of orders: .parquet or .csv.")],
    *,
    out_dir: Out,
    created_at: CreatedAt,
    name: Name = "fill",
    version: Version = "v1.0.0",
    seed: Seed = 0,
    folds: Folds = 5,
    bar_interval_ms: BarIntervalMs = 900_000,
    as_json: JsonFlag = False,
) -> None:
    """Train P(fill), which never rises with the distance from the mid."""
    from detent.offline.heads.commands import train_fill_file  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        path, reports = train_fill_file(
            orders,
            out_dir=out_dir,
            created_at=created_at,
            model_name=name,
            version=version,
            seed=seed,
            fold_count=folds,
            bar_interval_ms=bar_interval_ms,
            progress=progress,
        )
    _print_trained(path, reports, as_json=as_json)


@app.command()
def brackets(
    events: Annotated[Path, typer.Argument(help="What came true of events: .parquet or .csv.")],
    *,
    out_dir: Out,
    created_at: CreatedAt,
    name: Name = "brackets",
    version: Version = "v1.0.0",
    seed: Seed = 0,
    folds: Folds = 3,
    bar_interval_ms: BarIntervalMs = 900_000,
    as_json: JsonFlag = False,
) -> None:
    """Train exclusive outcomes, one against the rest each, coupled to one distribution."""
    from detent.offline.heads.commands import train_brackets_file  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        path, reports = train_brackets_file(
            events,
            out_dir=out_dir,
            created_at=created_at,
            model_name=name,
            version=version,
            seed=seed,
            fold_count=folds,
            bar_interval_ms=bar_interval_ms,
            progress=progress,
        )
    _print_trained(path, reports, as_json=as_json)


@app.command()
def rules(
    data: Annotated[Path, typer.Argument(help="Conditions and the policy that did best.")],
    *,
    out: Annotated[Path, typer.Option(help="The file of rules to write.")],
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Discover rules, and keep those that hold on later rows; for people, never for serving."""
    from detent.offline.heads.commands import discover_rule_file  # noqa: PLC0415
    from detent.offline.heads.policy_rules import rule_text  # noqa: PLC0415

    with reported(as_json=as_json):
        found = discover_rule_file(data, out=out, seed=seed)
    if as_json:
        print_json({"rules": len(found.rules), "dropped": found.dropped, "file": str(out)})
        return
    table = [
        (rule_text(rule), rule.rows, rule.held_out_rows, rule.held_out_right_bps)
        for rule in found.rules
    ]
    print_rows(
        f"{len(found.rules)} rules hold, {found.dropped} do not",
        ("rule", "rows", "held out", "right, bps"),
        table,
    )


def _print_trained(artifact: Path, folds: Sequence[object], *, as_json: bool) -> None:
    rows = [msgspec.to_builtins(fold) for fold in folds]
    if as_json:
        print_json({"artifact": str(artifact), "folds": rows})
        return
    console.print(good("trained"), Text(str(artifact)), soft_wrap=True)
    print_rows("Out of fold", tuple(rows[0]), [tuple(one.values()) for one in rows])
