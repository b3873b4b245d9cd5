"""Arms cover a plan exactly, tighten the candidate alone, and never allow what was not allowed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import plan_of, policy_config
from tests.rollout_host import CANDIDATE, STABLE

from detent.contracts.plan import Plan, RiskLimits, SymbolCap
from detent.contracts.rollout import (
    PlanRollout,
    RampCaps,
    RampStep,
    Rollout,
    RolloutArm,
    RolloutStage,
)
from detent.core.ledger.record import bind_plan
from detent.core.replanning.material import material_of_arms
from detent.core.rollout.plan_arms import arm_plans
from detent.core.rollout.power import TABLE, power_of

SYMBOLS = tuple(f"SYM{number}" for number in range(40))


def rollout_of(canary_bps: int, stage: RolloutStage, caps: RampCaps) -> Rollout:
    return Rollout(
        rollout_id="r1",
        book="book-plan",
        symbols=SYMBOLS,
        stable_binding=STABLE,
        candidate_binding=CANDIDATE,
        salt="r1",
        ramp=(RampStep(canary_bps=10_000, hold_ms=0, caps=caps),),
        canary_bps=canary_bps,
        stage=stage,
        since_ms=1_700_000_000_000,
    )


@pytest.mark.proves("R116")
@given(
    canary_bps=st.integers(0, 10_000),
    count=st.integers(1, 40),
    weight_ppm=st.integers(0, 1_000_000),
    exposure_ppm=st.none() | st.integers(0, 5_000_000),
    allowed=st.sets(st.integers(0, 39)),
)
def test_arms_cover_the_plan_and_tighten_the_candidate_alone(
    canary_bps: int, count: int, weight_ppm: int, exposure_ppm: int | None, allowed: set[int]
) -> None:
    symbols = SYMBOLS[:count]
    allowlist = tuple(SYMBOLS[place] for place in sorted(allowed) if place < count)
    limits = RiskLimits(
        max_weight_ppm=600_000, symbol_caps=(SymbolCap(symbol=symbols[0], max_weight_ppm=10),)
    )
    plan = plan_of(
        "plan",
        symbols,
        policy_config=policy_config(symbol_allowlist=allowlist),
        risk_limits=limits,
    )
    caps = RampCaps(max_weight_ppm=weight_ppm, max_exposure_ppm=exposure_ppm)
    bounds = arm_plans(plan, rollout_of(canary_bps, RolloutStage.CANARY, caps))

    assert sorted(one for bound in bounds for one in bound.plan.symbols) == sorted(symbols)
    for bound in bounds:
        part = bound.plan
        for symbol in part.symbols:
            assert may_hold(part, symbol) <= may_hold(plan, symbol)
        assert bound.rollout is not None
        if bound.rollout.arm is RolloutArm.CANDIDATE:
            held = [may_hold(part, symbol) for symbol in part.symbols]
            assert max(held) <= weight_ppm
            assert exposure_ppm is None or sum(held) <= exposure_ppm
        else:
            assert [may_hold(part, one) for one in part.symbols] == [
                may_hold(plan, one) for one in part.symbols
            ]


def may_hold(plan: Plan, symbol: str) -> int:
    """Give the largest weight that a plan lets a symbol have, as far as its limits go."""
    allowed = plan.policy_config.symbol_allowlist
    if allowed and symbol not in allowed:
        return 0
    cap = plan.risk_limits.symbol_cap_ppm(symbol)
    most = plan.risk_limits.max_weight_ppm
    return most if cap is None else min(cap, most)


@pytest.mark.parametrize("stage", [RolloutStage.ROLLED_BACK, RolloutStage.ENDED])
def test_what_was_taken_back_has_no_candidate_and_no_shadow(stage: RolloutStage) -> None:
    (bound,) = arm_plans(plan_of("plan", SYMBOLS), rollout_of(5_000, stage, RampCaps()))

    assert bound.plan == plan_of("plan", SYMBOLS)
    assert (bound.binding, bound.shadow_binding) == (STABLE, None)


def test_a_plan_of_its_own_hashes_as_before_and_an_arm_does_not() -> None:
    """The material hash of a plan without a rollout is what it was before there were any."""
    own = bind_plan(plan_of("plan"), STABLE)
    arm = structs.replace(
        own,
        rollout=PlanRollout(rollout_id="r1", arm=RolloutArm.STABLE, canary_bps=0, revision=1),
        shadow_binding=CANDIDATE,
    )
    later = structs.replace(arm, rollout=structs.replace(arm.rollout, revision=9, canary_bps=5))
    unwatched = structs.replace(arm, shadow_binding=None)

    assert (
        material_of_arms([own]).material_hash
        == "a83d4b87c6b9fd16d8b4487e6c9a0050ddecb538eba585b0ee7247b5229899c6"
    )
    assert material_of_arms([own]) != material_of_arms([arm])
    assert material_of_arms([arm]) == material_of_arms([later])
    assert material_of_arms([arm]) != material_of_arms([unwatched])


def test_power_between_two_counts_is_that_of_the_smaller_one() -> None:
    assert power_of(0) == ()
    assert power_of(4) == power_of(1)
    assert power_of(19) == power_of(5)
    assert power_of(4_000) == power_of(20)
    assert all(
        earlier <= later
        for shares in TABLE.values()
        for found in shares.values()
        for earlier, later in itertools.pairwise(found)
    )
