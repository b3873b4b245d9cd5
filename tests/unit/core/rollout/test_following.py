"""Following a rollout: pairs, bars that are not whole yet, and rows that come in pieces."""

from __future__ import annotations

from decimal import Decimal

import pytest
from benchmarks.rollout.candidates import BAR_MS, START_MS, Kind, bars_of, draw_run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from numpy.random import default_rng

from detent.contracts.reasons import Reason
from detent.contracts.rollout import RolloutArm
from detent.core.rollout.following import MINUTE_MS, Followed, is_quiet
from detent.core.rollout.judge import JudgeRules, judged
from detent.core.rollout.paired_rows import Answer, PairedBar
from detent.core.rollout.pairing import ArmDecision, RowKey, paired_bars

STABLE, CANDIDATE = RolloutArm.STABLE, RolloutArm.CANDIDATE
SAID = Answer(p_bps=6_000, latency_us=500)


def decision(
    symbol: str, *, bar: int = 0, arm: RolloutArm = CANDIDATE, **facts: object
) -> ArmDecision:
    one = ArmDecision(
        plan_id="plan" if arm is STABLE else "plan:candidate",
        symbol=symbol,
        ts_ms=START_MS + bar * BAR_MS,
        arm=arm,
        close=Decimal(100 + bar),
        p_bps=5_500,
        reason=None,
        proxy_p_bps=5_100,
    )
    return structs.replace(one, **facts)


def paired(
    decisions: list[ArmDecision],
    shadows: dict[RowKey, Answer] | None = None,
    outcomes: dict[RowKey, bool] | None = None,
    *,
    stable_is_proxy: bool = False,
) -> tuple[PairedBar, ...]:
    return paired_bars(
        decisions,
        {one.key: SAID for one in decisions} if shadows is None else shadows,
        outcomes or {},
        horizon_ms=BAR_MS,
        stable_is_proxy=stable_is_proxy,
    )


def test_in_a_canary_its_symbols_count_and_in_shadow_all() -> None:
    both = [decision("A", arm=STABLE), decision("B")]
    (canary,) = paired(both)
    (shadow,) = paired(both[:1])

    assert [row.symbol for row in canary.rows] == ["B"]
    assert (canary.rows[0].candidate.p_bps, canary.rows[0].stable) == (5_500, SAID)
    assert [row.symbol for row in shadow.rows] == ["A"]
    assert (shadow.rows[0].candidate, shadow.rows[0].stable) == (SAID, Answer(p_bps=5_500))


def test_a_stable_proxy_needs_nobody_beside() -> None:
    (bar,) = paired([decision("A")], {}, stable_is_proxy=True)

    assert bar.rows[0].stable == Answer(p_bps=5_100)


def test_who_has_not_answered_yet_is_missing_and_not_at_fault() -> None:
    (bar,) = paired([decision("A")], {})

    assert bar.rows[0].stable is None
    assert paired([decision("A", arm=STABLE)], {}) == ()


@pytest.mark.parametrize("reason", [Reason.ROLLED_BACK, Reason.NOT_IN_CANARY, Reason.SHADOW_ONLY])
def test_what_the_rollout_itself_keeps_out_is_no_row(reason: Reason) -> None:
    assert paired([decision("A", p_bps=None, reason=reason)]) == ()


def test_a_fallback_keeps_its_reason() -> None:
    (bar,) = paired([decision("A", p_bps=None, reason=Reason.INFERENCE_DEADLINE)])

    assert bar.rows[0].candidate == Answer(p_bps=None, reason=Reason.INFERENCE_DEADLINE)


def test_a_label_is_what_somebody_said_or_the_close_a_horizon_later() -> None:
    rows = [decision("A"), decision("A", bar=1), decision("A", bar=3)]
    said = {rows[1].key: False}
    labels = [bar.rows[0].label for bar in paired(rows, outcomes=said)]

    assert labels == [True, False, None]


def test_rows_that_wait_for_the_other_blame_nobody_until_two_bars_are_over() -> None:
    failed = {"p_bps": None, "reason": Reason.INFERENCE_ERROR}
    names = [f"S{place}" for place in range(70)]
    bars = [
        paired([decision(name, bar=bar, **failed) for name in names], {})[0] for bar in range(5)
    ]
    followed = Followed.start(JudgeRules(), horizon_bars=1)
    kept = [followed.after(bars[:count], horizon_ms=BAR_MS) for count in (1, 2, 3, 5)]

    assert [one.kept.bars for one in kept] == [0, 0, 1, 3]
    assert [one.seen.told is None for one in kept] == [True, True, True, False]


@given(
    kind=st.sampled_from([Kind.GOOD, Kind.SLOW, Kind.SIGN_FLIPPED]),
    cuts=st.lists(st.integers(1, 40), max_size=6),
    among=st.integers(1, 5),
)
@settings(max_examples=30, deadline=None)
def test_pieces_come_to_what_the_whole_comes_to(kind: Kind, cuts: list[int], among: int) -> None:
    """Looked at after any bars, of which the last lacks rows, or once: the same in the end."""
    bars = list(bars_of(draw_run(kind, 5, 40, default_rng(len(cuts)))))
    followed = Followed.start(JudgeRules(), horizon_bars=1)
    for cut in sorted({*cuts, 40}):
        known = [bar for bar in bars[:cut] if bar.ts_ms > followed.settled_ms]
        part = structs.replace(known[-1], rows=known[-1].rows[:among])
        followed = followed.after([*known[:-1], part], horizon_ms=BAR_MS)
        followed = followed.after(known, horizon_ms=BAR_MS)
    whole = judged(bars, rules=JudgeRules(), horizon_bars=1, interval_ms=BAR_MS)

    assert followed.seen.verdict() == whole.verdict()
    assert followed.kept.bars == 39


def test_quiet_is_a_matter_of_bars() -> None:
    def quiet(age_ms: int, interval_ms: int = BAR_MS) -> bool:
        return is_quiet(START_MS, now_ms=START_MS + age_ms, interval_ms=interval_ms, bars=3)

    assert not quiet(4 * BAR_MS)
    assert quiet(4 * BAR_MS + 1)
    assert not quiet(4 * MINUTE_MS, interval_ms=0)
    assert quiet(4 * MINUTE_MS + 1, interval_ms=0)
