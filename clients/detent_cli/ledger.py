"""Let an auditor read, verify, check and copy a ledger: `detent ledger ...`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import from_json, to_json
from detent_cli import ledger_store
from detent_cli.asking import ask_policy
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

VERIFY_DEADLINE_S = 600.0

app = typer.Typer(help="Read, verify and replay what was decided.", no_args_is_help=True)
app.command()(ledger_store.migrate)
app.command()(ledger_store.check)
app.command()(ledger_store.export)
app.command("anchor-key")(ledger_store.anchor_key)
Target = Annotated[str, typer.Option(help="Address of the policy service.")]


@app.command("list")
def list_decisions(
    *,
    plan_id: Annotated[str, typer.Option(help="Only this plan.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many records.", min=1, max=1000)] = 20,
    after: Annotated[str, typer.Option(help="Continue after this page token.")] = "",
    place: ledger_store.FromOptional = "",
    target: Target = "127.0.0.1:7303",
    as_json: JsonFlag = False,
) -> None:
    """List records in the order in which they were written."""
    request = ListDecisionsRequest(
        plan_id=plan_id, symbol=symbol, page_size=limit, page_token=after
    )
    with reported(as_json=as_json):
        if place:
            records, token = _read(place, request)
        else:
            page = ask_policy(target, lambda client: client.list_decisions(request))
            records, token = page.records, page.next_page_token
    if as_json:
        shown = [to_json(record) | {"record_hash": record.record_hash} for record in records]
        print_json({"records": shown, "next_page_token": token})
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
            for record in records
        ],
    )
    if token:
        console.print(f"more: --after {token}")


def _read(place: str, request: ListDecisionsRequest) -> tuple[tuple[DecisionRecord, ...], str]:
    """Read a page where the ledger lies, without asking any service."""
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415

    source, _, number = request.page_token.rpartition(".")
    rows = open_reader(place).list_records(request, source, int(number or 0))
    records = tuple(
        from_json(DecisionRecord, parse_json("record", canonical.encode())) for _, canonical in rows
    )
    return records, rows[-1][0] if len(rows) == request.page_size else ""


@app.command()
def verify(
    *,
    plan_id: Annotated[str, typer.Option(help="Only this plan.")] = "",
    place: ledger_store.FromOptional = "",
    anchors: Annotated[
        list[Path] | None,
        typer.Option(help="With --from: a file of anchors; once per ledger that is read."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="With --anchors: the public key that signed them, PEM.")
    ] = None,
    target: Target = "127.0.0.1:7303",
    as_json: JsonFlag = False,
) -> None:
    """Recompute every hash and link, hold them against the anchors; exit 1 on a break."""
    with reported(as_json=as_json):
        if place:
            found = ledger_store.verified(place, anchors or [], key, plan_id)
        else:
            found = ask_policy(
                target, lambda client: client.verify_ledger(plan_id, deadline_s=VERIFY_DEADLINE_S)
            )
    if as_json:
        print_json(to_json(found))
    else:
        verdict = good("whole") if not found.breaks else bad("BROKEN")
        facts = (
            ("records", found.record_count),
            ("chains", found.chain_count),
            ("anchors", found.anchor_count),
            ("not yet anchored", found.unanchored_count),
        )
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
        found = ask_policy(target, lambda client: client.replay_decision(record_hash))
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
