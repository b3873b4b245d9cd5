"""Print results for a person or for a program, and errors for both."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from detent.contracts.errors import (
    ArtifactInvalid,
    ControlUnavailable,
    DataInvalid,
    DetentError,
    ModelNotRegistered,
    RegistryConflict,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]

# What never travels and so has no reason of the wire.
_LOCAL_REASONS: dict[type[DetentError], str] = {
    DataInvalid: "DATA_INVALID",
    ControlUnavailable: "CONTROL_UNAVAILABLE",
    ModelNotRegistered: "MODEL_NOT_REGISTERED",
    RegistryConflict: "REGISTRY_CONFLICT",
}
Stages = Callable[[str, int, int], None]
EXIT_NEGATIVE = 1
EXIT_ERROR = 2

console = Console()
errors = Console(stderr=True)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


def print_facts(title: str, facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values as a table of two columns."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _cell(value))
    console.print(table)


def print_sheet(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values without lines between; a hash fits beside a name of 14 at 80."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _cell(value))
    console.print(table)


def print_rows(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """Print rows under named columns; `numbers` stand to the right, `whole` is never folded."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(
            column,
            overflow="fold",
            justify="right" if column in numbers else "left",
            no_wrap=column in whole,
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


@contextlib.contextmanager
def progress_bar() -> Iterator[Stages]:
    """Show how far the stages of some work are, and give what is told of them."""
    with Progress(console=errors, transient=True) as bar:
        yield stages_of(bar)


def stages_of(bar: Progress, *, prefix: str = "") -> Stages:
    """Give what is told of (stage, done, in all) and shows each stage as a task of a bar."""
    tasks: dict[str, TaskID] = {}

    def told(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(f"{prefix}{stage}", total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return told


@contextlib.contextmanager
def reported(
    *, as_json: bool, negative: Callable[[DetentError], bool] = lambda _: False
) -> Iterator[None]:
    """Print a refusal as what it is and end with code 2; other errors pass.

    A file or folder that the system refuses, wherever a command meets it, is one that a person
    named: it is reported like what our own code refuses.

    Args:
        as_json: Whether a program reads it.
        negative: Says which refusals are the answer to what was asked, and end with code 1.
    """
    try:
        yield
    except DetentError as error:
        _print_refusal(error, as_json=as_json)
        raise typer.Exit(EXIT_NEGATIVE if negative(error) else EXIT_ERROR) from error
    except OSError as error:
        if error.filename is None:
            raise
        _print_refusal(_refused_path(error), as_json=as_json)
        raise typer.Exit(EXIT_ERROR) from error


def _print_refusal(error: DetentError, *, as_json: bool) -> None:
    if as_json:
        facts = {"reason": reason_of(error), "message": error.message}
        print_json({"error": facts | {"metadata": error.metadata}})
    else:
        errors.print(bad(reason_of(error)), Text(error.message))


def _refused_path(error: OSError) -> DataInvalid:
    file, found = str(error.filename), error.strerror or type(error).__name__
    expected = "a path that can be read and written"
    message = f"{file}: found {found}, expected {expected}"
    return DataInvalid(message, file=file, found=found, expected=expected)


def reason_of(error: DetentError) -> str:
    """Name what went wrong; some errors never travel and have no reason of the wire."""
    if isinstance(error, ArtifactInvalid):
        return error.gate_reason.value
    return _LOCAL_REASONS.get(type(error), error.reason.value)


def good(text: str) -> Text:
    """Mark what is as it should be."""
    return Text(text, style="bold green")


def bad(text: str) -> Text:
    """Mark what is not as it should be."""
    return Text(text, style="bold red")


def _cell(value: object) -> Text:
    # Values are never markup: a label definition may well hold brackets.
    return value if isinstance(value, Text) else Text(str(value))


def weight_text(weight_ppm: int) -> str:
    """Write a weight as a percentage of equity."""
    return f"{weight_ppm / 10_000:+.4f} %"


def money_text(amount: Decimal) -> str:
    """Write an amount to the cent, with its sign; what is less than half a cent is nothing."""
    text = f"{amount:+,.2f}"
    return text if text.strip("+-0.,") else "0.00"
