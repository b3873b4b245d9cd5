"""Options of the commands by which somebody changes what may act, and says why."""

from typing import Annotated

import typer

from detent_cli.output import errors

Actor = Annotated[str, typer.Option(help="Who does it.")]
Reason = Annotated[str, typer.Option(help="Why, in a few words.")]
Control = Annotated[
    str | None,
    typer.Option(help="URL of the control database, used where no service answers."),
]


def say_direct(error: Exception) -> None:
    """Say that the control database is asked, because no service answered."""
    errors.print(f"no service answered ({error}); asking the control database itself")
