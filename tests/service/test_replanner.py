"""Proves the strategist's side of replanning, over the wire, on a scripted clock."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, plan_of, policy_config, row_of
from tests.fakes import PolicyHost
from tests.service.replan_calls import replans

from detent.contracts.binding import PROXY_BINDING_HASH, ModelBinding, SignalSource
from detent.contracts.errors import InvalidField, PlanClosed, ServiceUnavailable
from detent.contracts.plan import Plan
from detent.contracts.replanning import ReplanCause, ReplanOutcome, ReplanSkip, ReplanSkipReason
from detent.core.ledger.ownership import Ownership, owner_of
from detent_client import (
    ClientOptions,
    DetentClient,
    OpenedPlan,
    Proposal,
    Replanned,
    Replanner,
)

PLAN = plan_of("plan")
MINUTE_MS = 60_000
RUNNING, IDLE, EARLY = ReplanSkipReason


class Desk:
    """Is a strategist with a plan, and a judge that says what to think."""

    def __init__(self, client: DetentClient, binding: ModelBinding, opened: OpenedPlan) -> None:
        self.client = client
        self.binding = binding
        self.replanner = Replanner(client, opened, opened_ts_ms=START_MS)
        self.thoughts = 0

    async def think(self, opened: OpenedPlan, _cause: ReplanCause) -> Proposal:
        """Want another dead band every time."""
        self.thoughts += 1
        config = policy_config(tau_bps=1_000 - self.thoughts)
        plan = structs.replace(opened.plan, plan_id=f"plan-{self.thoughts}", policy_config=config)
        return Proposal(plan=plan, binding=self.binding)

    async def at(self, minutes: int, event: str = "", think: Any = None) -> Any:
        ts_ms = START_MS + minutes * MINUTE_MS
        return await self.replanner.consider(ts_ms, think or self.think, event=event)


@pytest.fixture(name="desk")
async def _desk(host: PolicyHost, tmp_path: Path) -> AsyncIterator[Desk]:
    options = ClientOptions(
        journal_file=tmp_path / "journal.jsonl", policy_target=host.target, deadline_s=5.0
    )
    async with DetentClient(options) as client:
        yield Desk(client, host.binding, await client.open_plan(PLAN, host.binding))


def outcome_of(answer: Replanned | ReplanSkip) -> str:
    return str(answer.reason if isinstance(answer, ReplanSkip) else answer.response.outcome)


@pytest.mark.proves("R235", "R355")
async def test_a_scripted_day_is_replanned_in_time_and_counted_exactly(
    desk: Desk, host: PolicyHost
) -> None:
    script = [
        (5, ""),
        (10, "news"),
        (20, "news"),
        (30, "more news"),
        (35, "more news"),
        (94, ""),
        (95, ""),
        (100, ""),
    ]
    found = [(minutes, outcome_of(await desk.at(minutes, event))) for minutes, event in script]

    assert found == [
        (5, IDLE),
        (10, EARLY),
        (20, "replaced"),
        (30, EARLY),
        (35, "replaced"),
        (94, IDLE),
        (95, "replaced"),
        (100, IDLE),
    ]
    assert desk.thoughts == 3
    assert desk.replanner.opened.plan.plan_id == "plan-3"
    rows = [(row["ts_ms"], row["reason"] or row["outcome"]) for row in replans(host)]
    assert rows == [(START_MS + minutes * MINUTE_MS, reason) for minutes, reason in found]
    decision = await desk.client.decide(
        desk.replanner.opened, ts_ms=START_MS + 2 * HOUR_MS, row=row_of()
    )
    assert decision.record_hash


@pytest.mark.proves("R355")
async def test_thinking_never_runs_twice_at_once(desk: Desk, host: PolicyHost) -> None:
    going = asyncio.Event()

    async def slow(opened: OpenedPlan, cause: ReplanCause) -> Proposal:
        await going.wait()
        return await desk.think(opened, cause)

    first = asyncio.create_task(desk.at(20, "news", slow))
    await asyncio.sleep(0.02)
    second = await desk.at(60, "news")
    going.set()

    assert outcome_of(await first) == "replaced"
    assert outcome_of(second) == RUNNING
    assert desk.thoughts == 1
    assert sorted(row["outcome"] for row in replans(host)) == ["replaced", "skipped"]


async def test_thinking_that_fails_keeps_the_plan_and_the_interval(desk: Desk) -> None:
    async def fails(opened: OpenedPlan, cause: ReplanCause) -> Proposal:
        raise InvalidField("thought", "none", "one")

    with pytest.raises(InvalidField):
        await desk.at(20, "news", fails)

    assert desk.replanner.opened.plan == PLAN
    assert outcome_of(await desk.at(30, "news")) == EARLY
    assert outcome_of(await desk.at(35, "news")) == "replaced"


@pytest.mark.proves("R136", "R139", "R355")
async def test_the_way_back_overtakes_a_replan_that_is_being_thought_over(desk: Desk) -> None:
    going = asyncio.Event()

    async def slow(opened: OpenedPlan, cause: ReplanCause) -> Proposal:
        await going.wait()
        return await desk.think(opened, cause)

    first = asyncio.create_task(desk.at(20, "news", slow))
    await asyncio.sleep(0.02)
    answer = await desk.replanner.roll_back("back", ts_ms=START_MS + 20 * MINUTE_MS)
    going.set()

    assert answer.response.outcome is ReplanOutcome.REPLACED
    assert outcome_of(await first) == RUNNING
    assert desk.replanner.opened == OpenedPlan(
        plan=structs.replace(PLAN, plan_id="back"), binding_hash=PROXY_BINDING_HASH
    )
    decision = await desk.client.decide(
        desk.replanner.opened, ts_ms=START_MS + HOUR_MS, row=row_of()
    )
    assert decision.signal_source is SignalSource.PROXY


async def test_the_way_back_follows_a_replan_that_was_quicker(desk: Desk) -> None:
    """Also one whose answer never came: the plan that replaced ours is rolled back."""
    began_with = desk.replanner.opened
    await desk.at(20, "news")
    desk.replanner._opened = began_with

    answer = await desk.replanner.roll_back("back", ts_ms=START_MS + 20 * MINUTE_MS)

    assert answer.response.outcome is ReplanOutcome.REPLACED
    assert (await desk.client.get_plan("plan-1")).status == "closed"
    assert desk.replanner.opened.plan.policy_config.tau_bps == 999
    again = await desk.replanner.roll_back("again", ts_ms=START_MS + 21 * MINUTE_MS)
    assert again.response.outcome is ReplanOutcome.SUPPRESSED


async def test_a_plan_that_was_closed_is_nobodys_to_follow(desk: Desk) -> None:
    await desk.client.close_plan(desk.replanner.opened)

    with pytest.raises(PlanClosed):
        await desk.replanner.roll_back("back", ts_ms=START_MS)
    with pytest.raises(PlanClosed):
        await desk.at(20, "news")


async def test_skips_that_nobody_took_are_brought_along_later(
    desk: Desk, host: PolicyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(opened: OpenedPlan, skips: Any) -> Any:
        raise ServiceUnavailable("gone", service="policy")

    with monkeypatch.context() as away:
        away.setattr(desk.client, "record_replan_skips", unavailable)
        await desk.at(1)
        await desk.at(2)
    assert [skip.ts_ms for skip in desk.replanner.unreported] == [
        START_MS + minutes * MINUTE_MS for minutes in (1, 2)
    ]
    assert replans(host) == []

    await desk.at(3)

    assert desk.replanner.unreported == ()
    assert len(replans(host)) == 3


async def test_a_name_that_does_not_fit_is_drawn_again(desk: Desk, host: PolicyHost) -> None:
    owner = owner_of("plan", 3)
    foreign = next(f"n{i}" for i in range(99) if owner_of(f"n{i}", 3) != owner)
    ownership = Ownership(replica_index=owner, replica_count=3, replica_targets=(host.target,) * 3)
    host.plans.ownership = ownership

    async def think(opened: OpenedPlan, cause: ReplanCause) -> Proposal:
        proposal = await desk.think(opened, cause)
        plan: Plan = structs.replace(proposal.plan, plan_id=foreign)
        return structs.replace(proposal, plan=plan)

    await desk.at(20, "news", think)

    drawn = desk.replanner.opened.plan.plan_id
    assert drawn.startswith(f"{foreign}.")
    assert owner_of(drawn, 3) == owner
