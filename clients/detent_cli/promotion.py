"""Evaluate an artifact and promote it: `detent evaluate`, `detent promote`."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from detent.contracts.json_codec import to_json
from detent.core.evaluation.evaluation_report import MAX_AGE_S
from detent.core.evaluation.gates import is_promotable, not_passed
from detent.core.rollout.gates import ACTIVE_ACK
from detent_cli.acting import Actor, Reason
from detent_cli.gate_tables import judged, print_gates
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    good,
    print_json,
    reported,
)

MAX_AGE = "DETENT_EVIDENCE_MAX_AGE_S"
KEPT_IN = "DETENT_EVIDENCE_DIR"
SOURCE = "cli"
Registry = Annotated[
    str, typer.Option("--registry", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
]


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="The artifact's directory.")],
    *,
    out: Annotated[Path, typer.Option(help="The report, JSON; its SHA-256 is put beside it.")],
    backtest: Annotated[
        Path | None, typer.Option(help="Folder of the candidate's back-test.")
    ] = None,
    proxy_backtest: Annotated[
        Path | None, typer.Option(help="Folder of the proxy's, over the same bars.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    fills: Annotated[
        list[Path] | None,
        typer.Option(help="Fills beside those of the back-test, .jsonl or .parquet."),
    ] = None,
    champion: Annotated[
        Path | None, typer.Option(help="Artifact in production, its run beside it.")
    ] = None,
    ledger: Annotated[
        list[str] | None,
        typer.Option(help="Where its shadow is: a ledger file, or postgresql://."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default ARTIFACT.run.")
    ] = None,
    profile: Annotated[str, typer.Option(help="standard or seed.")] = "standard",
    page: Annotated[Path | None, typer.Option(help="A page with pictures, HTML.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a candidate against the proxy and the model in production, and judge it.

    Exit 0: every gate passes. Exit 1: one does not. Exit 2: evidence cannot be read.
    """
    from detent.core.evaluation.evaluation_report import report_bytes  # noqa: PLC0415
    from detent.core.evaluation.profiles import profile_named  # noqa: PLC0415
    from detent.offline.promotion.evaluating import (  # noqa: PLC0415
        EvidencePaths,
        evaluate_artifact,
    )
    from detent.offline.promotion.evidence_file import write_evidence  # noqa: PLC0415

    with reported(as_json=as_json):
        paths = EvidencePaths(
            artifact=artifact,
            run=run,
            dataset=dataset,
            model_backtest=backtest,
            proxy_backtest=proxy_backtest,
            fills=tuple(fills or ()),
            champion=champion,
            ledgers=tuple(ledger or ()),
        )
        found = evaluate_artifact(paths, profile_named(profile), at_ms=_now_ms())
        digest = write_evidence(out, report_bytes(found.report))
        if page is not None:
            from detent_cli.evaluation_page import write_page  # noqa: PLC0415

            write_page(page, found)
    gates = found.report.gates
    if as_json:
        print_json(judged(gates, verdict="promotable") | {"report": str(out), "sha256": digest})
    else:
        print_gates(f"{artifact.name}, profile {profile}", gates)
        console.print(good("promotable") if is_promotable(gates) else bad("not promotable"))
        console.print("report", Text(str(out)), soft_wrap=True)
    if not is_promotable(gates):
        raise typer.Exit(EXIT_NEGATIVE)


def promote(
    model: Annotated[str, typer.Argument(help="Registry id, or model id.")],
    *,
    registry: Registry,
    to: Annotated[str, typer.Option(help="production.")],
    report: Annotated[Path, typer.Option(help="Report of `detent evaluate`.")],
    actor: Actor,
    reason: Reason,
    dataset: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    readiness: Annotated[Path | None, typer.Option(help="Report of `detent ready`.")] = None,
    profile: Annotated[str, typer.Option(help="Bounds to be held to.")] = "standard",
    ack: Annotated[str, typer.Option(help=f"A person types {ACTIVE_ACK}.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Promote a staged model to production, if every gate passes.

    Exit 0: promoted. Exit 1: refused, with the gates. Exit 2: it could not be judged.
    """
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
    from detent.adapters.model_registry import Act, ModelRegistry  # noqa: PLC0415
    from detent.contracts.errors import InvalidField, RegistryConflict  # noqa: PLC0415
    from detent.offline.promotion.promoting import (  # noqa: PLC0415
        PromotionRequest,
    )
    from detent.offline.promotion.promoting import promote as judge_promotion  # noqa: PLC0415

    kept_in = os.environ.get(KEPT_IN)
    with reported(as_json=as_json, negative=lambda one: isinstance(one, RegistryConflict)):
        if to != "production":
            raise InvalidField("--to", to, "production")
        found = judge_promotion(
            ModelRegistry(ControlDatabase(registry, must_exist=True)),
            PromotionRequest(
                key=model,
                report=report,
                dataset=dataset,
                readiness=readiness,
                profile=profile,
                ack=ack,
                max_age_s=os.environ.get(MAX_AGE, str(MAX_AGE_S)),
            ),
            Act(actor=actor, source=SOURCE, at_ms=_now_ms(), reason=reason),
            evidence_folder=Path(kept_in) if kept_in else None,
        )
    pointer = found.model.pointer
    if as_json:
        facts = {"promoted": found.is_promoted, "pointer": to_json(pointer)}
        print_json(judged(found.gates, verdict="promotable") | facts)
    elif found.is_promoted:
        console.print(good("in production"), pointer.registry_id)
    else:
        failing = not_passed(found.gates)
        print_gates(f"Refused: {len(failing)} of {len(found.gates)} gates", failing)
    if not found.is_promoted:
        raise typer.Exit(EXIT_NEGATIVE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
