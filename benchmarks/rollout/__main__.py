"""Run the simulation: `python -m benchmarks.rollout`."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rollout.power import BARS, LOOKS, Power, measured

SCHEMA = "detent.benchmark.rollout.v1"
# Symbols of the canary and of the universe: always 5%.
CANARIES = ((1, 20), (5, 100), (20, 400))
GROWTHS = (0.0, 0.01, 0.05, 0.10, 0.20)
SEED = 20_260_101


def main(
    *,
    runs: Annotated[int, typer.Option(help="Runs per universe.", min=10, max=10_000)] = 200,
    largest: Annotated[
        int, typer.Option(help="Leave out universes of more symbols.", min=20)
    ] = 400,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = SEED,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
) -> None:
    """Count how soon a worse canary is found and how often a healthy one is stopped."""
    universes = [one for one in CANARIES if one[1] <= largest]
    found: list[Power] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("runs", total=runs * len(universes))
        for canary, universe in universes:
            found += measured(
                canary,
                universe,
                GROWTHS,
                runs=runs,
                seed=seed,
                advance=lambda: progress.advance(task),
            )
    _show(found, runs)
    if json_file is not None:
        facts = {"schema": SCHEMA, "runs": runs, "seed": seed, "looks": LOOKS}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        results = {"power": [msgspec.to_builtins(one) for one in found]}
        json_file.write_text(json.dumps(facts | results, indent=2) + "\n", encoding="utf-8")


def _show(found: list[Power], runs: int) -> None:
    table = Table(
        title=f"Share of {runs} runs that were stopped: paired, one look / betting / unpaired",
        title_justify="left",
    )
    for name in ("canary", "Brier", *(f"{look} bars" for look in LOOKS), "median", "peeked"):
        table.add_column(name)
    for one in found:
        cells = zip(one.fixed, one.betting, one.unpaired, strict=True)
        table.add_row(
            f"{one.canary} of {one.universe}",
            f"+{one.growth:.0%} ({one.stretch:.2f}x)" if one.growth else "as good",
            *("/".join(f"{share:.2f}" for share in cell) for cell in cells),
            str(one.median_bars or f">{BARS}"),
            f"{one.peeked_ever:.2f}",
            end_section=one is found[-1] or one.growth == GROWTHS[-1],
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    typer.run(main)
