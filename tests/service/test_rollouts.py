"""Proves rollouts over the wire: arms, caps, rollback mid-plan, two operators, restarts."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL
from tests.fakes import PolicyHost
from tests.rollout_host import (
    BY,
    CANDIDATE,
    PLAN,
    RAMP,
    STABLE,
    SYMBOLS,
    RolloutHost,
    client_of,
    decide,
    roll_back,
    set_percent,
    start_request,
)

from detent.contracts.binding import PROXY_BINDING_HASH, SignalSource
from detent.contracts.calls.rollout import PromoteRolloutRequest
from detent.contracts.errors import (
    BindingMismatch,
    HorizonMismatch,
    InvalidField,
    PlanConflict,
    PlanNotFound,
    RolloutArmEmpty,
    RolloutConflict,
    RolloutHold,
    RolloutNotFound,
    RolloutRevisionStale,
    ServiceUnavailable,
)
from detent.contracts.reasons import Reason
from detent.contracts.replanning import ReplanOutcome
from detent.contracts.rollout import RampStep, RolloutAction, RolloutArm, RolloutStage
from detent.core.rollout.assignment import resolve_arms
from detent_client import ClientOptions, DetentClient


@pytest.fixture(name="rig")
async def _rig(tmp_path: Path) -> AsyncIterator[RolloutHost]:
    async with RolloutHost(tmp_path) as rig:
        yield rig


@pytest.fixture(name="client")
async def _client(rig: RolloutHost, tmp_path: Path) -> AsyncIterator[DetentClient]:
    async with client_of(rig, tmp_path) as client:
        yield client


@pytest.mark.proves("R116", "R322")
async def test_a_plan_is_split_over_two_arms_and_each_is_answered_by_its_own_model(
    rig: RolloutHost, client: DetentClient
) -> None:
    """Stable and candidate are asked where they are served, under their own hashes."""
    started = await client.start_rollout(start_request(SYMBOLS))
    await set_percent(client, started.rollout, 5_000)
    opened = await client.open_under_rollout(PLAN, "r1")
    stable, candidate = opened
    expected = resolve_arms(SYMBOLS, salt="r1", canary_bps=5_000)

    assert (stable.plan.plan_id, candidate.plan.plan_id) == ("plan", "plan:candidate")
    assert stable.plan.symbols == expected.stable
    assert candidate.plan.symbols == expected.candidate
    assert (stable.binding_hash, candidate.binding_hash) == (
        STABLE.binding_hash,
        CANDIDATE.binding_hash,
    )
    # The caps of the step tighten the candidate alone.
    assert stable.plan.risk_limits == PLAN.risk_limits
    assert candidate.plan.risk_limits.max_weight_ppm == 100_000

    first = await decide(client, stable)
    second = await decide(client, candidate)

    assert {one.p_hat_bps for one in first} == {9_000}
    assert {one.p_hat_bps for one in second} == {8_000}
    assert {one.signal_source for one in (*first, *second)} == {SignalSource.MODEL}
    assert max(abs(one.target_weight_final_ppm) for one in second) <= 100_000
    assert {asked.binding_hash for asked in rig.stable.asked} == {STABLE.binding_hash}
    assert {asked.binding_hash for asked in rig.candidate.asked} == {CANDIDATE.binding_hash}

    facts = [await client.get_plan(one.plan.plan_id) for one in opened]

    assert [one.rollout.arm for one in facts if one.rollout] == [
        RolloutArm.STABLE,
        RolloutArm.CANDIDATE,
    ]
    # Each is watched by the other.
    assert [one.shadow_binding for one in facts] == [CANDIDATE, STABLE]


@pytest.mark.proves("R119", "R139")
async def test_a_rollback_takes_effect_on_the_next_bar_within_a_second(
    rig: RolloutHost, client: DetentClient
) -> None:
    """Acknowledged means that no replica decides by the candidate, mid-plan; nothing else moves."""
    started = await client.start_rollout(start_request(SYMBOLS))
    await set_percent(client, started.rollout, 5_000)
    stable, candidate = await client.open_under_rollout(PLAN, "r1")
    await decide(client, candidate)
    begun_s = time.monotonic()
    rolled = await roll_back(client)
    answered_s = time.monotonic()
    before = await decide(client, stable, bar=1)
    after = await decide(client, candidate, bar=1)

    assert rolled.stage is RolloutStage.ROLLED_BACK
    assert answered_s - begun_s < 1.5
    assert time.monotonic() - begun_s < 2.0
    assert {(one.signal_source, one.fallback_reason) for one in after} == {
        (SignalSource.PROXY, Reason.ROLLED_BACK)
    }
    assert {(one.signal_source, one.fallback_reason) for one in before} == {
        (SignalSource.MODEL, None)
    }
    assert len(rig.candidate.asked) == 1


async def test_without_the_rollback_the_candidate_goes_on(
    rig: RolloutHost, client: DetentClient
) -> None:
    """The control: lowering the share says nothing to plans that are open (D10)."""
    started = await client.start_rollout(start_request(SYMBOLS))
    rollout = await set_percent(client, started.rollout, 5_000)
    _, candidate = await client.open_under_rollout(PLAN, "r1")
    await set_percent(client, rollout, 0)
    await asyncio.sleep(0.5)

    assert {one.signal_source for one in await decide(client, candidate)} == {SignalSource.MODEL}


@pytest.mark.proves("R333", "R137")
async def test_one_call_and_a_replan_restore_the_exact_former_hash(
    rig: RolloutHost, client: DetentClient
) -> None:
    """What comes back is what was there before, byte for byte, without an acknowledgement."""
    before = await client.open_plan(structs.replace(PLAN, plan_id="before"), STABLE)
    await decide(client, before)
    await client.close_plan(before)
    started = await client.start_rollout(start_request(SYMBOLS))
    await set_percent(client, started.rollout, 5_000)
    opened = await client.open_under_rollout(PLAN, "r1")
    await roll_back(client)
    after = structs.replace(PLAN, plan_id="after")
    response, arms = await client.replace_under_rollout(
        opened[0], after, "r1", ts_ms=START_MS + HOUR_MS
    )

    assert response.outcome is ReplanOutcome.REPLACED
    assert [(one.plan, one.binding_hash) for one in arms] == [(after, before.binding_hash)]
    held = await client.get_plan("after")
    assert held.model_binding == STABLE
    assert held.shadow_binding is None
    assert {one.p_hat_bps for one in await decide(client, arms[0], bar=1)} == {9_000}


async def test_raising_the_share_only_adds_symbols_and_a_replan_carries_their_state(
    rig: RolloutHost, client: DetentClient
) -> None:
    started = await client.start_rollout(start_request(SYMBOLS))
    rollout = await set_percent(client, started.rollout, 5_000)
    opened = await client.open_under_rollout(PLAN, "r1")
    for arm in opened:
        await decide(client, arm)
    rollout = await set_percent(client, rollout, 10_000)
    new = structs.replace(PLAN, plan_id="plan-2")
    response, arms = await client.replace_under_rollout(
        opened[0], new, "r1", ts_ms=START_MS + HOUR_MS
    )

    assert response.outcome is ReplanOutcome.REPLACED
    assert [one.plan.plan_id for one in arms] == ["plan-2:candidate"]
    assert set(opened[1].plan.symbols) < set(arms[0].plan.symbols) == set(SYMBOLS)
    taken = rig.host.plans
    carried = {
        symbol: chain.carried.plan_id
        for symbol, chain in (await taken.get_open("plan-2:candidate")).chains.items()
        if chain.carried is not None
    }
    assert carried == {symbol: arm.plan.plan_id for arm in opened for symbol in arm.plan.symbols}
    await decide(client, arms[0], bar=1)

    # The same arms again are the same plan, whatever the revision.
    again, kept = await client.replace_under_rollout(
        arms[0],
        structs.replace(PLAN, plan_id="plan-3"),
        "r1",
        ts_ms=START_MS + 24 * HOUR_MS,
    )
    assert again.outcome is ReplanOutcome.SUPPRESSED
    assert kept == arms


async def test_an_arm_that_was_closed_alone_comes_back_by_a_replan(
    rig: RolloutHost, client: DetentClient
) -> None:
    """What decides is compared, not what was opened: else its symbols would stay without a plan."""
    started = await client.start_rollout(start_request(SYMBOLS))
    await set_percent(client, started.rollout, 5_000)
    stable, candidate = await client.open_under_rollout(PLAN, "r1")
    await client.close_plan(stable)
    after = structs.replace(PLAN, plan_id="after")
    response, arms = await client.replace_under_rollout(
        candidate, after, "r1", ts_ms=START_MS + HOUR_MS
    )

    assert response.outcome is ReplanOutcome.REPLACED
    assert {symbol for one in arms for symbol in one.plan.symbols} == set(SYMBOLS)


async def test_a_name_whose_symbols_are_all_the_candidates_says_so(
    rig: RolloutHost, client: DetentClient
) -> None:
    """At 100 percent there is no plan under the name that was asked for."""
    started = await client.start_rollout(start_request(SYMBOLS))
    await set_percent(client, started.rollout, 10_000, override_reason="drill")
    await client.open_under_rollout(PLAN, "r1")

    with pytest.raises(PlanNotFound, match="all the candidate's, in 'plan:candidate'"):
        await client.get_plan("plan")


async def test_shadow_alone_is_a_change_that_a_replan_makes(
    rig: RolloutHost, client: DetentClient
) -> None:
    """From a plan of its own to a rollout in shadow: the same binding, watched by the candidate."""
    own = await client.open_plan(PLAN, STABLE)
    await decide(client, own)
    await client.start_rollout(start_request(SYMBOLS))
    response, arms = await client.replace_under_rollout(
        own, structs.replace(PLAN, plan_id="plan-2"), "r1", ts_ms=START_MS + HOUR_MS
    )
    held = await client.get_plan("plan-2")

    assert response.outcome is ReplanOutcome.REPLACED
    assert [(one.plan.symbols, one.binding_hash) for one in arms] == [
        (SYMBOLS, STABLE.binding_hash)
    ]
    assert held.shadow_binding == CANDIDATE


@pytest.mark.proves("R322")
async def test_both_arms_come_back_after_a_restart_and_a_rollback_outlives_it(
    tmp_path: Path,
) -> None:
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        started = await client.start_rollout(start_request(SYMBOLS))
        rollout = await set_percent(client, started.rollout, 5_000)
        opened = await client.open_under_rollout(PLAN, "r1")
        for arm in opened:
            await decide(client, arm)
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        # What changed meanwhile changes nothing for a plan that is open: asked again it is as
        # it was.
        await set_percent(client, rollout, 10_000)
        assert await client.open_under_rollout(PLAN, "r1") == opened
        for arm in opened:
            assert {one.signal_source for one in await decide(client, arm, bar=1)} == {
                SignalSource.MODEL
            }
        await roll_back(client)
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        found = await decide(client, opened[1], bar=2)

        assert {one.fallback_reason for one in found} == {Reason.ROLLED_BACK}
        assert {one.fallback_reason for one in await decide(client, opened[0], bar=2)} == {None}


async def test_a_candidate_without_its_database_is_in_no_canary(tmp_path: Path) -> None:
    """A missing store is control (F2): the stable arm goes on, the candidate's is the proxy's."""
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        started = await client.start_rollout(start_request(SYMBOLS))
        await set_percent(client, started.rollout, 5_000)
        opened = await client.open_under_rollout(PLAN, "r1")
    (tmp_path / "control.sqlite").unlink()
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        reasons = [{one.fallback_reason for one in await decide(client, arm)} for arm in opened]

    assert reasons == [{None}, {Reason.NOT_IN_CANARY}]


@pytest.mark.proves("R123")
async def test_the_second_of_two_operators_is_told(rig: RolloutHost, client: DetentClient) -> None:
    started = await client.start_rollout(start_request(SYMBOLS))
    results = await asyncio.gather(
        *(set_percent(client, started.rollout, 5_000) for _ in range(5)), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, RolloutRevisionStale)]

    assert len(refused) == 4
    # Rolling back asks for nothing that was seen.
    assert (await roll_back(client)).stage is RolloutStage.ROLLED_BACK


@pytest.mark.proves("R123")
async def test_a_step_has_to_last_unless_somebody_says_why_not(
    rig: RolloutHost, client: DetentClient
) -> None:
    hour = 3_600_000
    ramp = tuple(RampStep(canary_bps=bps, hold_ms=hour) for bps in (0, 2_500, 5_000, 10_000))
    rollout = (await client.start_rollout(start_request(SYMBOLS, ramp=ramp))).rollout
    with pytest.raises(RolloutHold) as held:
        await set_percent(client, rollout, 2_500)
    assert held.value.metadata["not_before_ms"] == str(rollout.since_ms + hour)
    rollout = await set_percent(client, rollout, 2_500, override_reason="shadowed for a month")
    with pytest.raises(RolloutHold) as held:
        await set_percent(client, rollout, 10_000)
    assert held.value.metadata["canary_bps_max"] == "5000"
    # Down is always taken.
    rollout = await set_percent(client, rollout, 0)
    promote = PromoteRolloutRequest(rollout_id="r1", seen_revision=rollout.revision, **BY)
    with pytest.raises(RolloutHold):
        await client.promote_rollout(promote)
    full = await client.promote_rollout(structs.replace(promote, override_reason="drill"))
    history = (await client.get_rollout("r1")).history

    assert full.rollout.stage is RolloutStage.FULL
    assert [(one.action, one.override_reason) for one in history] == [
        (RolloutAction.STARTED, ""),
        (RolloutAction.PERCENT_SET, "shadowed for a month"),
        (RolloutAction.PERCENT_SET, ""),
        (RolloutAction.PROMOTED, "drill"),
    ]


@pytest.mark.proves("R119")
async def test_a_promoted_candidate_has_all_symbols_and_can_still_be_taken_back(
    rig: RolloutHost, client: DetentClient
) -> None:
    rollout = (await client.start_rollout(start_request(SYMBOLS))).rollout
    rollout = await set_percent(client, rollout, 5_000)
    rollout = await set_percent(client, rollout, 10_000)
    request = PromoteRolloutRequest(rollout_id="r1", seen_revision=rollout.revision, **BY)
    await client.promote_rollout(request)
    (arm,) = await client.open_under_rollout(PLAN, "r1")

    assert arm.plan.symbols == SYMBOLS
    assert arm.binding_hash == CANDIDATE.binding_hash
    # What was promoted is not capped any more.
    assert arm.plan.risk_limits == PLAN.risk_limits
    await roll_back(client)
    assert {one.fallback_reason for one in await decide(client, arm)} == {Reason.ROLLED_BACK}


async def test_a_rollout_that_cannot_be_is_refused(rig: RolloutHost, client: DetentClient) -> None:
    stranger = structs.replace(CANDIDATE, model_version_hash="0" * 64)
    with pytest.raises(BindingMismatch):
        await client.start_rollout(start_request(SYMBOLS, candidate_binding=stranger))
    with pytest.raises(InvalidField):
        start_request(SYMBOLS, candidate_binding=STABLE)
    small = (RampStep(canary_bps=1, hold_ms=0), RampStep(canary_bps=10_000, hold_ms=0))
    with pytest.raises(RolloutArmEmpty) as empty:
        await client.start_rollout(start_request((SYMBOL, OTHER_SYMBOL), ramp=small))
    least = int(empty.value.metadata["canary_bps_min"])
    fits = (RampStep(canary_bps=least, hold_ms=0), *RAMP[1:])
    await client.start_rollout(start_request((SYMBOL, OTHER_SYMBOL), ramp=fits))
    with pytest.raises(RolloutConflict):
        await client.start_rollout(start_request(SYMBOLS, rollout_id="r2"))
    with pytest.raises(RolloutNotFound):
        await client.open_under_rollout(PLAN, "nobody")
    with pytest.raises(RolloutConflict):
        await client.open_under_rollout(structs.replace(PLAN, book="other"), "r1")


async def test_start_says_the_symbols_of_every_step_and_what_they_can_tell(
    rig: RolloutHost, client: DetentClient
) -> None:
    answer = await client.start_rollout(start_request(SYMBOLS))
    again = await client.start_rollout(start_request(SYMBOLS))

    assert again.rollout == answer.rollout
    assert [(step.canary_bps, step.symbols) for step in answer.steps] == [
        (step.canary_bps, resolve_arms(SYMBOLS, salt="r1", canary_bps=step.canary_bps).candidate)
        for step in RAMP
    ]
    assert all(step.power for step in answer.steps)


async def test_a_name_in_use_is_not_opened_otherwise(
    rig: RolloutHost, client: DetentClient
) -> None:
    rollout = (await client.start_rollout(start_request(SYMBOLS))).rollout
    await set_percent(client, rollout, 5_000)
    await client.open_under_rollout(PLAN, "r1")
    with pytest.raises(PlanConflict):
        await client.open_plan(PLAN, STABLE)
    with pytest.raises(PlanConflict):
        await client.open_under_rollout(structs.replace(PLAN, bar_interval_ms=HOUR_MS * 2), "r1")
    with pytest.raises(InvalidField):
        await client.open_plan(structs.replace(PLAN, plan_id="x:candidate"), STABLE)


async def test_who_watches_is_told_at_once_and_goes_on_from_a_revision(
    rig: RolloutHost, client: DetentClient
) -> None:
    rollout = (await client.start_rollout(start_request(SYMBOLS))).rollout
    watching = client.watch_rollouts("book-plan")
    async with asyncio.timeout(20.0):
        first = await anext(watching)
        while not first.rollouts:
            first = await anext(watching)
        await set_percent(client, rollout, 5_000)
        second = await anext(watching)
        await watching.aclose()
        resumed = client.watch_rollouts("book-plan", after_revision=rollout.revision)
        third = await anext(resumed)
        await resumed.aclose()

    assert [one.canary_bps for one in first.rollouts] == [0]
    assert [one.canary_bps for one in second.rollouts] == [5_000]
    assert third.rollouts == second.rollouts


async def test_a_watch_ends_with_the_process(tmp_path: Path) -> None:
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        watching = client.watch_rollouts()
        await anext(watching)
        waiting = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0.1)
        begun_s = time.monotonic()
        await rig.host._server.drain()
        with pytest.raises(ServiceUnavailable):
            await waiting

        assert time.monotonic() - begun_s < 1.0


async def test_without_a_control_database_there_is_no_rollout(
    host: PolicyHost, tmp_path: Path
) -> None:
    host.hold(CANDIDATE)
    options = ClientOptions(journal_file=tmp_path / "j.jsonl", policy_target=host.target)
    async with DetentClient(options) as client:
        with pytest.raises(ServiceUnavailable):
            await client.start_rollout(start_request(SYMBOLS))
        with pytest.raises(ServiceUnavailable):
            await client.open_under_rollout(PLAN, "r1")
        with pytest.raises(ServiceUnavailable):
            await anext(client.watch_rollouts())


async def test_the_proxy_may_be_what_is_left_behind(rig: RolloutHost, client: DetentClient) -> None:
    """From the proxy to a model: the proxy needs no shadow, it is computed on every bar."""
    proxy = structs.replace(STABLE, signal_source=SignalSource.PROXY)
    rollout = (await client.start_rollout(start_request(SYMBOLS, stable_binding=proxy))).rollout
    await set_percent(client, rollout, 5_000)
    stable, candidate = await client.open_under_rollout(PLAN, "r1")
    facts = [await client.get_plan(one.plan.plan_id) for one in (stable, candidate)]

    assert stable.binding_hash == PROXY_BINDING_HASH
    assert [one.shadow_binding for one in facts] == [CANDIDATE, None]


async def test_bindings_of_different_horizons_are_refused(
    rig: RolloutHost, client: DetentClient
) -> None:
    other = structs.replace(CANDIDATE, horizon_id="h8")
    rig.host.hold(other)
    with pytest.raises(HorizonMismatch):
        await client.start_rollout(start_request(SYMBOLS, candidate_binding=other))
