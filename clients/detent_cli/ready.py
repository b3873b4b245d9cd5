"""Say whether the next phase may begin, or list what fails: `detent ready`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.core.evaluation.gates import GateResult, is_promotable
from detent.core.evaluation.readiness import Phase
from detent_cli.gate_tables import judged, print_gates
from detent_cli.output import EXIT_NEGATIVE, JsonFlag, bad, console, good, print_json, reported

if TYPE_CHECKING:
    from detent.core.evaluation.readiness import ReadinessMeasures

_LEDGER = "The policy's ledger: a file, or postgresql://user@host/database."


def ready(
    *,
    ledger: Annotated[str, typer.Option(help=_LEDGER)],
    phase: Annotated[Phase, typer.Option("--for", help="What should begin.")] = Phase.MODELS,
    bars: Annotated[
        Path | None,
        typer.Option(help="The bars that there were; without it, one in every interval."),
    ] = None,
    backtest: Annotated[
        Path | None, typer.Option(help="Folder of the policy's back-test, by the proxy.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of the back-test that it is held against.")
    ] = None,
    bands: Annotated[
        Path | None, typer.Option(help="What it may differ by, JSON; without it nothing passes.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A report for `detent promote --readiness`, its SHA-256 beside it."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a ledger and two back-tests, and list what keeps policy or models from beginning.

    Exit 0: every gate passes. Exit 1: one does not. Exit 2: something cannot be read.
    """
    # Needs the packages of a server, which a bare client has not.
    from detent.core.evaluation.readiness import readiness_gates  # noqa: PLC0415
    from detent.core.evaluation.readiness_report import (  # noqa: PLC0415
        readiness_bytes,
        readiness_report,
    )
    from detent.offline.promotion.evidence_file import write_evidence  # noqa: PLC0415
    from detent.offline.promotion.policy_phase import read_bands  # noqa: PLC0415

    facts = {}
    with reported(as_json=as_json):
        allowed = read_bands(bands) if bands is not None else None
        measures = _measured(ledger, bars, backtest, baseline)
        if out is not None:
            report = readiness_report(measures, allowed, at_ms=time.time_ns() // 1_000_000)
            facts = {"report": str(out), "sha256": write_evidence(out, readiness_bytes(report))}
    gates = readiness_gates(phase, measures, allowed)
    _say(phase, gates, facts, as_json=as_json)
    if not is_promotable(gates):
        raise typer.Exit(EXIT_NEGATIVE)


def _measured(
    ledger: str, bars: Path | None, backtest: Path | None, baseline: Path | None
) -> "ReadinessMeasures":
    from msgspec import structs  # noqa: PLC0415

    from detent.adapters.ledger_reading import open_reader  # noqa: PLC0415
    from detent.contracts.errors import InvalidField  # noqa: PLC0415
    from detent.offline.promotion.policy_phase import (  # noqa: PLC0415
        measure_ledger,
        measure_policy,
    )
    from detent_cli.ledger_store import calendars_of  # noqa: PLC0415

    if (backtest is None) != (baseline is None):
        raise InvalidField("--backtest and --baseline", "one of them", "both or none")
    calendars = calendars_of(bars) if bars is not None else None
    found = measure_ledger(open_reader(ledger), calendars=calendars)
    if backtest is None or baseline is None:
        return found
    return structs.replace(found, policy=measure_policy(backtest, baseline))


def _say(
    phase: Phase, gates: tuple[GateResult, ...], facts: dict[str, str], *, as_json: bool
) -> None:
    passes = is_promotable(gates)
    if as_json:
        print_json(judged(gates, verdict="ready") | {"for": phase.value} | facts)
        return
    print_gates(f"Before {phase.value}", gates)
    console.print(good("ready") if passes else bad("not ready"))
