"""Judge whether the next phase may begin: policy after correctness, models after policy.

Nothing is asked of a person and nothing is switched by a flag: every gate judges what a ledger
holds or what two back-tests came to. What was never seen to work is insufficient evidence, and a
refusal like any other.

Source: seed 002, "Stop/Go Gates"; seeds 000 and 001, "Prerequisites"; rows R236, R237 and R238.
"""

from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT64_MAX, PPM_ONE
from detent.core.evaluation.gates import (
    GateResult,
    Verdict,
    choice,
    learning_gate,
    percent,
    unmeasured,
)
from detent.core.evaluation.measures import LearningMeasures

RATIO_PPM_MAX = 1_000_000_000


class Phase(StrEnum):
    """Names what may begin when its gates pass."""

    POLICY = "policy"
    MODELS = "models"


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a number may be, as a part of the baseline's; both ends are good.

    Attributes:
        low_ppm: Parts per million of the baseline's, from here.
        high_ppm: Up to here.
    """

    low_ppm: int
    high_ppm: int

    def __post_init__(self) -> None:
        """Refuse a band without an inside."""
        check_int("low_ppm", self.low_ppm, 0, RATIO_PPM_MAX)
        check_int("high_ppm", self.high_ppm, 0, RATIO_PPM_MAX)
        if self.low_ppm > self.high_ppm:
            raise InvalidField("low_ppm", self.low_ppm, f"at most high_ppm {self.high_ppm}")


class ReadinessBands(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the bands of the gate to models.

    Attributes:
        turnover: Two-way turnover of a day.
        trade_count: Fills.
        drawdown: Deepest drawdown.
    """

    SCHEMA: ClassVar[str] = "detent.readiness_bands.v1"

    turnover: Band
    trade_count: Band
    drawdown: Band


class EmergencyMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of the emergency exits that a ledger holds.

    Attributes:
        executed_count: Those that were executed.
        vetoed_count: Those that the same-bar or the min-hold guard held back.
        wrong_count: Records that do not say what became of one, executed ones whose weight is
            not 0 under the first tier, and any without a recommended cooldown.
        replayed_otherwise_count: Records that are not decided the same again.
    """

    executed_count: int
    vetoed_count: int
    wrong_count: int
    replayed_otherwise_count: int

    def __post_init__(self) -> None:
        """Refuse counts of nothing."""
        _check_counts(self)


class PersistenceMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says whether a ledger has what makes its runs valid.

    Attributes:
        closed_count: Plans that were closed, whose summary is due.
        invalid_count: Plans without one of `plan_log`, `bar_decisions` and, when closed,
            `results_summary`.
        hole_count: Stretches of bars without a record.
        record_count: Records.
        broken_count: Breaks of the hash chains.
    """

    closed_count: int
    invalid_count: int
    hole_count: int
    record_count: int
    broken_count: int

    def __post_init__(self) -> None:
        """Refuse counts of nothing."""
        _check_counts(self)


class GuardMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the guard against replans without a change did.

    Attributes:
        replaced_count: Plans that were replaced.
        suppressed_count: Replans that would have changed nothing, and were not made.
        unchanged_count: Plans that were replaced by one that says the same.
    """

    replaced_count: int
    suppressed_count: int
    unchanged_count: int

    def __post_init__(self) -> None:
        """Refuse counts of nothing."""
        _check_counts(self)


class ActivityMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says how much one back-test did.

    Attributes:
        turnover_ppm: Two-way turnover of a day.
        trade_count: Fills.
        drawdown_ppm: Deepest drawdown, at least 0.
    """

    turnover_ppm: int
    trade_count: int
    drawdown_ppm: int

    def __post_init__(self) -> None:
        """Refuse counts of nothing."""
        _check_counts(self)


class PolicyMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Compares the policy engine with what is known to be acceptable.

    Attributes:
        policy: The policy's back-test.
        baseline: The baseline's.
        finding: Why the two say nothing of each other; empty where nothing was found.
    """

    policy: ActivityMeasures
    baseline: ActivityMeasures
    finding: str


class ReadinessMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Gathers what the gates judge; None is what nobody measured."""

    emergency: EmergencyMeasures | None = None
    persistence: PersistenceMeasures | None = None
    guard: GuardMeasures | None = None
    policy: PolicyMeasures | None = None
    learning: LearningMeasures | None = None


def readiness_gates(
    phase: Phase, measures: ReadinessMeasures, bands: ReadinessBands | None
) -> tuple[GateResult, ...]:
    """Judge whether a phase may begin; a later one needs what an earlier one needs.

    Args:
        phase: What should begin.
        measures: What was measured.
        bands: What the gate to models allows; None allows nothing.
    """
    before = (
        *_emergency_gates(measures.emergency),
        *_persistence_gates(measures.persistence),
        _guard_gate(measures.guard),
    )
    if phase is Phase.POLICY:
        return before
    return (
        *before,
        *_policy_gates(measures.policy, bands),
        learning_gate(measures.learning),
    )


