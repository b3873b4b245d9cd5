"""The gates to policy and to models: each fails alone, at its bound, and for want of evidence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.evaluation.promotion_cases import bands, blocking, good_readiness

from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import InvalidField
from detent.core.evaluation.gates import GateResult, Verdict, is_promotable
from detent.core.evaluation.readiness import (
    ActivityMeasures,
    Band,
    Phase,
    PolicyMeasures,
    ReadinessBands,
    ReadinessMeasures,
    readiness_gates,
)
from detent.core.evaluation.readiness_report import (
    ReadinessReport,
    prerequisite_gates,
    readiness_bytes,
    readiness_report,
)

NOW_MS = 1_700_000_000_000
DAY_S = 86_400


def gates_of(part: str = "", **changes: Any) -> tuple[GateResult, ...]:
    measures = good_readiness()
    if part:
        value = structs.replace(getattr(measures, part), **changes)
        measures = structs.replace(measures, **{part: value})
    return readiness_gates(Phase.MODELS, measures, bands())


@pytest.mark.proves("R236")
@pytest.mark.parametrize(
    ("part", "changes", "expected"),
    [
        ("emergency", {}, {}),
        ("emergency", {"executed_count": 0}, {"emergency_exits": "insufficient_evidence"}),
        ("emergency", {"wrong_count": 1}, {"emergency_exits": "failed"}),
        ("emergency", {"vetoed_count": 0}, {"emergency_guards": "insufficient_evidence"}),
        ("emergency", {"replayed_otherwise_count": 1}, {"emergency_audit": "failed"}),
        ("persistence", {"closed_count": 0}, {"persistence": "insufficient_evidence"}),
        ("persistence", {"invalid_count": 1}, {"persistence": "failed"}),
        ("persistence", {"hole_count": 1}, {"bar_records": "failed"}),
        ("persistence", {"broken_count": 1}, {"ledger_chains": "failed"}),
        ("guard", {"suppressed_count": 0}, {"replan_guard": "insufficient_evidence"}),
        ("guard", {"unchanged_count": 1}, {"replan_guard": "failed"}),
        ("learning", {"fill_count": 0}, {"learning_isolation": "insufficient_evidence"}),
        ("learning", {"untagged_count": 1}, {"learning_isolation": "failed"}),
        ("policy", {"finding": "other fee_bps"}, {"policy_runs": "failed"}),
    ],
)
def test_each_gate_fails_alone(
    part: str, changes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert blocking(gates_of(part, **changes)) == expected


@pytest.mark.proves("R236", "R237", "R238")
def test_what_nobody_measured_passes_nothing() -> None:
    for phase in Phase:
        gates = readiness_gates(phase, ReadinessMeasures(), None)

        assert {gate.verdict for gate in gates} == {Verdict.INSUFFICIENT}
    unbounded = readiness_gates(Phase.MODELS, good_readiness(), None)
    assert set(blocking(unbounded)) == {"policy_turnover", "policy_trade_count", "policy_drawdown"}


@pytest.mark.proves("R237")
@pytest.mark.parametrize(
    ("mine", "theirs", "passes"),
    [
        pytest.param(500, 1_000, True, id="low-end"),
        pytest.param(499, 1_000, False, id="below"),
        pytest.param(1_500, 1_000, True, id="high-end"),
        pytest.param(1_501, 1_000, False, id="above"),
        pytest.param(1, 0, False, id="over-none"),
        pytest.param(0, 0, False, id="neither"),
        pytest.param(0, 1_000, False, id="none"),
    ],
)
@pytest.mark.parametrize("field", ["turnover_ppm", "trade_count", "drawdown_ppm"])
def test_both_ends_of_a_band_are_good_and_nothing_beyond(
    field: str, mine: int, theirs: int, *, passes: bool
) -> None:
    good = good_readiness().policy
    assert good is not None
    gates = gates_of(
        "policy",
        policy=structs.replace(good.policy, **{field: mine}),
        baseline=structs.replace(good.baseline, **{field: theirs}),
    )
    name = f"policy_{field.removesuffix('_ppm')}"

    assert set(blocking(gates)) == (set() if passes else {name})


counts = st.integers(0, 2**40)


@pytest.mark.proves("R237")
@given(mine=counts, theirs=counts, low=st.integers(0, 10**6), high=st.integers(0, 10**9))
def test_a_band_is_what_exact_fractions_say(mine: int, theirs: int, low: int, high: int) -> None:
    low, high = sorted((low, high))
    band = Band(low_ppm=low, high_ppm=high)
    found = PolicyMeasures(
        policy=ActivityMeasures(turnover_ppm=mine, trade_count=1, drawdown_ppm=1),
        baseline=ActivityMeasures(turnover_ppm=theirs, trade_count=1, drawdown_ppm=1),
        finding="",
    )
    wide = ReadinessBands(turnover=band, trade_count=band, drawdown=band)
    gates = readiness_gates(Phase.MODELS, structs.replace(good_readiness(), policy=found), wide)
    (gate,) = [one for one in gates if one.name == "policy_turnover"]
    inside = theirs > 0 and low * theirs <= mine * 1_000_000 <= high * theirs

    assert (gate.verdict is Verdict.PASSED) is inside


def test_a_band_without_an_inside_is_refused() -> None:
    with pytest.raises(InvalidField, match="low_ppm"):
        Band(low_ppm=2, high_ppm=1)


def report(measures: ReadinessMeasures | None = None) -> bytes:
    found = measures or good_readiness()
    return readiness_bytes(readiness_report(found, bands(), at_ms=NOW_MS))


def judged(text: bytes | None, *, later_s: int = 0, said: str | None = "") -> tuple[Any, ...]:
    digest = sha256_hex(text) if said == "" and text is not None else said
    return prerequisite_gates(
        text, sha256=digest, now_ms=NOW_MS + later_s * 1_000, max_age_s=str(DAY_S)
    )


@pytest.mark.proves("R238")
def test_prerequisites_hold_by_a_whole_and_fresh_report() -> None:
    gates = judged(report(), later_s=DAY_S)

    assert is_promotable(gates)
    assert [gate.name for gate in gates][:2] == ["readiness", "readiness.emergency_exits"]


@pytest.mark.proves("R238")
def test_prerequisites_refuse_by_name() -> None:
    """No report, an old, early, changed or unknown one, and one that lists what fails."""
    edited = json.loads(report())
    edited["gates"][0]["verdict"] = "failed"
    text = json.dumps(edited).encode()
    spoilt = structs.replace(good_readiness(), learning=None)

    assert blocking(judged(None)) == {"readiness": "insufficient_evidence"}
    assert judged(report(), later_s=DAY_S + 1)[0].number == "timestamp_too_old"
    assert judged(report(), later_s=-301)[0].number == "timestamp_future"
    assert judged(report(), said="0" * 64)[0].number == "sha256_mismatch"
    assert judged(text)[0].number == "out_of_range"
    assert judged(b'{"schema":"detent.evaluation_report.v1"}')[0].number == "schema_unsupported"
    assert set(blocking(judged(report(spoilt)))) == {"readiness.learning_isolation"}


def test_a_report_of_other_verdicts_cannot_be_built() -> None:
    whole = readiness_report(good_readiness(), bands(), at_ms=NOW_MS)
    with pytest.raises(InvalidField, match="gates"):
        ReadinessReport(judged_at_ms=NOW_MS, bands=None, measures=whole.measures, gates=whole.gates)
