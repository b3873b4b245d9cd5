"""The policy service is a pure function behind a wire: what it answers, anybody can compute."""

import random

import pytest
from tests.builders import HOUR_MS, START_MS, emergency, plan_of, row_of
from tests.fakes import PolicyHost
from tests.strategist import fresh_plan_id

from detent.contracts.decision import DecisionKind
from detent.contracts.plan import STATE_INITIAL, RiskOverrides, TriggerState
from detent.core.ledger.record import policy_inputs
from detent.core.policy.decide import decide_weight
from detent_client import DetentClient


@pytest.mark.proves("R317")
async def test_the_service_answers_what_the_pure_function_computes(
    host: PolicyHost, host_client: DetentClient
) -> None:
    """Over random bars: the state is folded here, and nothing of the service's own is used."""
    chance = random.Random(7)
    plan = plan_of(fresh_plan_id())
    opened = await host_client.open_plan(plan, host.binding)
    state, held_ppm, weights = STATE_INITIAL, 0, set()
    for bar in range(96):
        host.inference.p_hat_bps = chance.randrange(10_001)
        row = row_of(
            weight_ppm=held_ppm,
            trigger_state=list(TriggerState)[bar // 8 % 4],
            vol_hat_ppm=chance.choice([None, 80_000, 150_000, 150_000, 600_000]),
            exit_intent=emergency() if chance.random() < 0.1 else None,
            risk_overrides=RiskOverrides(max_weight_ppm=20_000) if not bar % 9 else None,
        )
        ts_ms = START_MS + bar * HOUR_MS

        decision = await host_client.decide(opened, ts_ms=ts_ms, row=row)

        record = (await host_client.get_decision(decision.record_hash)).record
        inputs = policy_inputs(
            plan=plan,
            ts_ms=ts_ms,
            kind=DecisionKind.BAR,
            row=row,
            signal=record.signal,
            state=state,
        )
        outcome, state = decide_weight(inputs)
        assert (record.outcome, record.state_after) == (outcome, state)
        assert decision.target_weight_final_ppm == outcome.target_weight_final_ppm
        assert decision.reasons == outcome.reasons
        held_ppm = outcome.target_weight_final_ppm
        weights.add(held_ppm)
    assert len(weights) > 20
