"""Let an auditor read, verify and replay: `detent ledger list|verify|replay`."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.json_codec import to_json
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    good,
    print_facts,
    print_json,
    print_rows,
    reported,
    weight_text,
)
from detent_client import ClientOptions, DetentClient

T = TypeVar("T")
VERIFY_DEADLINE_S = 600.0

app = typer.Typer(help="Read, verify and replay what was decided.", no_args_is_help=True)
Target = Annotated[str, typer.Option(help="Address of the policy service.")]


@app.command("list")
def list_decisions(
    *,
    plan_id: Annotated[str, typer.Option(help="Only this plan.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many records.", min=1, max=1000)] = 20,
    after: Annotated[str, typer.Option(help="Continue after this page token.")] = "",
    target: Target = "127.0.0.1:7303",
    as_json: JsonFlag = False,
) -> None:
    """List records in the order in which they were written."""
    request = ListDecisionsRequest(
        plan_id=plan_id, symbol=symbol, page_size=limit, page_token=after
    )
    with reported(as_json=as_json):
        page = _ask(target, lambda client: client.list_decisions(request))
    if as_json:
        records = [to_json(record) | {"record_hash": record.record_hash} for record in page.records]
        print_json({"records": records, "next_page_token": page.next_page_token})
        return
    print_rows(
        "Decisions",
        ("bar", "symbol", "trigger", "source", "p̂ bps", "final", "order", "reasons", "record"),
        [
            (
                record.ts_ms,
                record.row.symbol,
                record.row.trigger_state,
                record.signal.fallback_reason or record.signal.signal_source,
                record.signal.p_hat_bps,
                weight_text(record.outcome.target_weight_final_ppm),
                record.outcome.order_style,
                " ".join(record.outcome.reasons),
                record.record_hash[:16],
            )
            for record in page.records
        ],
    )
    if page.next_page_token:
        console.print(f"more: --after {page.next_page_token}")


@app.command()
def verify(
    *,
    plan_id: Annotated[str, typer.Option(help="Only this plan.")] = "",
    target: Target = "127.0.0.1:7303",
    as_json: JsonFlag = False,
) -> None:
    """Recompute every hash and link; exit 1 when a chain does not hold."""
    with reported(as_json=as_json):
        found = _ask(
            target, lambda client: client.verify_ledger(plan_id, deadline_s=VERIFY_DEADLINE_S)
        )
    if as_json:
        print_json(to_json(found))
    else:
        verdict = good("whole") if not found.breaks else bad("BROKEN")
        facts = (("records", found.record_count), ("chains", found.chain_count))
        print_facts("Ledger", (*facts, ("verdict", verdict)))
        for broken in found.breaks:
            place = f"{broken.plan_id}/{broken.symbol}#{broken.sequence}"
            console.print(bad(place), Text(broken.message))
    if found.breaks:
        raise typer.Exit(EXIT_NEGATIVE)


@app.command()
def replay(
    record_hash: Annotated[str, typer.Argument(help="The record's hash, 64 hex.")],
    *,
    target: Target = "127.0.0.1:7303",
    as_json: JsonFlag = False,
) -> None:
    """Decide one recorded bar again; exit 1 when the bytes differ."""
    with reported(as_json=as_json):
        found = _ask(target, lambda client: client.replay_decision(record_hash))
    same = found.replayed_json == found.recorded_json
    if as_json:
        print_json(to_json(found) | {"reproduced": same})
    else:
        verdict = good("the same bytes") if same else bad("OTHER BYTES")
        print_facts(
            "Replay",
            (
                ("recorded", found.record_hash),
                ("replayed", found.replayed_hash),
                ("verdict", verdict),
            ),
        )
        console.print_json(json.dumps(json.loads(found.replayed_json)))
    if not same:
        raise typer.Exit(EXIT_NEGATIVE)


def _ask(target: str, question: Callable[[DetentClient], Awaitable[T]]) -> T:
    async def asked() -> T:
        with tempfile.TemporaryDirectory() as folder:
            options = ClientOptions(
                journal_file=Path(folder) / "journal.jsonl", policy_target=target, deadline_s=10.0
            )
            async with DetentClient(options) as client:
                return await question(client)

    return asyncio.run(asked())
