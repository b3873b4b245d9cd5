"""Proves that a verdict has one primary, evidence, and no action that its cause forbids."""

import itertools
from typing import Any

import pytest
from msgspec import structs

from detent.contracts.errors import InvalidField
from detent.core.ledger.attribution import Layer
from detent.core.ledger.verdict import Action, Confidence, Verdict

VERDICT = Verdict(
    primary=Layer.EXECUTION,
    secondary=(),
    confidence=Confidence.HIGH,
    action=Action.HOLD,
    because="it lost most",
    metrics=(("total", "-1"),),
    trade_sets=("book/EURUSD/a",),
    events=("a" * 64,),
)
PERMITTED = {
    Action.HOLD: set(Layer),
    Action.STAND_DOWN: set(Layer),
    Action.REPLAN: {Layer.PLAN, Layer.TRIGGER},
    Action.POLICY_ADJUST: {Layer.POLICY},
    Action.INVESTIGATE_EXECUTION: {Layer.EXECUTION},
    Action.USE_PROXY: {Layer.SIGNAL_SOURCE},
}


@pytest.mark.proves("R350")
@pytest.mark.parametrize(("action", "primary"), list(itertools.product(Action, Layer)))
def test_action_is_permitted_by_its_cause_alone(action: Action, primary: Layer) -> None:
    if primary in PERMITTED[action]:
        assert structs.replace(VERDICT, action=action, primary=primary).action is action
        return
    with pytest.raises(InvalidField) as refused:
        structs.replace(VERDICT, action=action, primary=primary)

    assert refused.value.field == "primary"


@pytest.mark.proves("R350")
@pytest.mark.parametrize("field", ["metrics", "trade_sets", "events"])
def test_verdict_without_evidence_is_refused(field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(VERDICT, **{field: ()})

    assert refused.value.field == field


@pytest.mark.proves("R350")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"secondary": (Layer.EXECUTION,)}, "secondary"),
        ({"confidence": Confidence.LOW, "action": Action.STAND_DOWN}, "action"),
    ],
    ids=str,
)
def test_verdict_that_contradicts_itself_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(VERDICT, **changes)

    assert refused.value.field == field
