"""Work on a ledger where it lies, without any service: read, verify, replay, check, copy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from detent.contracts.calls.ledger import (
    ListDecisionsRequest,
    ReplayDecisionResponse,
)
from detent.contracts.canonical import parse_json
from detent.contracts.checks import check_hash_shown
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent_cli.instants import instant_text
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    errors,
    good,
    print_facts,
    print_json,
    print_rows,
    reported,
)

if TYPE_CHECKING:
    from detent.adapters.ledger_auditing import Audit

HOLES_SHOWN_MAX = 20
_HELP = "A ledger file, or postgresql://user@host/database."
From = Annotated[str, typer.Option("--from", help=_HELP)]
# An empty one, of a variable that is not set, is a place that is none and asks no service.
FromOptional = Annotated[
    str | None, typer.Option("--from", help=f"{_HELP} Without it the service is asked.")
]


def listed(place: str, request: ListDecisionsRequest) -> tuple[tuple[DecisionRecord, ...], str]:
    """Read a page, and what continues it.

    Raises:
        InvalidField: The page token is none.
        LedgerUnavailable: The ledger cannot be read.
    """
    from detent.adapters.ledger_reading import open_reader, token_of  # noqa: PLC0415

    rows = open_reader(place).list_records(request, *token_of(request.page_token))
    records = tuple(
        from_json(DecisionRecord, parse_json("record", canonical.encode())) for _, canonical in rows
    )
    return records, rows[-1][0] if len(rows) == request.page_size else ""


def found(place: str, record_hash: str) -> str:
    """Read the canonical text of one record; raises as the reader does."""
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415
    from detent.adapters.ledger_replaying import find_record  # noqa: PLC0415

    check_hash_shown("record_hash", record_hash)
    return find_record([open_reader(place)], record_hash).canonical.decode("ascii")


def replayed(place: str, record_hash: str) -> ReplayDecisionResponse:
    """Decide one record again; raises as the reader does."""
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415
    from detent.adapters.ledger_replaying import replay_one  # noqa: PLC0415

    check_hash_shown("record_hash", record_hash)
    return replay_one([open_reader(place)], record_hash)


def print_replayed(place: str, plan_id: str, *, as_json: bool) -> bool:
    """Decide every record of a plan, or of all, again; say whether the bytes are the same."""
    from detent.adapters.cpu_quota import cpu_count  # noqa: PLC0415
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415
    from detent.adapters.ledger_replaying import replay_all  # noqa: PLC0415

    with errors.status("replaying", spinner="dots"):
        answer = replay_all(open_reader(place), plan_id, workers=cpu_count())
    same = answer.difference_count == 0
    if as_json:
        print_json(to_json(answer) | {"reproduced": same})
        return same
    facts = (
        ("records", answer.record_count),
        ("differing", answer.difference_count),
        ("verdict", good("the same bytes") if same else bad("OTHER BYTES")),
    )
    print_facts("Replay", facts)
    for one in answer.differences:
        console.print(bad(f"{one.plan_id}/{one.symbol}#{one.sequence}"), Text(one.message))
    return same


def verified(place: str, anchor_files: list[Path], key_file: Path | None, plan_id: str) -> "Audit":
    """Verify a ledger against files of anchors.

    Raises:
        InvalidField: There are anchors without a key, a key without them, or it is no key.
        LedgerUnavailable: The ledger or a file of anchors cannot be read.
    """
    from detent.adapters.cpu_quota import cpu_count  # noqa: PLC0415
    from detent.adapters.ledger_anchors import (  # noqa: PLC0415
        AnchorFile,
        AnchorKey,
        trusted_anchors,
    )
    from detent.adapters.ledger_auditing import audit  # noqa: PLC0415
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415

    anchored = []
    if key_file is not None and not anchor_files:
        raise InvalidField("--anchors", "(missing)", "a file of anchors that --key has signed")
    if anchor_files:
        if key_file is None:
            raise InvalidField("--key", "(missing)", "the public key that signed the anchors")
        key = AnchorKey.read(key_file)
        anchored = [trusted_anchors(AnchorFile(path).read(), key) for path in anchor_files]
    return audit(open_reader(place), anchored, plan_id, workers=cpu_count())


def migrate(
    *,
    to: Annotated[str, typer.Option(help="postgresql://owner@host/database.")],
    as_json: JsonFlag = False,
) -> None:
    """Bring a PostgreSQL database to today's form, and make the role that may only add."""
    from detent.adapters.ledger_migrating import migrate_postgresql  # noqa: PLC0415

    with reported(as_json=as_json):
        step = migrate_postgresql(to)
    if as_json:
        print_json({"step": step})
    else:
        console.print(f"at step {step}; grant detent_writer to the user that policy connects as")


