"""Proves that what two plans decided on one bar is attributed in the order in which they did."""

from decimal import Decimal

from tests.attributed import Bar, plain_plan, play
from tests.builders import HOUR_MS, START_MS, emergency, row_of
from tests.trades import fill_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.decision import DecisionKind
from detent.contracts.plan import TriggerState
from detent.contracts.trades import Side
from detent.core.ledger.attribution import split_total
from detent.core.ledger.attribution_steps import Part
from detent.core.ledger.record import (
    bind_plan,
    carried_from,
    chain_point_after,
    chain_start,
    record_decision,
)
from detent.core.signals.proxy import ProxyAnswer


def test_an_emergency_of_a_plan_that_replaced_another_comes_after_the_bar_of_that_one() -> None:
    """Both are of one bar, and the sequence of the new plan begins at 0 again.

    What is held until the next bar is what the emergency left, nothing: it is a limit that kept
    the fall of 10 % away, and no fill is missing.
    """
    first = play([Bar(close="100"), Bar(close="100")])
    left = first.records[-1]
    plan = plain_plan("next", book=first.bound.plan.book)
    bound = bind_plan(plan, PROXY_BINDING)
    point = chain_start(carried_from(left, left.record_hash))
    records = [*first.records]
    for bar, kind, close, row in (
        (1, DecisionKind.EMERGENCY, "100", {"weight_ppm": 400_000, "exit_intent": emergency()}),
        (2, DecisionKind.BAR, "90", {"trigger_state": TriggerState.INACTIVE}),
    ):
        record = record_decision(
            bound=bound,
            ts_ms=START_MS + bar * HOUR_MS,
            kind=kind,
            row=row_of(close=close, **row),
            proxy=ProxyAnswer(p_hat_bps=7_000, reason=None),
            model=None,
            point=point,
        )
        records.append(record)
        point = chain_point_after(record, record.record_hash)
    held = sum((fill.signed_quantity for fill in first.fills), Decimal(0))
    out = fill_of("out", Side.SELL, held, bar=1, record_hash=records[2].record_hash)
    split = split_total(records, [*first.fills, out], {"plan": first.bound, "next": bound})
    amounts = dict(part for layer in split.layers for part in layer.parts)

    assert (split.total, split.residual) == (0, 0)
    assert amounts[Part.LIMITS] > 0
    assert amounts[Part.UNFILLED] == 0
