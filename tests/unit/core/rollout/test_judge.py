"""The judge of a rollout: tripwires and their bounds, the test, what it waits for, restarts."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.rollout import RolloutArm
from detent.core.rollout.confidence_sequence import bernstein_bounds
from detent.core.rollout.judge import (
    HoldCause,
    Judge,
    JudgeRules,
    Verdict,
    VerdictKind,
    judged,
)
from detent.core.rollout.mean_bounds import LossBounds, MeanProcess
from detent.core.rollout.paired_rows import Answer, PairedBar, PairedRow
from detent.core.rollout.sequential import BettingProcess, paired_loss
from detent.core.rollout.tripwires import RollbackRule, TripwireLimits

SYMBOLS = tuple(f"S{place}" for place in range(20))
BAR_MS = 900_000
START_MS = 1_700_002_800_000
LIMITS = TripwireLimits(window_bars=10)
RULES = JudgeRules(limits=LIMITS)
SOUND = Answer(p_bps=5_200, latency_us=900)
FAILED = Answer(p_bps=None, reason=Reason.INFERENCE_ERROR)
LATE = Answer(p_bps=None, reason=Reason.INFERENCE_DEADLINE)
NAN = Answer(p_bps=None, reason=Reason.OUTPUT_INVALID)
NO_FEATURES = Answer(p_bps=None, reason=Reason.FEATURES_UNAVAILABLE)
KILLED = Answer(p_bps=None, reason=Reason.KILL_SWITCH_STATE)


def bar_of(
    number: int,
    candidate: Answer = SOUND,
    stable: Answer | None = SOUND,
    *,
    among: int = 20,
    label: bool | None = None,
) -> PairedBar:
    """Give a bar of which the first symbols say what is given, and the others are sound."""
    rows = tuple(
        PairedRow(
            symbol=symbol,
            candidate=candidate if place < among else SOUND,
            stable=stable if place < among else SOUND,
            label=label,
        )
        for place, symbol in enumerate(SYMBOLS)
    )
    return PairedBar(ts_ms=START_MS + number * BAR_MS, rows=rows)


def judge_of(bars: list[PairedBar], rules: JudgeRules = RULES, horizon_bars: int = 1) -> Judge:
    return judged(bars, rules=rules, horizon_bars=horizon_bars, interval_ms=BAR_MS)


def verdict_of(bars: list[PairedBar], rules: JudgeRules = RULES) -> Verdict:
    return judge_of(bars, rules).verdict()


@pytest.mark.parametrize(
    ("bad", "among", "rule"),
    [
        (FAILED, 1, RollbackRule.ERRORS),
        (NAN, 1, RollbackRule.INVALID),
        (LATE, 1, RollbackRule.LATENCY),
        (Answer(p_bps=5_200, latency_us=100_001), 1, RollbackRule.LATENCY),
        (Answer(p_bps=None, reason=Reason.FEATURES_MISSING), 3, RollbackRule.FALLBACKS),
        (Answer(p_bps=6_201, latency_us=900), 20, RollbackRule.MEAN_SHIFT),
    ],
)
@pytest.mark.proves("R118")
def test_each_tripwire_takes_a_candidate_back(bad: Answer, among: int, rule: RollbackRule) -> None:
    verdict = verdict_of([bar_of(number, bad, among=among) for number in range(10)])

    assert (verdict.kind, verdict.rule) == (VerdictKind.ROLL_BACK, rule)
    told = next(one for one in verdict.findings if one.rule is rule)
    assert told.found is not None
    assert told.found > told.bound
    assert {one.rule for one in verdict.findings} == set(RollbackRule)


@pytest.mark.parametrize(
    ("bad", "among"),
    [
        (FAILED, 1),
        (NAN, 1),
        (LATE, 1),
        (Answer(p_bps=5_200, latency_us=100_001), 1),
        (Answer(p_bps=None, reason=Reason.FEATURES_MISSING), 3),
        (NO_FEATURES, 20),
        (KILLED, 20),
    ],
)
def test_what_happens_to_both_takes_nobody_back(bad: Answer, among: int) -> None:
    verdict = verdict_of([bar_of(number, bad, bad, among=among) for number in range(30)])

    assert verdict.kind is VerdictKind.HOLD


def test_a_stable_model_that_said_nothing_excuses_nothing() -> None:
    verdict = verdict_of([bar_of(number, FAILED, None) for number in range(4)])

    assert verdict.rule is RollbackRule.ERRORS


def test_a_model_that_somebody_switched_off_is_not_judged() -> None:
    verdict = verdict_of([bar_of(number, KILLED) for number in range(30)])

    assert verdict.kind is VerdictKind.HOLD
    assert verdict.findings[0].found == 0


@pytest.mark.parametrize(("moved_bps", "rule"), [(100, None), (400, RollbackRule.CHURN)])
def test_churn_is_judged_against_what_the_stable_model_moves(
    moved_bps: int, rule: RollbackRule | None
) -> None:
    def shaken(number: int, size_bps: int) -> Answer:
        return Answer(p_bps=5_000 + (size_bps if number % 2 else -size_bps), latency_us=900)

    bars = [bar_of(n, shaken(n, moved_bps), shaken(n, 100)) for n in range(20)]

    assert verdict_of(bars).rule is rule


def test_one_bad_moment_is_no_rate_and_a_few_bars_are_no_mean() -> None:
    """Its rows share one call; and what models say is remembered from bar to bar."""
    bars = [bar_of(0, LATE), *(bar_of(number) for number in range(1, 9))]
    shifted = [bar_of(number, Answer(p_bps=7_000)) for number in range(9)]

    assert verdict_of(bars).kind is VerdictKind.HOLD
    assert verdict_of(shifted).kind is VerdictKind.HOLD
    assert verdict_of([*shifted, bar_of(9, Answer(p_bps=7_000))]).rule is RollbackRule.MEAN_SHIFT


def test_what_left_the_window_is_forgotten_and_what_told_is_not() -> None:
    bad = [bar_of(number, FAILED, among=2) for number in range(2)]
    rest = [bar_of(number) for number in range(2, 40)]
    told = verdict_of([*bad, bar_of(2, FAILED, among=2), *(bar_of(n) for n in range(3, 40))])

    assert judge_of([*bad, *rest]).total == judge_of(rest).total
    assert told.kind is VerdictKind.ROLL_BACK
    assert told.ts_ms == START_MS + 2 * BAR_MS


def random_bars(seed: int, count: int, *, skill: float = 0.0) -> list[PairedBar]:
    """Draw bars in which the candidate says what is true more often, or less."""
    chance = np.random.default_rng(seed)
    bars = []
    for number in range(count):
        rows = []
        for symbol in SYMBOLS:
            up = bool(chance.random() < 0.5)
            q = int(5_000 + (1 if up else -1) * 1_000 * skill + chance.integers(-400, 401))
            p = int(5_000 + chance.integers(-400, 401))
            stable = Answer(p_bps=p) if chance.random() < 0.95 else NO_FEATURES
            candidate = Answer(p_bps=q) if stable.p_bps is not None else NO_FEATURES
            label = up if chance.random() < 0.95 else None
            rows.append(PairedRow(symbol=symbol, candidate=candidate, stable=stable, label=label))
        bars.append(PairedBar(ts_ms=START_MS + number * BAR_MS, rows=tuple(rows)))
    return bars


def test_the_test_is_the_one_of_the_library() -> None:
    """In integers and with a few rows missing, the same losses go into the same process."""
    bars = random_bars(3, 60)
    process, lost = BettingProcess.start(horizon_bars=4), []
    for bar in bars[:-4]:
        rows = [row for row in bar.rows if row.pair is not None and row.label is not None]
        answers = np.array([row.pair for row in rows]) / 10_000
        labels = np.array([row.label for row in rows])
        lost.append(paired_loss(answers[:, 0], answers[:, 1], labels))
        process = process.after(lost[-1])
    judge = judge_of(bars, horizon_bars=4)

    assert judge.process.bar_count == 56
    assert judge.process.e_value == pytest.approx(process.e_value, rel=1e-9)
    assert judge.settled_ms == bars[-5].ts_ms


def test_outcomes_wait_for_their_horizon() -> None:
    judge = judge_of(random_bars(3, 10), horizon_bars=4)

    assert judge.settled_ms == START_MS + 5 * BAR_MS


def test_a_candidate_that_is_worse_is_found_and_one_that_is_better_may_be_promoted() -> None:
    rules = JudgeRules(limits=LIMITS, bars_min=200, bars_max=400)
    worse, better = (verdict_of(random_bars(5, 250, skill=s), rules) for s in (-0.3, 0.3))

    assert (worse.kind, worse.rule) == (VerdictKind.ROLL_BACK, RollbackRule.TEST)
    told = worse.findings[-1]
    assert told.found is not None
    assert told.found >= told.bound == 20_000
    assert better.kind is VerdictKind.MAY_PROMOTE
    assert better.brier_high is not None
    assert better.brier_difference is not None
    assert better.brier_difference < better.brier_high < 0.0025


def test_the_default_is_no_promotion() -> None:
    """As good as the stable model, and not shown to be: the time runs out."""
    rules = JudgeRules(limits=LIMITS, bars_min=50, bars_max=100, margin_ppm=0)
    bars = random_bars(6, 100)
    held = verdict_of(bars[:60], rules)

    assert (held.kind, held.cause) == (VerdictKind.HOLD, HoldCause.EXPOSURE)
    assert verdict_of(bars, rules).kind is VerdictKind.NO_PROMOTION
    assert verdict_of([], rules).cause is HoldCause.NO_ROWS


def test_no_number_of_bars_stands_in_for_outcomes() -> None:
    rules = JudgeRules(limits=LIMITS, bars_min=10, bars_max=1_000, labelled_min=1)

    assert verdict_of([bar_of(number) for number in range(500)], rules).cause is HoldCause.EXPOSURE


@given(
    seed=st.integers(0, 50),
    cut=st.integers(0, 59),
    skill=st.sampled_from([-0.5, 0.0]),
    horizon_bars=st.integers(1, 4),
)
@settings(max_examples=40)
def test_the_same_rows_give_the_same_verdict_after_a_restart(
    seed: int, cut: int, skill: float, horizon_bars: int
) -> None:
    """Anew from the rows, or from a state that was kept, in whatever order its rows stand."""
    bars = random_bars(seed, 60, skill=skill)
    shuffled = [
        msgspec.structs.replace(
            bar, rows=tuple(np.random.default_rng(seed).permutation(np.array(bar.rows, object)))
        )
        for bar in bars
    ]
    whole = judge_of(bars, horizon_bars=horizon_bars)
    kept = msgspec.json.decode(
        msgspec.json.encode(judge_of(bars[:cut], horizon_bars=horizon_bars)), type=Judge
    )
    settled = max(0, cut - horizon_bars)
    for bar in bars[cut:]:
        kept = kept.after(bar)
        while bars[settled].ts_ms + horizon_bars * BAR_MS <= bar.ts_ms:
            kept = kept.settled(bars[settled])
            settled += 1

    assert kept.verdict() == whole.verdict()
    assert judge_of(shuffled, horizon_bars=horizon_bars).verdict() == whole.verdict()


def test_bars_come_in_their_order_and_each_symbol_once() -> None:
    judge = judge_of([bar_of(0), bar_of(1)])
    with pytest.raises(InvalidField, match="ts_ms"):
        judge.after(bar_of(1))
    with pytest.raises(InvalidField, match="ts_ms"):
        judge.settled(bar_of(0))
    with pytest.raises(InvalidField, match="rows"):
        PairedBar(ts_ms=START_MS, rows=(bar_of(0).rows[0],) * 2)
    with pytest.raises(InvalidField, match="answer"):
        Answer(p_bps=5_000, reason=Reason.INFERENCE_ERROR)


@pytest.mark.proves("R117")
def test_both_arms_are_reported() -> None:
    bars = [bar_of(n, FAILED if n % 4 == 0 else SOUND, among=2, label=True) for n in range(8)]
    stable, candidate = judge_of(bars[:2] + bars[5:]).arm_reports()

    assert (stable.arm, candidate.arm) == (RolloutArm.STABLE, RolloutArm.CANDIDATE)
    assert (stable.counts.rows, candidate.counts.rows) == (100, 100)
    assert dict(candidate.reasons) == {Reason.INFERENCE_ERROR: 2}
    assert dict(stable.reasons) == {}
    assert candidate.latency_p99_us == 900
    assert (candidate.scored, stable.brier) == (98, pytest.approx(0.48**2))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_running_bounds_are_those_of_the_library(values: list[float]) -> None:
    process = MeanProcess(alpha=0.05)
    for value in values:
        process = process.after(value)
    known = bernstein_bounds(values, alpha=0.05)

    assert process.bounds == pytest.approx((known.low[-1], known.high[-1]), abs=1e-9)


def test_bounds_over_a_horizon_hold_for_the_mean_of_all() -> None:
    """Two hundred runs of overlapping outcomes: the mean leaves the bounds in few of them."""
    chance, outside = np.random.default_rng(8), 0
    for _ in range(200):
        noise = chance.normal(0.0, 0.3, 603)
        losses = np.clip(np.convolve(noise, np.ones(4) / 4.0, "valid"), -1.0, 1.0)
        bounds = LossBounds.start(alpha=0.05, horizon_bars=4)
        for loss in losses:
            bounds = bounds.after(float(loss))
        low, high = bounds.bounds
        outside += not low <= 0.0 <= high

    assert outside <= 10
    assert high - low < 0.6
    assert LossBounds.start(alpha=0.05).bounds == (-1.0, 1.0)
