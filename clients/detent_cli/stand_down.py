"""Keep symbols flat for a while, or let them go again: `detent stand-down`."""

from typing import Annotated

import typer

from detent.contracts.calls.policy import SetStandDownRequest
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.plan import StandDown, StandDownSource
from detent_cli.asking import POLICY, Target, ask_policy
from detent_cli.instants import instant_ms
from detent_cli.output import JsonFlag, print_facts, print_json, reported


def stand_down(
    book: Annotated[str, typer.Argument(help="The book.")],
    *,
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="A symbol of it; may be repeated. None means the whole book."),
    ] = None,
    until: Annotated[
        str, typer.Option(help="First instant that is free again, with its zone.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, in a few words.")] = "",
    source: Annotated[
        StandDownSource, typer.Option(help="Who asks; only the same source can lift it.")
    ] = StandDownSource.OPS,
    lift: Annotated[bool, typer.Option("--lift", help="End what this source asked for.")] = False,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Flatten a book, or some of its symbols, and keep it flat until an instant.

    It holds for every plan of the book, now and later, and survives a restart of the service.
    """
    with reported(as_json=as_json):
        request = _request(
            book, tuple(symbol or ()), until=until, reason=reason, source=source, lift=lift
        )
        answer = ask_policy(target, lambda client: client.set_stand_down(request))
    if as_json:
        print_json(to_json(answer))
        return
    scope = ", ".join(symbol or ()) or "the whole book"
    facts = (("scope", scope), ("changed", answer.changed_count), ("known", answer.known_count))
    print_facts(f"{'Lifted' if lift else 'Stand-down'}: {book}", facts)


def _request(
    book: str,
    symbols: tuple[str, ...],
    *,
    until: str,
    reason: str,
    source: StandDownSource,
    lift: bool,
) -> SetStandDownRequest:
    """Build the request; raises `InvalidField` when it says too much or too little."""
    if lift:
        for name, said in (("until", until), ("reason", reason)):
            if said:
                raise InvalidField(name, said, "nothing beside --lift")
        return SetStandDownRequest(book=book, symbols=symbols, lift=source)
    stand_down = StandDown(until_ts_ms=instant_ms("until", until), reason=reason, source=source)
    return SetStandDownRequest(book=book, symbols=symbols, stand_down=stand_down)
