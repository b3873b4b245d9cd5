"""Proves that each arm of a rollout is shadowed by the other one, where that one is served."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.builders import model_binding, plan_of, record_of, written_of
from tests.fakes import FakeFeatures, FakeInference
from tests.service.shadows import shadowing_of
from tests.strategist import ledger_rows

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.rollout import PlanRollout, RolloutArm
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.signals.choice import ModelOutcome
from detent.servers.policy.routes import FixedRoutes

STABLE = model_binding(model_id="direction_test_v1.0.0")
CANDIDATE = model_binding(model_id="direction_test_v1.1.0", model_version_hash="2" * 64)
ANSWER = ModelOutcome(features_hash="7" * 64, p_hat_raw_bps=6_000, p_hat_bps=6_000)


def arm_of(arm: RolloutArm, binding: ModelBinding, shadow: ModelBinding) -> BoundPlan:
    place = PlanRollout(rollout_id="r1", arm=arm, canary_bps=500, revision=2)
    plan = plan_of("plan" if arm is RolloutArm.STABLE else "plan:candidate")
    return bind_plan(plan, binding, rollout=place, shadow_binding=shadow)


async def shadowed(folder: Path, *arms: BoundPlan) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Hand one decided bar of each arm to a shadow; gives the rows and who was asked how often."""
    stable, candidate = FakeInference(STABLE), FakeInference(CANDIDATE, p_hat_bps=4_000)
    routes = FixedRoutes(
        FakeFeatures(STABLE), stable, inference_of={CANDIDATE.binding_hash: candidate}
    )
    ledger = SqliteLedger(folder / "ledger.sqlite")
    shadowing = shadowing_of(ledger, routes)
    for bound in arms:
        is_model = bound.binding.signal_source is SignalSource.MODEL
        record = record_of(bound=bound, model=ANSWER if is_model else None)
        shadowing.offer(bound, [written_of(record)])
    await shadowing.close(10.0)
    await ledger.close()
    rows = ledger_rows(folder / "ledger.sqlite", "SELECT canonical FROM shadow_signals ORDER BY id")
    asked = {"stable": len(stable.asked), "candidate": len(candidate.asked)}
    return [json.loads(row["canonical"]) for row in rows], asked


@pytest.mark.proves("R115", "R122")
async def test_each_arm_is_shadowed_by_the_other_where_that_one_is_served(tmp_path: Path) -> None:
    rows, asked = await shadowed(
        tmp_path,
        arm_of(RolloutArm.STABLE, STABLE, CANDIDATE),
        arm_of(RolloutArm.CANDIDATE, CANDIDATE, STABLE),
    )
    said = {
        row["rollout"]["arm"]: (row["model_id"], row["p_hat_bps"], row["used_p_hat_bps"])
        for row in rows
    }

    assert said == {
        "stable": (CANDIDATE.model_id, 4_000, 6_000),
        "candidate": (STABLE.model_id, 9_000, 6_000),
    }
    assert asked == {"stable": 1, "candidate": 1}
    assert {row["rollout"]["rollout_id"] for row in rows} == {"r1"}


async def test_a_stable_proxy_is_asked_by_nobody_and_is_there_all_the_same(tmp_path: Path) -> None:
    rows, asked = await shadowed(tmp_path, arm_of(RolloutArm.CANDIDATE, CANDIDATE, PROXY_BINDING))

    assert [(row["model_id"], row["p_hat_bps"], row["reason"]) for row in rows] == [
        (None, 7_000, None)
    ]
    assert asked == {"stable": 0, "candidate": 0}


async def test_a_candidate_is_asked_unused_beside_a_proxy_that_decides(tmp_path: Path) -> None:
    rows, asked = await shadowed(tmp_path, arm_of(RolloutArm.STABLE, PROXY_BINDING, CANDIDATE))

    assert [(row["p_hat_bps"], row["used_p_hat_bps"]) for row in rows] == [(4_000, 7_000)]
    assert rows[0]["horizon_bars"] == CANDIDATE.horizon_bars
    assert asked == {"stable": 0, "candidate": 1}


async def test_a_plan_of_its_own_has_no_shadow_when_it_acts(tmp_path: Path) -> None:
    rows, asked = await shadowed(tmp_path, bind_plan(plan_of("plan"), STABLE))

    assert (rows, asked) == ([], {"stable": 0, "candidate": 0})