def _emergency_gates(found: EmergencyMeasures | None) -> tuple[GateResult, ...]:
    """Judge that emergency exits are correct, guarded and auditable (R236)."""
    correct = ("emergency_exits", "all at weight 0, at least 1", "emergency exits executed")
    guarded = ("emergency_guards", "at least 1", "emergency exits that a guard held back")
    audited = ("emergency_audit", "0", "emergency records that a replay decides otherwise")
    if found is None:
        return tuple(unmeasured(*gate) for gate in (correct, guarded, audited))
    seen = found.executed_count + found.vetoed_count + found.wrong_count
    wrong = f"{found.wrong_count} wrong of {seen}"
    return (
        _seen(*correct, number=wrong, count=found.executed_count, fails=found.wrong_count > 0),
        _seen(*guarded, number=str(found.vetoed_count), count=found.vetoed_count, fails=False),
        _seen(
            *audited,
            number=str(found.replayed_otherwise_count),
            count=seen,
            fails=found.replayed_otherwise_count > 0,
        ),
    )


def _persistence_gates(found: PersistenceMeasures | None) -> tuple[GateResult, ...]:
    """Judge that nothing of a run is missing, and that what is there holds (R236)."""
    runs = ("persistence", "every run whole, at least 1 closed", "plans, decisions and summaries")
    bars = ("bar_records", "0", "stretches of bars without a record")
    chains = ("ledger_chains", "0", "breaks of the hash chains")
    if found is None:
        return tuple(unmeasured(*gate) for gate in (runs, bars, chains))
    return (
        _seen(
            *runs,
            number=f"{found.invalid_count} not whole, {found.closed_count} closed",
            count=found.closed_count,
            fails=found.invalid_count > 0,
        ),
        _seen(
            *bars,
            number=str(found.hole_count),
            count=found.record_count,
            fails=found.hole_count > 0,
        ),
        _seen(
            *chains,
            number=str(found.broken_count),
            count=found.record_count,
            fails=found.broken_count > 0,
        ),
    )


def _guard_gate(found: GuardMeasures | None) -> GateResult:
    """Judge that the guard was seen to suppress, and that nothing went past it (R236)."""
    name, bound = "replan_guard", "0 unchanged, at least 1 suppressed"
    if found is None:
        return unmeasured(name, bound, "replans")
    number = f"{found.unchanged_count} unchanged, {found.suppressed_count} suppressed"
    evidence = f"replans, {found.replaced_count} made"
    return _seen(
        name,
        bound,
        evidence,
        number=number,
        count=found.suppressed_count,
        fails=found.unchanged_count > 0,
    )


def _policy_gates(
    found: PolicyMeasures | None, bands: ReadinessBands | None
) -> tuple[GateResult, ...]:
    """Judge that the policy engine does about what the baseline did (R237)."""
    asked = (
        ("policy_turnover", "turnover", "turnover_ppm", "turnover of a day"),
        ("policy_trade_count", "trade_count", "trade_count", "fills"),
        ("policy_drawdown", "drawdown", "drawdown_ppm", "deepest drawdown"),
    )
    runs = ("policy_runs", "two runs that can be compared", "back-tests of policy and baseline")
    if found is None:
        return (
            unmeasured(*runs),
            *(unmeasured(name, "within its band", of) for name, _, _, of in asked),
        )
    compared = choice(runs[0], found.finding or runs[1], *runs[1:], passes=not found.finding)
    results = [compared]
    for name, band_name, field, of in asked:
        evidence = f"{of} over the baseline's"
        if bands is None:
            results.append(unmeasured(name, "within its band", f"{evidence}, no bands"))
            continue
        mine, theirs = getattr(found.policy, field), getattr(found.baseline, field)
        results.append(_band_gate(name, getattr(bands, band_name), evidence, mine, theirs))
    return tuple(results)


def _band_gate(name: str, band: Band, evidence: str, mine: int, theirs: int) -> GateResult:
    """Judge a number by its part of the baseline's, multiplied out so that 0 has no ratio."""
    bound = f"{percent(band.low_ppm)} to {percent(band.high_ppm)}"
    if theirs == 0:
        if mine == 0:
            return unmeasured(name, bound, f"{evidence}: neither has any")
        return choice(name, f"{mine} over none", bound, evidence, passes=False)
    inside = band.low_ppm * theirs <= mine * PPM_ONE <= band.high_ppm * theirs
    ratio = percent(mine * PPM_ONE // theirs)
    return choice(name, ratio, bound, f"{evidence}, {mine} over {theirs}", passes=inside)


def _seen(
    name: str, bound: str, evidence: str, *, number: str, count: int, fails: bool
) -> GateResult:
    """Give a gate that needs something to have been seen, and nothing to be wrong."""
    verdict = Verdict.PASSED if count > 0 else Verdict.INSUFFICIENT
    if fails:
        verdict = Verdict.FAILED
    return GateResult(name=name, number=number, bound=bound, verdict=verdict, evidence=evidence)


def _check_counts(value: msgspec.Struct) -> None:
    for name in value.__struct_fields__:
        check_int(name, getattr(value, name), 0, INT64_MAX)
