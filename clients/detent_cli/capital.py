"""Say whether a book has earned more capital, or list what fails: `detent capital`."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from detent.contracts.canonical import JsonValue
from detent.contracts.checks import check_name, check_text
from detent.contracts.json_codec import to_json
from detent.core.evaluation.gates import approval_gate, is_promotable
from detent.core.rollout.gates import ACTIVE_ACK
from detent_cli.acting import Actor, Reason
from detent_cli.gate_tables import judged, print_gates
from detent_cli.output import EXIT_NEGATIVE, JsonFlag, bad, console, good, print_json, reported
from detent_cli.promotion import KEPT_IN

EVIDENCE_SCHEMA = "detent.capital_evidence.v1"


def capital(
    *,
    ledger: Annotated[
        str, typer.Option(help="postgresql://, or the policy service's ledger file.")
    ],
    baseline: Annotated[
        Path, typer.Option(help="Folder of a back-test of what was expected of the book.")
    ],
    actor: Actor,
    reason: Reason,
    ack: Annotated[str, typer.Option(help=f"A person types {ACTIVE_ACK}.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Judge the closed trade sets of a ledger's profit books, and list what keeps capital small.

    Exit 0: every gate passes. Exit 1: one does not. Exit 2: something cannot be read.
    """
    # Needs the packages of a server, which a bare client has not.
    from detent.core.evaluation.capital import capital_gates  # noqa: PLC0415
    from detent.core.evaluation.evaluation_report import evidence_bytes  # noqa: PLC0415
    from detent.core.evaluation.profiles import STANDARD  # noqa: PLC0415
    from detent.offline.promotion.capital_ledger import measure_capital_of  # noqa: PLC0415
    from detent.offline.promotion.evidence_file import write_evidence  # noqa: PLC0415

    kept_in, at_ms = os.environ.get(KEPT_IN), time.time_ns() // 1_000_000
    with reported(as_json=as_json):
        check_name("actor", actor)
        check_text("reason", reason)
        found = measure_capital_of(ledger, baseline)
        gates = capital_gates(STANDARD, found, resolved="closed trade sets")
        gates = (*gates, approval_gate(ack))
        verdict = "earned" if is_promotable(gates) else "refused"
        if kept_in:
            fields: dict[str, JsonValue] = {
                "schema": EVIDENCE_SCHEMA,
                "at_ms": at_ms,
                "actor": actor,
                "reason": reason,
                "verdict": verdict,
                "measures": to_json(found),
                "gates": [to_json(gate) for gate in gates],
            }
            path = Path(kept_in) / f"{at_ms}_{verdict}_capital.json"
            write_evidence(path, evidence_bytes(fields))
    if as_json:
        print_json(judged(gates, verdict="earned"))
    else:
        print_gates("More capital", gates)
        console.print(good("earned") if is_promotable(gates) else bad("not earned"))
    if not is_promotable(gates):
        raise typer.Exit(EXIT_NEGATIVE)
