"""Let an auditor read, verify, check and copy a ledger: `detent ledger ...`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from detent.contracts.calls.ledger import (
    ListDecisionsRequest,
    ReplayDecisionResponse,
    VerifyLedgerResponse,
)
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.reasons import Reason
from detent_cli import ledger_store
from detent_cli.asking import POLICY, Target, ask_policy
from detent_cli.instants import instant_ms, instant_text
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
PlanId = Annotated[str, typer.Option(help="Only this plan.")]
RecordHash = Annotated[str, typer.Argument(help="The record's hash, 64 or the first 16 hex.")]


@app.command("list")
def list_decisions(
    *,
    plan_id: PlanId = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    since: Annotated[
        str, typer.Option(help="Only bars that closed then or later; with its zone.")
    ] = "",
    until: Annotated[str, typer.Option(help="Only bars that closed before.")] = "",
    reason: Annotated[
        Reason | None,
        typer.Option(help="Only records that name this reason.", metavar="REASON"),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many records.", min=1, max=1000)] = 20,
    after: Annotated[str, typer.Option(help="Continue after this page token.")] = "",
    place: ledger_store.FromOptional = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """List records in the order in which they were written."""
    with reported(as_json=as_json):
        request = ListDecisionsRequest(
            plan_id=plan_id,
            symbol=symbol,
            page_size=limit,
            page_token=after,
            from_ts_ms=instant_ms("since", since) if since else None,
            until_ts_ms=instant_ms("until", until) if until else None,
            reason=reason,
        )
        if place is not None:
            records, token = ledger_store.listed(place, request)
        else:
            page = ask_policy(target, lambda client: client.list_decisions(request))
            records, token = page.records, page.next_page_token
    if as_json:
        shown = [to_json(record) | {"record_hash": record.record_hash} for record in records]
        print_json({"records": shown, "next_page_token": token})
        return
    print_rows(
        "Decisions (bars in UTC)",
        ("bar", "symbol", "answered by", "final", "record"),
        [_listed(record) for record in records],
        numbers=("final",),
        whole=("bar", "record"),
    )
    if token:
        console.print(f"more: --after {token}")


def _listed(record: DecisionRecord) -> tuple[object, ...]:
    return (
        instant_text(record.ts_ms).removesuffix(":00Z").replace("T", " "),
        record.row.symbol,
        record.signal.fallback_reason or record.signal.signal_source,
        weight_text(record.outcome.target_weight_final_ppm),
        record.record_hash[:16],
    )


@app.command()
def get(
    record_hash: RecordHash,
    *,
    place: ledger_store.FromOptional = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Show one record: what was asked, what answered, what was done, and why."""
    with reported(as_json=as_json):
        if place is not None:
            text = ledger_store.found(place, record_hash)
        else:
            text = ask_policy(
                target, lambda client: client.get_decision(record_hash)
            ).canonical_json
        fields = parse_json("record", text.encode())
        record = from_json(DecisionRecord, fields)
    if as_json:
        print_json(fields | {"record_hash": record.record_hash})
        return
    print_facts("Record", _facts(record))
    console.print_json(text)


def _facts(record: DecisionRecord) -> tuple[tuple[str, object], ...]:
    signal, outcome = record.signal, record.outcome
    answered = signal.signal_source.value
    if signal.fallback_reason is not None:
        answered = f"{answered}, because of {signal.fallback_reason}"
    return (
        ("record", record.record_hash),
        ("place", f"{record.plan_id}/{record.row.symbol}#{record.sequence}"),
        ("bar", f"{instant_text(record.ts_ms)} ({record.kind})"),
        ("trigger", record.row.trigger_state),
        ("answered by", answered),
        ("p̂ bps", f"{signal.p_hat_bps} (proxy {signal.proxy_p_hat_bps})"),
        ("strength bps", signal.signal_strength_bps),
        ("held", weight_text(record.row.position.current_weight_ppm)),
        ("wanted", weight_text(outcome.target_weight_raw_ppm)),
        ("final", f"{weight_text(outcome.target_weight_final_ppm)} ({outcome.order_style})"),
        ("reasons", "\n".join(outcome.reasons) or "none"),
    )


@app.command()
def verify(
    *,
    plan_id: PlanId = "",
    place: ledger_store.FromOptional = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(help="With --from: a file of anchors; once per ledger that is read."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="With --anchors: the public key that signed them, PEM.")
    ] = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Recompute every hash and link, hold them against the anchors; exit 1 on a break."""
    with reported(as_json=as_json):
        if place is None and (anchors or key is not None):
            expected = "a ledger beside --anchors and --key; a service has anchors of its own"
            raise InvalidField("--from", "(missing)", expected)
        later_count = None
        if place is not None:
            audited = ledger_store.verified(place, anchors or [], key, plan_id)
            found, later_count = audited.response, audited.later_count
        else:
            found = ask_policy(
                target, lambda client: client.verify_ledger(plan_id, deadline_s=VERIFY_DEADLINE_S)
            )
    if as_json:
        print_json(to_json(found) | {"unanchored_row_count": later_count})
    else:
        _print_verified(found, later_count)
    if found.breaks:
        raise typer.Exit(EXIT_NEGATIVE)


def _print_verified(found: VerifyLedgerResponse, later_count: int | None) -> None:
    """Print what was found; `later_count` is of the tables beside the records, where known."""
    facts: list[tuple[str, object]] = [
        ("records", found.record_count),
        ("chains", found.chain_count),
        ("anchors", found.anchor_count),
        ("not yet anchored", found.unanchored_count),
    ]
    if later_count is not None:
        facts.append(("other rows not yet anchored", later_count))
    verdict = good("whole") if not found.breaks else bad("BROKEN")
    print_facts("Ledger", (*facts, ("verdict", verdict)))
    for broken in found.breaks:
        place = f"{broken.plan_id}/{broken.symbol}#{broken.sequence}"
        console.print(bad(place if broken.plan_id else "anchors"), Text(broken.message))


@app.command()
def replay(
    record_hash: Annotated[
        str, typer.Argument(help="The record's hash, 64 or the first 16 hex.", show_default=False)
    ] = "",
    *,
    plan_id: Annotated[str, typer.Option(help="With --from, without a hash: this plan.")] = "",
    place: ledger_store.FromOptional = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Decide recorded bars again; exit 1 when the bytes differ.

    One bar, by its hash; with --from and without a hash, every bar of a plan or of all.
    """
    with reported(as_json=as_json):
        if not record_hash and place is None:
            raise InvalidField("record_hash", "(missing)", "a hash, or --from to replay all")
        if not record_hash and place is not None:
            is_same = ledger_store.print_replayed(place, plan_id, as_json=as_json)
        else:
            if place is not None:
                found = ledger_store.replayed(place, record_hash)
            else:
                found = ask_policy(target, lambda client: client.replay_decision(record_hash))
            is_same = _print_replay(found, as_json=as_json)
    if not is_same:
        raise typer.Exit(EXIT_NEGATIVE)


def _print_replay(found: ReplayDecisionResponse, *, as_json: bool) -> bool:
    same = found.replayed_json == found.recorded_json
    if as_json:
        print_json(to_json(found) | {"reproduced": same})
        return same
    verdict = good("the same bytes") if same else bad("OTHER BYTES")
    print_facts(
        "Replay",
        (
            ("recorded", found.record_hash),
            ("replayed", found.replayed_hash),
            ("verdict", verdict),
        ),
    )
    console.print_json(found.replayed_json)
    return same
