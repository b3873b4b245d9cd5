"""Proves the comparison of shadows: same bars, both probabilities, nothing passed over."""

from collections.abc import Mapping

import numpy as np
import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS

from detent.contracts.binding import SignalSource
from detent.contracts.decision import DecisionKind
from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout, RolloutArm
from detent.contracts.shadow import ShadowSignal
from detent.core.evaluation.joining import BarKey
from detent.core.evaluation.shadow_report import compare_shadows, key_of

CANDIDATE, STABLE = "c" * 64, "5" * 64
ROWS = 400


def signal_of(bar: int, *, symbol: str = "EURUSD", **changes: object) -> ShadowSignal:
    row = ShadowSignal(
        binding_hash=CANDIDATE,
        plan_id="plan",
        symbol=symbol,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=DecisionKind.BAR,
        record_hash="7" * 64,
        used_source=SignalSource.PROXY,
        used_p_hat_bps=5_000,
        used_reason=Reason.ACTIVE_DISABLED,
        model_id="candidate_v1.0.0",
        horizon_bars=1,
        features_hash="8" * 64,
        p_hat_raw_bps=6_000,
        p_hat_bps=6_000,
        reason=None,
        latency_us=bar,
    )
    return structs.replace(row, **changes)


def rows_of_two_arms() -> tuple[list[ShadowSignal], Mapping[BarKey, bool]]:
    """Give a rollout whose candidate knows what comes and whose stable model does not."""
    chance = np.random.default_rng(11)
    rows, labels = [], {}
    for bar in range(ROWS):
        for symbol, arm in (("EURUSD", RolloutArm.STABLE), ("GBPUSD", RolloutArm.CANDIDATE)):
            up = bool(chance.random() < 0.5)
            knows = 9_000 if up else 1_000
            used, shadow = (5_000, knows) if arm is RolloutArm.STABLE else (knows, 5_000)
            row = signal_of(
                bar,
                symbol=symbol,
                plan_id="plan" if arm is RolloutArm.STABLE else "plan:candidate",
                binding_hash=CANDIDATE if arm is RolloutArm.STABLE else STABLE,
                rollout=PlanRollout(rollout_id="r1", arm=arm, canary_bps=5_000, revision=1),
                used_p_hat_bps=used,
                used_source=SignalSource.MODEL,
                used_reason=None,
                p_hat_bps=shadow,
                p_hat_raw_bps=shadow,
            )
            rows.append(row)
            labels[key_of(row)] = up
    return rows, labels


@pytest.mark.proves("R115", "R121")
def test_what_is_counted_is_all_that_there_is() -> None:
    silent = signal_of(1, p_hat_bps=None, p_hat_raw_bps=None, reason=Reason.INFERENCE_DEADLINE)
    rows = [signal_of(0), silent, signal_of(2, p_hat_bps=4_000), signal_of(4)]
    labels = {key_of(rows[0]): True, key_of(rows[2]): False}
    decided = [("plan", "EURUSD", START_MS + bar * HOUR_MS) for bar in range(7)]
    (found,) = compare_shadows(rows, labels, decided).comparisons

    assert (found.row_count, found.answered_count) == (4, 3)
    # The bars before the first row and after the last say nothing: it may not have run.
    assert found.missing_count == 1
    assert found.unlabelled_count == 1
    assert found.reasons == {"INFERENCE_DEADLINE": 1}
    assert (found.used_model_count, found.distance_bps) == (0, 1_000)
    assert found.settled is not None
    assert found.settled.row_count == 2
    # (0.6 - 1)^2 and (0.4 - 0)^2, against a half on both.
    assert found.settled.shadow.brier == pytest.approx(0.16)
    assert found.settled.used.brier == pytest.approx(0.25)
    assert found.settled.difference.mean[-1] == pytest.approx(-0.09)


def test_nothing_settled_is_no_comparison() -> None:
    (found,) = compare_shadows([signal_of(0)], {}, []).comparisons

    assert found.settled is None
    assert found.unlabelled_count == 1


@pytest.mark.proves("R122")
def test_a_rollout_pairs_candidate_and_stable_over_both_arms() -> None:
    report = compare_shadows(*rows_of_two_arms(), [])
    (found,) = report.rollouts

    assert [(one.rollout_id, one.arm) for one in report.comparisons] == [
        ("r1", "candidate"),
        ("r1", "stable"),
    ]
    assert found.row_count == 2 * ROWS
    assert found.candidate.brier == pytest.approx(0.01)
    assert found.stable.brier == pytest.approx(0.25)
    assert found.difference.verdict == "better"
    assert {one.arm: one.brier for one in found.arms} == {
        "stable": pytest.approx(0.25),
        "candidate": pytest.approx(0.01),
    }


def test_the_arms_are_told_apart_by_what_decided() -> None:
    """The control: with the arms exchanged the same rows say the opposite."""
    rows, labels = rows_of_two_arms()
    stable, candidate = RolloutArm
    other = {stable: candidate, candidate: stable}
    exchanged = [
        structs.replace(one, rollout=structs.replace(one.rollout, arm=other[one.rollout.arm]))
        for one in rows
        if one.rollout is not None
    ]
    (found,) = compare_shadows(exchanged, labels, []).rollouts

    assert found.difference.verdict == "worse"