def check(
    *,
    place: From,
    bars: Annotated[
        Path | None,
        typer.Option(help="The bars that there were; without it, one in every interval."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find bars without a record and runs that are not valid; exit 1 when there are any."""
    from detent.adapters.ledger_checking import check_completeness  # noqa: PLC0415
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415

    with reported(as_json=as_json):
        calendars = calendars_of(bars) if bars is not None else None
        found = check_completeness(open_reader(place), calendars)
    invalid = [run for run in found.runs if not run.is_valid]
    if as_json:
        print_json(to_json(found) | {"complete": found.is_complete})
    else:
        facts = (
            ("runs", len(found.runs)),
            ("invalid runs", len(invalid)),
            ("bars with a record", found.bar_count),
            ("bars without one", found.missing_count),
            ("holes", found.hole_count),
            ("verdict", good("complete") if found.is_complete else bad("INCOMPLETE")),
        )
        print_facts("Ledger", facts)
        for run in invalid:
            if run.missing:
                console.print(bad(run.plan_id), f"has no {', '.join(run.missing)}")
            if run.lost_count:
                than = "fewer" if run.lost_count > 0 else "more"
                found_text = f"has {abs(run.lost_count):,} records {than} than its summary counts"
                console.print(bad(run.plan_id), found_text)
        holes = found.holes[:HOLES_SHOWN_MAX]
        if holes:
            rows = [
                (
                    hole.plan_id,
                    hole.symbol,
                    instant_text(hole.from_ts_ms),
                    instant_text(hole.until_ts_ms),
                    hole.bar_count,
                )
                for hole in holes
            ]
            title = f"Holes, {len(holes)} of {found.hole_count}"
            print_rows(title, ("plan", "symbol", "from", "until", "bars"), rows)
    if not found.is_complete:
        raise typer.Exit(EXIT_NEGATIVE)


def export(
    *,
    place: From,
    to: Annotated[Path, typer.Option(help="Folder for one Parquet file per table.")],
    as_json: JsonFlag = False,
) -> None:
    """Copy every table of a ledger to Parquet."""
    from detent.adapters.ledger_checking import export_parquet  # noqa: PLC0415
    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415

    with reported(as_json=as_json):
        counts = export_parquet(open_reader(place), to)
    if as_json:
        print_json({"rows": counts})
    else:
        print_rows("Exported", ("table", "rows"), list(counts.items()))


def anchor_key(
    *,
    to: Annotated[Path, typer.Option(help="The private key; the public one lies beside it.")],
) -> None:
    """Draw the key that signs anchors; only its owner may read it."""
    from detent.adapters.ledger_anchors import make_key  # noqa: PLC0415

    with reported(as_json=False):
        make_key(to)
    console.print(f"private key in {to}, public key in {to.with_suffix('.pub')}")


def calendars_of(bars: Path) -> dict[str, list[int]]:
    """Read when each symbol had a bar: close times, rising."""
    from detent.offline.bars import load_bars  # noqa: PLC0415

    table = load_bars(bars)
    return {symbol: [bar.ts_ms for bar in series] for symbol, series in table.bars.items()}
