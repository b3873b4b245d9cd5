"""Bring the gates of promotion together, and decide."""

from msgspec import structs

from detent.core.evaluation.gates import (
    GateResult,
    Verdict,
    is_thin,
    learning_gate,
    origin_gates,
    sample_gates,
)
from detent.core.evaluation.measures import Measures
from detent.core.evaluation.profiles import PromotionProfile
from detent.core.evaluation.score_gates import score_gates
from detent.core.evaluation.service_gates import service_gates
from detent.core.evaluation.trading_gates import trading_gates


def judge(profile: PromotionProfile, measures: Measures) -> tuple[GateResult, ...]:
    """Judge what was measured; `is_promotable` says what follows.

    With too few rows, or data of too short a time, nothing of the scores and of trading is
    called bad: what did not pass is not known.
    """
    statistical = (
        *score_gates(profile, measures.calibration, measures.proxy, measures.champion),
        *trading_gates(profile, measures.trading),
    )
    if is_thin(profile, measures):
        statistical = tuple(_unknown(gate) for gate in statistical)
    return (
        *origin_gates(measures.origin),
        *sample_gates(profile, measures.sample),
        *statistical,
        *service_gates(profile, measures.service),
        learning_gate(measures.learning),
    )


def _unknown(gate: GateResult) -> GateResult:
    if gate.verdict is not Verdict.FAILED:
        return gate
    evidence = f"{gate.evidence}; too little to call it bad"
    return structs.replace(gate, verdict=Verdict.INSUFFICIENT, evidence=evidence)
