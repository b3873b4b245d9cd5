"""Judge a candidate: every gate with its number, its bound and its verdict.

Refusal is the default. A gate passes only on what was measured, all gates have to pass, and no
gates at all pass nothing. A verdict tells what is bad from what is not known: a difference whose
own value is good but whose bound is not, and whatever a sample too small would have failed, is
insufficient evidence, and a refusal all the same.

Source: decision D17; QUANT C5; seed 000, section 7; rows R128 to R135, R140, R164, R170, R354.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from detent.contracts.calibration import CalibrationMethod
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.measures import (
    LearningMeasures,
    Measures,
    OriginMeasures,
    SampleMeasures,
)
from detent.core.evaluation.profiles import PromotionProfile
from detent.core.rollout.gates import ACTIVE_ACK

NOT_MEASURED = "not measured"


class Verdict(StrEnum):
    """Says what a gate found."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT = "insufficient_evidence"


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Says what one gate found.

    Attributes:
        name: The gate.
        number: What was measured, with its unit; None where nothing was.
        bound: What it had to be.
        verdict: What follows.
        evidence: What the number is of.
    """

    name: str
    number: str | None
    bound: str
    verdict: Verdict
    evidence: str


def is_promotable(gates: Iterable[GateResult]) -> bool:
    """Say whether there are gates and all of them passed."""
    verdicts = [gate.verdict for gate in gates]
    return bool(verdicts) and all(verdict is Verdict.PASSED for verdict in verdicts)


def not_passed(gates: Iterable[GateResult]) -> tuple[GateResult, ...]:
    """List the gates that did not pass."""
    return tuple(gate for gate in gates if gate.verdict is not Verdict.PASSED)


def unmeasured(name: str, bound: str, evidence: str) -> GateResult:
    """Give the result of a gate that has nothing to judge."""
    return GateResult(
        name=name,
        number=None,
        bound=bound,
        verdict=Verdict.INSUFFICIENT,
        evidence=f"{evidence}: {NOT_MEASURED}",
    )


def choice(name: str, number: str, bound: str, evidence: str, *, passes: bool) -> GateResult:
    """Give the result of a gate that is met or not."""
    verdict = Verdict.PASSED if passes else Verdict.FAILED
    return GateResult(name=name, number=number, bound=bound, verdict=verdict, evidence=evidence)


def approval_gate(ack: str) -> GateResult:
    """Judge that a person acknowledged what follows, to the letter."""
    number = "typed" if ack == ACTIVE_ACK else "(missing)"
    evidence = "what a person acknowledged"
    return choice("human_approval", number, ACTIVE_ACK, evidence, passes=ack == ACTIVE_ACK)


def origin_gates(origin: OriginMeasures) -> tuple[GateResult, ...]:
    """Judge whether it is known what the candidate is and what it was made from."""
    return (
        _artifact_gate(origin),
        _dataset_gate(origin),
        _provenance_gate(origin),
        _calibration_gate(origin),
        _backtest_gate(origin),
    )


def _artifact_gate(origin: OriginMeasures) -> GateResult:
    bound, evidence = "the run's", "manifest hash of the artifact"
    if origin.run_version_hash is None:
        return unmeasured("artifact", bound, evidence)
    is_same = origin.run_version_hash == origin.model_version_hash
    found = origin.model_version_hash[:16]
    return choice("artifact", found, f"{origin.run_version_hash[:16]}", evidence, passes=is_same)


def _dataset_gate(origin: OriginMeasures) -> GateResult:
    """Judge that artifact, run and a verified data set name the same data (R336).

    A data set may be named by its id or by its hash; the run has to give the hash, because
    another data set can be given the same name.
    """
    named = (origin.artifact_dataset_id, origin.run_dataset_id)
    bound = "one in the artifact, its run and on disk"
    if origin.dataset_finding:
        return choice("dataset", origin.dataset_finding, bound, "data set", passes=False)
    run_hash = origin.run_dataset_hash or origin.run_dataset_id
    if origin.dataset_id is None or origin.dataset_hash is None or None in named:
        return unmeasured("dataset", bound, "data set")
    is_one = set(named) <= {origin.dataset_id, origin.dataset_hash}
    is_one = is_one and run_hash == origin.dataset_hash
    found = ", ".join(dict.fromkeys(str(name)[:16] for name in (*named, origin.dataset_id)))
    return choice("dataset", found, bound, f"data set {origin.dataset_hash}", passes=is_one)


def _provenance_gate(origin: OriginMeasures) -> GateResult:
    if origin.git_sha is None:
        return unmeasured("provenance", "a commit", "commit that built the artifact")
    return choice("provenance", origin.git_sha[:16], "a commit", "commit", passes=True)


def _calibration_gate(origin: OriginMeasures) -> GateResult:
    """Judge that it is calibrated; by nothing only where nothing won (D17, R140)."""
    method, evidence = origin.calibration_method, "calibration method"
    bound = "a calibrator, or identity as the recorded winner"
    if method is None:
        return choice("calibrated", "(missing)", bound, evidence, passes=False)
    is_identity = method is CalibrationMethod.IDENTITY
    passes = not is_identity or origin.calibration_winner is CalibrationMethod.IDENTITY
    return choice("calibrated", method.value, bound, evidence, passes=passes)


def _backtest_gate(origin: OriginMeasures) -> GateResult:
    bound, evidence = "this artifact, and the proxy", "what was bound in the back-tests"
    if origin.backtest_finding is None:
        return unmeasured("backtests", bound, evidence)
    found = origin.backtest_finding or bound
    return choice("backtests", found, bound, evidence, passes=not origin.backtest_finding)


def sample_gates(
    profile: PromotionProfile, sample: SampleMeasures | None
) -> tuple[GateResult, ...]:
    """Judge whether there is enough to judge by; too little is never called bad."""
    days = 86_400_000
    asked = (
        ("data_span", "data_span_ms", profile.data_span_ms_min, "days predicted out of fold"),
        ("row_count", "row_count", profile.row_count_min, "rows out of fold"),
        ("rarer_count", "rarer_count", profile.rarer_count_min, "rows of the rarer class"),
    )
    results = []
    for name, field, least, evidence in asked:
        scale = days if field == "data_span_ms" else 1
        bound = f">= {least / scale:g}"
        if sample is None:
            results.append(unmeasured(name, bound, evidence))
            continue
        value = getattr(sample, field)
        verdict = Verdict.PASSED if value >= least else Verdict.INSUFFICIENT
        number = f"{value / scale:.1f}" if scale == days else str(value)
        results.append(
            GateResult(name=name, number=number, bound=bound, verdict=verdict, evidence=evidence)
        )
    return tuple(results)


def learning_gate(learning: LearningMeasures | None) -> GateResult:
    """Judge that no trade of the model lost its tags (R130)."""
    bound, evidence = "0", "fills whose tags and book contradict each other"
    if learning is None or learning.fill_count == 0:
        return unmeasured("learning_isolation", bound, evidence)
    passes = learning.untagged_count == 0
    of = f"{evidence}, of {learning.fill_count}"
    return choice("learning_isolation", str(learning.untagged_count), bound, of, passes=passes)


def is_thin(profile: PromotionProfile, measures: Measures) -> bool:
    """Say whether there is too little to call anything bad."""
    return bool(not_passed(sample_gates(profile, measures.sample)))


def percent(value_ppm: int) -> str:
    """Write parts per million as a percentage."""
    return f"{value_ppm / PPM_ONE:.4%}"
