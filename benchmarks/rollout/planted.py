"""Plant bad and good candidates under the judge itself: `python -m benchmarks.rollout.planted`.

Every run goes bar by bar through `core/rollout/judge.py`, the code that the monitor runs.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rollout.candidates import BAD, BAR_MS, Kind, bars_of, draw_run
from detent.core.rollout.judge import Judge, JudgeRules
from detent.core.rollout.paired_rows import PairedBar
from detent.core.rollout.tripwires import RollbackRule

SCHEMA = "detent.benchmark.rollout_planted.v1"
# What is promised: with so many symbols, within so many bars.
SYMBOLS, BARS = 20, 2_016
GOOD_SHARE_MAX = 0.05
SEED = 20_260_301


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of one planted candidate.

    Attributes:
        kind: What it was.
        rule: What took it back; None where nothing did.
        bar: On which bar, from 1 on; None where on none.
    """

    kind: Kind
    rule: RollbackRule | None
    bar: int | None


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the runs of one kind.

    Attributes:
        kind: What was planted.
        runs: How many times.
        stopped: How many were taken back.
        rules: By which rules, and how often each.
        median_bar: Median bar of those; None where none was.
        last_bar: The latest; None where none was.
    """

    kind: Kind
    runs: int
    stopped: int
    rules: dict[RollbackRule, int]
    median_bar: int | None
    last_bar: int | None


def judge_run(bars: Iterable[PairedBar], rules: JudgeRules) -> tuple[RollbackRule, int] | None:
    """Let the judge see bars as a monitor does; gives what told, and on which bar from 1 on.

    An outcome is known with the next bar.
    """
    judge = Judge.start(rules, horizon_bars=1)
    before: PairedBar | None = None
    for number, bar in enumerate(bars, start=1):
        judge = judge.after(bar)
        if before is not None:
            judge = judge.settled(before)
        before = bar
        if judge.told is not None:
            return judge.told.rule, number
    return None


def plant(
    kinds: Iterable[Kind],
    *,
    symbols: int = SYMBOLS,
    bars: int = BARS,
    seed: int = SEED,
    rules: JudgeRules | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Stopped]:
    """Plant one candidate of each kind named, as often as it is named."""
    found = []
    for number, kind in enumerate(kinds):
        chance = np.random.default_rng((seed, symbols, list(Kind).index(kind), number))
        run = draw_run(kind, symbols, bars, chance)
        told = judge_run(bars_of(run), rules or JudgeRules())
        rule, bar = told if told is not None else (None, None)
        found.append(Stopped(kind=kind, rule=rule, bar=bar))
        advance()
    return found


def counted(found: Iterable[Stopped]) -> list[Planted]:
    """Count what became of every kind, in the order of the kinds."""
    held = list(found)
    counts = []
    for kind in Kind:
        runs = [one for one in held if one.kind is kind]
        bars = [one.bar for one in runs if one.bar is not None]
        told = [one.rule for one in runs if one.rule is not None]
        if runs:
            counts.append(
                Planted(
                    kind=kind,
                    runs=len(runs),
                    stopped=len(bars),
                    rules={rule: told.count(rule) for rule in RollbackRule if rule in told},
                    median_bar=int(np.median(bars)) if bars else None,
                    last_bar=max(bars, default=None),
                )
            )
    return counts


def main(
    *,
    symbols: Annotated[int, typer.Option(help="Symbols of the canary.", min=1)] = SYMBOLS,
    bad: Annotated[int, typer.Option(help="Bad candidates, all kinds together.", min=5)] = 50,
    good: Annotated[int, typer.Option(help="Good candidates.", min=1)] = 300,
    bars: Annotated[int, typer.Option(help="Bars of each rollout.", min=96)] = BARS,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = SEED,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything counted to this file.")
    ] = None,
) -> None:
    """Count how many bad candidates are taken back, and how many good ones."""
    kinds = [BAD[place % len(BAD)] for place in range(bad)] + [Kind.GOOD] * good
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rollouts", total=len(kinds))
        found = plant(
            kinds, symbols=symbols, bars=bars, seed=seed, advance=lambda: progress.advance(task)
        )
    planted = counted(found)
    _show(planted, symbols=symbols, bars=bars)
    if json_file is not None:
        facts = {"schema": SCHEMA, "symbols": symbols, "bars": bars, "seed": seed}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        results = {"planted": [msgspec.to_builtins(one) for one in planted]}
        json_file.write_text(json.dumps(facts | results, indent=2) + "\n", encoding="utf-8")
    if symbols >= SYMBOLS and bars >= BARS and not _holds(planted):
        raise typer.Exit(1)


def _holds(planted: list[Planted]) -> bool:
    """Say whether every bad candidate was taken back in time, and few good ones at all."""
    return all(
        one.stopped <= GOOD_SHARE_MAX * one.runs
        if one.kind is Kind.GOOD
        else one.stopped == one.runs and one.last_bar is not None and one.last_bar <= BARS
        for one in planted
    )


def _show(planted: list[Planted], *, symbols: int, bars: int) -> None:
    promises = symbols >= SYMBOLS and bars >= BARS
    heading = "what is promised" if promises else "power only: too small to promise anything"
    days = bars * BAR_MS / 86_400_000
    table = Table(
        title=f"{symbols} symbols, {bars} bars of 15 minutes ({days:.0f} days): {heading}",
        title_justify="left",
    )
    for name in ("candidate", "taken back", "share", "median bar", "latest", "by"):
        table.add_column(name)
    for one in planted:
        rules = ", ".join(f"{rule.value} {count}" for rule, count in one.rules.items())
        table.add_row(
            one.kind.value,
            f"{one.stopped} of {one.runs}",
            f"{one.stopped / one.runs:.1%}",
            str(one.median_bar or "-"),
            str(one.last_bar or "-"),
            rules or "-",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
