"""Verify that an artifact answers the same twice: `detent verify-determinism`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    errors,
    good,
    print_facts,
    print_json,
    reported,
)

SHOWN_HEX = 16


def verify_determinism(
    *,
    model: Annotated[Path, typer.Option(help="The artifact's directory.")],
    fixture: Annotated[
        Path | None, typer.Option(help="Bars to ask it over; without them its golden rows.")
    ] = None,
    execution_provider: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="What runs the graph.")
    ] = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Run an artifact twice over the same inputs, in two processes; exit 1 when they differ."""
    # Imported here: a strategist's installation has no runtime.
    from detent.offline import determinism  # noqa: PLC0415

    with (
        reported(as_json=as_json),
        errors.status("asking the artifact twice", spinner="dots"),
    ):
        verdict = determinism.verify_determinism(
            model, fixture=fixture, execution_provider=execution_provider
        )
    if as_json:
        print_json(
            {
                "passes": verdict.passes,
                "row_count": verdict.row_count,
                "input_hash": verdict.input_hash,
                "output_hashes": list(verdict.output_hashes),
                "failures": list(verdict.failures),
                "certificate_hash": verdict.certificate_hash,
            }
        )
    else:
        runs = [
            (f"Run {number} output hash ({how})", output_hash[:SHOWN_HEX] or failure)
            for number, (how, output_hash, failure) in enumerate(
                zip(determinism.RUNS, verdict.output_hashes, verdict.failures, strict=True), start=1
            )
        ]
        facts = [
            ("Input features hash", verdict.input_hash[:SHOWN_HEX]),
            *runs,
            ("Rows", f"{verdict.row_count:,}"),
            ("Certificate", verdict.certificate_hash[:SHOWN_HEX] or "none"),
            ("Determinism check", good("PASS") if verdict.passes else bad("FAIL")),
        ]
        print_facts(model.name, facts)
    if not verdict.passes:
        raise typer.Exit(EXIT_NEGATIVE)
