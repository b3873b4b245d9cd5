"""Compare what models said unused with what was used, on the same bars, once these are settled.

Bars without a shadow answer are counted and not passed over: a shadow that is silent when it
matters has said something too.

Source: seed 003, sections 12.5.4 and 12.12; rows R115, R121 and R122.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from detent.contracts.binding import SignalSource
from detent.contracts.rollout import RolloutArm
from detent.contracts.shadow import ShadowSignal
from detent.contracts.units import BPS_ONE
from detent.core.evaluation.joining import BarKey
from detent.core.evaluation.paired_difference import PairedDifference, paired_difference
from detent.core.evaluation.reliability import (
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)
from detent.core.evaluation.scores import Floats, Labels, accuracy, brier_score

_HALF_BPS = BPS_ONE // 2


class SideScores(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how good one of two probabilities was on the settled bars of both.

    Attributes:
        brier: Brier score.
        ece: ECE, as `reliability.ece_name` defines it.
        accuracy: Share on the right side of one half.
        bins: The bins behind the ECE.
    """

    brier: float
    ece: float
    accuracy: float
    bins: tuple[ReliabilityBin, ...]


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what is known once outcomes are.

    Attributes:
        row_count: Bars with both probabilities and an outcome.
        shadow: Scores of what was not used.
        used: Scores of what was.
        difference: Brier score of the first less that of the second, bar by bar.
    """

    row_count: int
    shadow: SideScores
    used: SideScores
    difference: PairedDifference


class ShadowComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Compares one shadow binding with what decided beside it.

    Attributes:
        binding_hash: Who was asked.
        model_id: Its model; None for the proxy.
        rollout_id: The rollout; empty for plans of none.
        arm: Which side of it decided; empty for plans of none.
        first_ts_ms: Close of the first bar with a row.
        last_ts_ms: Close of the last.
        row_count: Bars with a row.
        missing_count: Bars between first and last that were decided and have no row.
        answered_count: Rows with a probability.
        unlabelled_count: Answered rows whose outcome is not known.
        reasons: Why there was no answer, and how often.
        used_model_count: Rows where a model decided; the proxy did on the others.
        same_side_bps: Share of answered rows on which both are on the same side of one half.
        distance_bps: Mean distance of the two probabilities.
        latency_us_p50: Median time of asking.
        latency_us_p99: What one asking of a hundred exceeds.
        settled: The comparison with outcomes; None while there is none.
    """

    binding_hash: str
    model_id: str | None
    rollout_id: str
    arm: str
    first_ts_ms: int
    last_ts_ms: int
    row_count: int
    missing_count: int
    answered_count: int
    unlabelled_count: int
    reasons: dict[str, int]
    used_model_count: int
    same_side_bps: int | None
    distance_bps: int | None
    latency_us_p50: int
    latency_us_p99: int
    settled: Settled | None


