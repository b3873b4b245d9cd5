"""Proves that a real ledger's trade sets say whether a book has earned more capital."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.attributed import plain_plan
from tests.builders import START_MS, call_of, row_of
from tests.fakes import PolicyHost
from tests.policy_phase import write_runs
from tests.service.policy_calls import ask, open_plan
from tests.trades import fill_of
from typer.testing import CliRunner

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.policy import RecordFillsRequest
from detent.contracts.trades import Side
from detent.core.rollout.gates import ACTIVE_ACK
from detent.offline.promotion.evidence_file import read_evidence
from detent_cli.main import app


async def trade(ledger_file: Path, binding: ModelBinding, *, sets: int, gain: int) -> Path:
    """Enter on one bar and leave on the next, as often as asked; every fill names its decision."""
    plan = plain_plan("earner")
    names = {"plan_id": plan.plan_id, "book": plan.book}
    async with PolicyHost(ledger_file, binding) as host:
        await open_plan(host, plan, binding)
        fills = []
        for bar in range(2 * sets):
            row = row_of(close="100", weight_ppm=0)
            decision = (await ask(host, row, bar=bar, plan=plan)).results[0].decision
            assert decision is not None
            side, price = (Side.SELL, 100 + gain) if bar % 2 else (Side.BUY, 100)
            known = {"record_hash": decision.record_hash, "ts_ms": START_MS + bar * 3_600_000}
            fills.append(fill_of(f"fill-{bar}", side, 1, Decimal(price), **names, **known))
        query = RecordFillsRequest(
            binding_hash=binding.binding_hash, plan_id=plan.plan_id, fills=tuple(fills)
        )
        await host.handler.record_fills(query, call_of())
    return ledger_file


@pytest.fixture(name="baseline", scope="module")
def _baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs"))[0]


def asked(ledger: Path, baseline: Path, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["capital", "--ledger", str(ledger), "--baseline", str(baseline), "--json"]
    arguments += ["--actor", "ada", "--reason", "a year is over", *more]
    found = CliRunner().invoke(app, arguments)
    return found.exit_code, json.loads(found.stdout)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("kept/*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--actor", ""), ("--actor", "Ada Lovelace"), ("--reason", ""), ("--reason", "x" * 513)],
)
def test_a_question_that_nobody_asks_is_refused(
    tmp_path: Path,
    baseline: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
) -> None:
    """What is kept as evidence says who asked and why."""
    monkeypatch.setenv("DETENT_EVIDENCE_DIR", str(tmp_path / "kept"))
    code, found = asked(tmp_path / "nowhere.sqlite", baseline, option, value)

    assert (code, found["error"]["metadata"]["field"]) == (2, option.removeprefix("--"))
    assert kept(tmp_path) == []


@pytest.mark.proves("R354", "R341")
async def test_forty_closed_sets_and_a_person_earn_more_capital(
    tmp_path: Path, binding: ModelBinding, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await trade(tmp_path / "ledger.sqlite", binding, sets=40, gain=-1)
    losing = asked(ledger, baseline, "--ack", ACTIVE_ACK)
    assert (losing[0], losing[1]["refused_by"]) == (1, ["capital_expectancy", "capital_slippage"])
    assert kept(tmp_path) == []

    monkeypatch.setenv("DETENT_EVIDENCE_DIR", str(tmp_path / "kept"))
    few = await trade(tmp_path / "few.sqlite", binding, sets=39, gain=1)
    assert asked(few, baseline)[1]["refused_by"] == ["capital_resolved", "human_approval"]
    ledger = await trade(tmp_path / "good.sqlite", binding, sets=40, gain=1)
    code, found = asked(ledger, baseline, "--ack", ACTIVE_ACK)

    assert (code, found["refused_by"], found["earned"]) == (0, [], True)
    (earned,) = (path for path in kept(tmp_path) if path.name.endswith("_earned_capital.json"))
    text, said = read_evidence(earned)
    assert said is not None
    assert json.loads(text)["measures"]["resolved_count"] == 40
