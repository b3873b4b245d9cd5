"""Proves that an answer of the client's own carries the tags of its plan, and begins nothing."""

import pytest
from tests.builders import START_MS, plan_of, row_of
from tests.trades import TAGS, calm, learning_plan

from detent.contracts.decision import DecisionKind
from detent.contracts.plan import Plan
from detent_client.local_answer import answer_locally


@pytest.mark.proves("R250")
@pytest.mark.parametrize(("plan", "tags"), [(learning_plan(), TAGS), (plan_of("p"), None)])
def test_own_answer_carries_the_tags_of_its_plan(plan: Plan, tags: object) -> None:
    row = row_of(learning=calm()) if plan.learning is not None else row_of()
    decision, _ = answer_locally(plan=plan, ts_ms=START_MS, kind=DecisionKind.BAR, row=row)

    assert decision.learning == tags
    assert decision.target_weight_final_ppm == 0
