"""Leaves what the gates to the next phase judge: a ledger that has seen everything, two runs."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec import structs
from tests.backtests import question_of, setup_of
from tests.builders import START_MS, call_of, emergency, row_of
from tests.fakes import PolicyHost
from tests.service.policy_calls import ask, open_plan
from tests.service.replan_calls import looser, next_of, replace
from tests.trades import fill_of

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import ClosePlanRequest, RecordFillsRequest
from detent.contracts.plan import Plan
from detent.offline.backtesting.folder import run_into

BANDS = {
    "turnover": {"low_ppm": 500_000, "high_ppm": 1_500_000},
    "trade_count": {"low_ppm": 500_000, "high_ppm": 1_500_000},
    "drawdown": {"low_ppm": 0, "high_ppm": 1_500_000},
}
HOLD_BARS = 4


async def decide_everything(ledger_file: Path, binding: ModelBinding, plan: Plan) -> None:
    """Trade one position in, guarded and out by emergency; replan in vain and in earnest."""
    async with PolicyHost(ledger_file, binding) as host:
        await open_plan(host, plan, binding)
        entered = (await ask(host, row_of(), plan=plan)).results[0].decision
        assert entered is not None
        weight = entered.target_weight_final_ppm
        fill = fill_of("entry", record_hash=entered.record_hash, ts_ms=START_MS)
        filled = RecordFillsRequest(
            binding_hash=binding.binding_hash, plan_id=plan.plan_id, fills=(fill,)
        )
        await host.handler.record_fills(filled, call_of())
        for bar in range(1, HOLD_BARS + 2):
            asks = emergency() if bar in (1, HOLD_BARS + 1) else None
            row = row_of(weight_ppm=weight, exit_intent=asks)
            assert (await ask(host, row, bar=bar, plan=plan)).results[0].decision is not None
        await replace(host, next_of(plan, "same"), bar=HOLD_BARS + 1)
        after = next_of(plan, "next", **looser())
        await replace(host, after, bar=HOLD_BARS + 1)
        await ask(host, row_of(), bar=HOLD_BARS + 2, plan=after)
        await close(host, after.plan_id)


async def close(host: PolicyHost, plan_id: str) -> None:
    """Close a plan: its summary is due from then on."""
    query = ClosePlanRequest(binding_hash=host.binding.binding_hash, plan_id=plan_id)
    await host.handler.close_plan(query, call_of())


def write_runs(folder: Path) -> tuple[Path, Path]:
    """Run the policy and a baseline with a smoother config over one market."""
    config = structs.replace(question_of().policy_config, epsilon_w_ppm=6_000)
    setups = {
        "policy": setup_of(),
        "baseline": setup_of(question=question_of(policy_config=config)),
    }
    for name, one in setups.items():
        run_into(folder / name, one, signal_origin="proxy", records=False)
    return folder / "policy", folder / "baseline"


def write_bands(path: Path, **changes: dict[str, int]) -> Path:
    """Write the bands that a person allows."""
    path.write_text(json.dumps(BANDS | changes))
    return path