class ArmScores(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how good the decisions of one arm were, on its own symbols.

    Attributes:
        arm: Which.
        row_count: Its settled bars.
        brier: Brier score of what was used.
        accuracy: Share on the right side of one half.
    """

    arm: str
    row_count: int
    brier: float
    accuracy: float


class RolloutComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Compares candidate and stable of one rollout over all bars that both answered.

    Attributes:
        rollout_id: The rollout.
        row_count: Settled bars on which both have a probability, whichever of them decided.
        candidate: Scores of the candidate.
        stable: Scores of the stable model.
        difference: Brier score of the candidate less that of the stable model.
        arms: What each arm decided with; other symbols, so no pair.
    """

    rollout_id: str
    row_count: int
    candidate: SideScores
    stable: SideScores
    difference: PairedDifference
    arms: tuple[ArmScores, ...]


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one comparison per shadow binding and arm, and one per rollout."""

    comparisons: tuple[ShadowComparison, ...]
    rollouts: tuple[RolloutComparison, ...]


def compare_shadows(
    signals: Sequence[ShadowSignal],
    labels: Mapping[BarKey, bool],
    decided: Iterable[BarKey],
) -> ShadowReport:
    """Compare.

    Args:
        signals: Rows of `shadow_signals`, in any order.
        labels: Whether a bar went up, for those that are settled.
        decided: Every regular bar that was decided by the plans of these rows.
    """
    decided_by_plan: dict[str, list[BarKey]] = defaultdict(list)
    for key in decided:
        decided_by_plan[key[0]].append(key)
    groups: dict[tuple[str, str, str], list[ShadowSignal]] = defaultdict(list)
    for one in sorted(signals, key=lambda one: (one.ts_ms, one.plan_id, one.symbol)):
        rollout_id = one.rollout.rollout_id if one.rollout is not None else ""
        arm = one.rollout.arm.value if one.rollout is not None else ""
        groups[rollout_id, arm, one.binding_hash].append(one)
    comparisons = [
        _comparison(rollout_id, arm, rows, labels, decided_by_plan)
        for (rollout_id, arm, _), rows in sorted(groups.items(), key=lambda item: item[0])
    ]
    rollouts = []
    for name in sorted({key[0] for key in groups} - {""}):
        rows = [one for key, found in groups.items() if key[0] == name for one in found]
        compared = _rollout(name, rows, labels)
        if compared is not None:
            rollouts.append(compared)
    return ShadowReport(comparisons=tuple(comparisons), rollouts=tuple(rollouts))


def key_of(signal: ShadowSignal) -> BarKey:
    """Give what an outcome finds a row by."""
    return (signal.plan_id, signal.symbol, signal.ts_ms)


def _comparison(
    rollout_id: str,
    arm: str,
    rows: Sequence[ShadowSignal],
    labels: Mapping[BarKey, bool],
    decided: Mapping[str, Sequence[BarKey]],
) -> ShadowComparison:
    answered = [one for one in rows if one.p_hat_bps is not None]
    labelled = [one for one in answered if key_of(one) in labels]
    reasons = Counter(one.reason.value for one in rows if one.reason is not None)
    latency = np.array([one.latency_us for one in rows])
    same_side = distance = None
    if answered:
        both = np.array([(one.p_hat_bps, one.used_p_hat_bps) for one in answered])
        sides = np.sign(both - _HALF_BPS)
        same_side = round(BPS_ONE * float(np.mean(sides[:, 0] == sides[:, 1])))
        distance = round(float(np.mean(np.abs(both[:, 0] - both[:, 1]))))
    return ShadowComparison(
        binding_hash=rows[0].binding_hash,
        model_id=rows[0].model_id,
        rollout_id=rollout_id,
        arm=arm,
        first_ts_ms=rows[0].ts_ms,
        last_ts_ms=rows[-1].ts_ms,
        row_count=len(rows),
        missing_count=_missing(rows, decided),
        answered_count=len(answered),
        unlabelled_count=len(answered) - len(labelled),
        reasons=dict(sorted(reasons.items())),
        used_model_count=sum(one.used_source is SignalSource.MODEL for one in rows),
        same_side_bps=same_side,
        distance_bps=distance,
        latency_us_p50=int(np.percentile(latency, 50)),
        latency_us_p99=int(np.percentile(latency, 99)),
        settled=_settled(labelled, labels) if labelled else None,
    )


def _missing(rows: Sequence[ShadowSignal], decided: Mapping[str, Sequence[BarKey]]) -> int:
    """Count the decided bars that lie among those of a plan with rows and have none."""
    by_plan: dict[str, list[BarKey]] = defaultdict(list)
    for one in rows:
        by_plan[one.plan_id].append(key_of(one))
    missing = 0
    for plan_id, keys in by_plan.items():
        first, last = keys[0][2], keys[-1][2]
        held = set(keys)
        missing += sum(
            first <= key[2] <= last and key not in held for key in decided.get(plan_id, ())
        )
    return missing


def _settled(rows: Sequence[ShadowSignal], labels: Mapping[BarKey, bool]) -> Settled:
    shadow, used = _probabilities(rows)
    up = np.array([labels[key_of(one)] for one in rows], dtype=np.bool_)
    return Settled(
        row_count=len(rows),
        shadow=_scores(shadow, up),
        used=_scores(used, up),
        difference=_difference(shadow, used, up, rows),
    )


def _rollout(
    name: str, rows: Sequence[ShadowSignal], labels: Mapping[BarKey, bool]
) -> RolloutComparison | None:
    """Compare over both arms: what was used on one side is what was not on the other."""
    settled = sorted(
        (one for one in rows if one.p_hat_bps is not None and key_of(one) in labels),
        key=lambda one: one.ts_ms,
    )
    if not settled:
        return None
    shadow, used = _probabilities(settled)
    up = np.array([labels[key_of(one)] for one in settled], dtype=np.bool_)
    arm = np.array([one.rollout.arm.value if one.rollout is not None else "" for one in settled])
    candidate = np.where(arm == RolloutArm.CANDIDATE.value, used, shadow)
    stable = np.where(arm == RolloutArm.CANDIDATE.value, shadow, used)
    return RolloutComparison(
        rollout_id=name,
        row_count=len(settled),
        candidate=_scores(candidate, up),
        stable=_scores(stable, up),
        difference=_difference(candidate, stable, up, settled),
        arms=tuple(
            ArmScores(
                arm=one,
                row_count=int(np.sum(arm == one)),
                brier=brier_score(used[arm == one], up[arm == one]),
                accuracy=accuracy(used[arm == one], up[arm == one]),
            )
            for one in (RolloutArm.STABLE.value, RolloutArm.CANDIDATE.value)
            if np.any(arm == one)
        ),
    )


def _probabilities(rows: Sequence[ShadowSignal]) -> tuple[Floats, Floats]:
    said = np.array([(one.p_hat_bps, one.used_p_hat_bps) for one in rows], dtype=np.float64)
    return said[:, 0] / BPS_ONE, said[:, 1] / BPS_ONE


def _scores(p: Floats, up: Labels) -> SideScores:
    bins = reliability_bins(p, up)
    return SideScores(
        brier=brier_score(p, up),
        ece=calibration_error(bins),
        accuracy=accuracy(p, up),
        bins=bins,
    )


def _difference(
    first: Floats, second: Floats, up: Labels, rows: Sequence[ShadowSignal]
) -> PairedDifference:
    return paired_difference(
        first,
        second,
        up,
        np.array([one.ts_ms for one in rows], dtype=np.int64),
        # The proxy has no horizon: what it is compared with has one.
        horizon_bars=max(1, *(one.horizon_bars for one in rows)),
    )
