"""Build and look into features offline: `detent features build|describe|diff|audit|reference`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    good,
    print_facts,
    print_json,
    print_rows,
    progress_bar,
    reported,
)

app = typer.Typer(help="Build and look into features, offline.", no_args_is_help=True)
Data = Annotated[Path, typer.Option(help="Bars: .parquet, .csv, or the EURUSD wheel.")]
SetOption = Annotated[str, typer.Option(help="Name of a feature set, or a file that holds one.")]
SetArgument = Annotated[str, typer.Argument(help="Name of a feature set, or a file.")]
IntervalMs = Annotated[
    int, typer.Option(help="Length of the bars in ms, for a set found by name.", min=1)
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]
DEFAULT_SET = "direction_bars_v1"
HOUR_MS = 3_600_000


@app.command()
def build(
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            help="Bars, quotes or books, told apart by their columns; one file of each kind:"
            " .parquet, .csv, .jsonl of books, or the EURUSD wheel."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.")],
    feature_set: SetOption = DEFAULT_SET,
    venue: Annotated[
        str | None, typer.Option(help="Exchange of the books, where their file does not say.")
    ] = None,
    bar_interval_ms: IntervalMs = HOUR_MS,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Write one row per bar: what the service would have served, with the same hashes."""
    # Imported here: a strategist's installation reads no data files.
    from detent.offline.commands import build_feature_file  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        summary, gaps = build_feature_file(
            data,
            feature_set,
            out=out,
            venue=venue,
            bar_interval_ms=bar_interval_ms,
            force=force,
            progress=progress,
        )
    facts = msgspec.to_builtins(summary) | {"gaps": gaps, "out": str(out)}
    if as_json:
        print_json(facts)
        return
    refused = {"refused": facts.pop("refused"), "events": facts.pop("refused_events", {})}
    facts["symbols"] = ", ".join(facts["symbols"])
    rows = [(name.replace("_", " "), fact) for name, fact in facts.items()]
    rows += [(f"refused, {reason}", count) for reason, count in refused["refused"].items()]
    rows += [(f"refused data, {reason}", count) for reason, count in refused["events"].items()]
    print_facts("Features", rows)


@app.command()
def describe(
    feature_set: SetArgument,
    *,
    bar_interval_ms: IntervalMs = HOUR_MS,
    as_json: JsonFlag = False,
) -> None:
    """Show what a feature set gives a model, and what it needs."""
    from detent.contracts.json_codec import to_json  # noqa: PLC0415
    from detent.offline.feature_sets import find_feature_set  # noqa: PLC0415

    with reported(as_json=as_json):
        found = find_feature_set(feature_set, bar_interval_ms=bar_interval_ms)
    facts = {"feature_version": found.feature_version, "warmup_bars": found.warmup_bars_min}
    if as_json:
        print_json(to_json(found) | facts)
        return
    fields = to_json(found)
    fields.pop("features")
    engine = fields.pop("engine")
    assert isinstance(engine, dict)
    print_facts(found.name, [*facts.items(), *fields.items(), *engine.items()])
    print_rows(
        "Features in the order in which the model consumes them; windows in bars",
        ("place", "name", "transform", "window", "warm-up"),
        [
            (
                place,
                spec.name,
                spec.transform,
                spec.window_bars or "",
                spec.bars_needed(found.engine),
            )
            for place, spec in enumerate(found.features, start=1)
        ],
    )


@app.command()
def diff(
    first: SetArgument,
    second: SetArgument,
    *,
    bar_interval_ms: IntervalMs = HOUR_MS,
    as_json: JsonFlag = False,
) -> None:
    """Show in what two feature sets differ; exit 1 when they do."""
    from detent.offline.feature_sets import differences, find_feature_set  # noqa: PLC0415

    with reported(as_json=as_json):
        sets = [find_feature_set(one, bar_interval_ms=bar_interval_ms) for one in (first, second)]
        found = differences(sets[0], sets[1])
    versions = [one.feature_version for one in sets]
    if as_json:
        listed = [msgspec.to_builtins(one) for one in found]
        print_json({"feature_versions": versions, "differences": listed})
    elif not found:
        console.print(good("the same"), f"feature version {versions[0]}", soft_wrap=True)
    else:
        print_facts("Feature versions", [(first, versions[0]), (second, versions[1])])
        rows = [(one.field, _text(one.first), _text(one.second)) for one in found]
        print_rows("Differences", ("what", "first", "second"), rows)
    if found:
        raise typer.Exit(EXIT_NEGATIVE)


@app.command()
def audit(
    *,
    data: Data,
    feature_set: SetOption = DEFAULT_SET,
    out: Annotated[Path | None, typer.Option(help="Also write every count to this CSV.")] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Count per symbol and month which rows are served, and how complete each feature is."""
    from detent.offline.commands import load_table  # noqa: PLC0415
    from detent.offline.feature_audit import (  # noqa: PLC0415
        audit_features,
        audit_reasons,
        write_audit,
    )
    from detent.offline.feature_sets import find_feature_set  # noqa: PLC0415

    with reported(as_json=as_json), progress_bar() as progress:
        table = load_table(data)
        found = find_feature_set(feature_set, bar_interval_ms=table.interval_ms)
        rows = audit_features(table, found, progress=progress)
        if out is not None:
            write_audit(out, rows, force=force)
    if as_json:
        listed = [msgspec.to_builtins(row) for row in rows]
        print_json({"feature_version": found.feature_version, "windows": listed})
        return
    reasons = audit_reasons(rows)
    lines = [
        (
            row.symbol,
            row.window,
            f"{row.rows:,}",
            _share(row.served, row.rows),
            *(f"{row.refused.get(reason, 0):,}" for reason in reasons),
            _least(row.present, row.rows),
        )
        for row in rows
    ]
    columns = ("symbol", "month", "rows", "served", *reasons, "least complete feature")
    print_rows("Completeness", columns, lines)
    served, total = sum(row.served for row in rows), sum(row.rows for row in rows)
    console.print(f"{served:,} of {total:,} rows served; every count adds up")


@app.command()
def reference(
    *,
    features: Annotated[Path, typer.Option(help="What `detent features build` wrote: .parquet.")],
    out: Annotated[Path, typer.Option(help="The file to write: .npy.")],
    as_json: JsonFlag = False,
) -> None:
    """Write the rows that a monitor compares with what was served: those of the training."""
    from detent.offline.feature_reference import write_reference  # noqa: PLC0415

    with reported(as_json=as_json):
        rows = write_reference(features, out)
    if as_json:
        print_json({"rows": rows, "out": str(out)})
    else:
        console.print(f"{rows:,} rows in {out}")


def _text(value: object) -> object:
    return bad("(not there)") if value is None else value


def _share(count: int, rows: int) -> str:
    return f"{count / rows:.1%}"


def _least(present: dict[str, int], rows: int) -> str:
    """Name the least complete feature; the first where several are."""
    name = min(present, key=lambda feature: present[feature])
    return "all complete" if present[name] == rows else f"{name} {_share(present[name], rows)}"
