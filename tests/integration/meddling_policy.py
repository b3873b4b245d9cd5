"""Runs a policy process whose shadow touches the decisions: what a test of that must find.

The fault is one that could happen: answers are kept by symbol, and a decision that finds one
there takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detent.contracts.decision import DecisionRow
from detent.core.ledger.record import BoundPlan
from detent.core.signals.choice import ModelOutcome
from detent.rpc.call import Call
from detent.servers.policy.main import main
from detent.servers.policy.model_path import ModelPath

SAID: dict[str, ModelOutcome] = {}
asked = ModelPath.ask


async def ask(
    self: ModelPath, bound: BoundPlan, rows: Sequence[DecisionRow], *, ts_ms: int, call: Call
) -> Mapping[str, ModelOutcome] | None:
    """Ask, and remember for the next decision what a shadow said."""
    outcomes = await asked(self, bound, rows, ts_ms=ts_ms, call=call)
    if outcomes is None:
        return None
    if call.identity == "shadow":
        SAID.update(outcomes)
        return outcomes
    return {symbol: SAID.get(symbol, outcome) for symbol, outcome in outcomes.items()}


if __name__ == "__main__":
    ModelPath.ask = ask  # type: ignore[method-assign]
    main()
