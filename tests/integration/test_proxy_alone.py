"""Proves that a plan without a model needs nothing that a model needs."""

from pathlib import Path

import pytest
from tests.conftest import Artifacts, client_of
from tests.strategist import Strategist

from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent_cli.stack import Stack, StackOptions


@pytest.mark.proves("R223")
async def test_a_proxy_plan_needs_neither_features_nor_inference(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    options = StackOptions(artifact_dir=artifacts.stable, state_dir=tmp_path / "alone")
    stack = Stack(options)
    stack.start("policy")
    try:
        async with client_of(stack, tmp_path / "journal.jsonl") as client:
            strategist = await Strategist.open(client, artifacts.bars, PROXY_BINDING)
            decisions = [await strategist.decide(index) for index in range(70)]
    finally:
        stack.stop_all()

    assert {decision.signal_source for decision in decisions} == {SignalSource.PROXY}
    assert {decision.fallback_reason for decision in decisions} == {None}
    assert decisions[-1].p_hat_bps != 5_000
