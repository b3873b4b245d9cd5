"""Promote a registered model, if the report holds and every gate passes."""

from pathlib import Path

import msgspec

from detent.adapters.model_registry import Act, ModelRegistry
from detent.contracts.canonical import JsonValue, sha256_hex
from detent.contracts.errors import ModelNotRegistered
from detent.contracts.json_codec import to_json
from detent.contracts.registered import RegisteredModel
from detent.core.evaluation.evaluation_report import (
    EvaluationReport,
    ReportCode,
    check_report,
    evidence_bytes,
)
from detent.core.evaluation.gates import (
    GateResult,
    approval_gate,
    choice,
    is_promotable,
    unmeasured,
)
from detent.core.evaluation.readiness_report import prerequisite_gates
from detent.offline.promotion.dataset_finding import find_dataset
from detent.offline.promotion.evidence_file import check_folder, read_evidence, write_evidence
from detent.offline.registry.artifact_url import read_artifact_at

EVIDENCE_SCHEMA = "detent.promotion_evidence.v1"


class PromotionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a promotion.

    Attributes:
        key: Registry id, or model id.
        report: The evaluation's report.
        dataset: Folder of the data set; None where it is not at hand, which refuses.
        readiness: Report of `detent ready`; None where it is not at hand, which refuses.
        profile: Name of the profile that production asks for.
        ack: What a person typed.
        max_age_s: Oldest age of a report, seconds, as the environment has it.
    """

    key: str
    report: Path
    dataset: Path | None
    readiness: Path | None
    profile: str
    ack: str
    max_age_s: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a promotion went.

    Attributes:
        model: The model, as it is now registered.
        gates: All gates; the model was promoted if and only if all passed.
        is_promoted: Whether it was.
        report_sha256: SHA-256 of the report.
    """

    model: RegisteredModel
    gates: tuple[GateResult, ...]
    is_promoted: bool
    report_sha256: str


def promote(
    registry: ModelRegistry,
    asked: PromotionRequest,
    act: Act,
    *,
    evidence_folder: Path | None = None,
) -> Promotion:
    """Judge a promotion, and carry it out if every gate passes.

    Args:
        registry: Where the model is registered.
        asked: What is asked.
        act: Who, when and why.
        evidence_folder: Where what was judged is kept; None keeps nothing and costs nothing.

    Raises:
        ModelNotRegistered: There is no such model.
        ArtifactInvalid: The artifact is not what was registered.
        DataInvalid: The report cannot be read, or the evidence cannot be kept; production is as
            it was.
        RegistryConflict: It is not staged, or another came to production meanwhile.
        InvalidField: It lacks what production needs.
    """
    model = registry.find(asked.key)
    digest = model.pointer.model_version_hash
    # (1) The bytes are those that were registered, now.
    read_artifact_at(model.pointer.artifact_url, model_version_hash=digest)
    # (2) The report is whole, of these bytes, and fresh.
    text, said = read_evidence(asked.report)
    checked = check_report(
        text,
        sha256=said,
        model_version_hash=digest,
        now_ms=act.at_ms,
        max_age_s=asked.max_age_s,
    )
    champion = _current(registry, model.pointer.model_name)
    gates = (
        choice(
            "report",
            checked.code.value,
            ReportCode.OK.value,
            checked.detail or "the report holds",
            passes=checked.code is ReportCode.OK,
        ),
        *_gates(checked.report, asked, champion),
        # (3) No model before policy and the isolation of learning books are in place.
        *_prerequisites(asked, now_ms=act.at_ms),
    )
    # (4) Production changes only if everything passed, and what it changed for can be kept.
    promoted = model
    if is_promotable(gates):
        if evidence_folder is not None:
            check_folder(evidence_folder)
        promoted = registry.promote(
            asked.key, act, champion=champion, evidence_sha256=sha256_hex(text)
        )
    result = Promotion(
        model=promoted,
        gates=gates,
        is_promoted=promoted is not model,
        report_sha256=sha256_hex(text),
    )
    if evidence_folder is not None:
        _keep(evidence_folder, result, act)
    return result


def _gates(
    report: EvaluationReport | None, asked: PromotionRequest, champion: str | None
) -> tuple[GateResult, ...]:
    if report is None:
        return (unmeasured("evidence", "a report that can be read", "gates of the evaluation"),)
    profile = choice(
        "profile",
        report.profile.name,
        asked.profile,
        "bounds that the report asked",
        passes=report.profile.name == asked.profile,
    )
    return (
        profile,
        *report.gates,
        _dataset(report, asked.dataset),
        _champion(report, champion),
        approval_gate(asked.ack),
    )


def _prerequisites(asked: PromotionRequest, *, now_ms: int) -> tuple[GateResult, ...]:
    text, said = (None, None) if asked.readiness is None else read_evidence(asked.readiness)
    return prerequisite_gates(text, sha256=said, now_ms=now_ms, max_age_s=asked.max_age_s)


def _dataset(report: EvaluationReport, folder: Path | None) -> GateResult:
    """Judge that the data set is there now, whole, and the one of the report (R336)."""
    bound, evidence = "the report's, verified now", "data set"
    found = find_dataset(folder)
    if found.finding:
        return choice("dataset_now", found.finding, bound, evidence, passes=False)
    if found.dataset_hash is None:
        return unmeasured("dataset_now", bound, evidence)
    passes = found.dataset_hash == report.measures.origin.dataset_hash
    return choice("dataset_now", found.dataset_hash[:16], bound, evidence, passes=passes)


def _champion(report: EvaluationReport, champion: str | None) -> GateResult:
    """Judge that the report compares with what is in production, if anything is."""
    compared = report.measures.champion
    found = None if compared is None else compared.baseline_version_hash
    return choice(
        "champion",
        (found or "nothing")[:16],
        (champion or "nothing")[:16],
        "model in production that the report compares with",
        passes=found == champion,
    )


def _current(registry: ModelRegistry, name: str) -> str | None:
    try:
        return registry.production(name).pointer.model_version_hash
    except ModelNotRegistered:
        return None


def _keep(folder: Path, result: Promotion, act: Act) -> None:
    verdict = "promoted" if result.is_promoted else "refused"
    name = f"{act.at_ms}_{verdict}_{result.model.pointer.model_id}.json"
    fields: dict[str, JsonValue] = {
        "schema": EVIDENCE_SCHEMA,
        "at_ms": act.at_ms,
        "actor": act.actor,
        "reason": act.reason,
        "verdict": verdict,
        "report_sha256": result.report_sha256,
        "pointer": to_json(result.model.pointer),
        "gates": [to_json(gate) for gate in result.gates],
    }
    write_evidence(folder / name, evidence_bytes(fields))
