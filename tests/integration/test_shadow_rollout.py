"""Proves that a rollout's candidate, asked unused, changes no byte of what the stable one decides.

Real processes: features, one inference process per artifact, a policy process that acts, and a
control database. The candidate's process is sound, killed in the middle, or never asked.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders import OTHER_SYMBOL, SYMBOL, plan_of, row_of
from tests.conftest import PATIENT, Artifacts
from tests.integration.test_shadow_stream import (
    BARS,
    FIRST,
    Stream,
    Trouble,
    fed,
    nothing,
    policy,
    shadows_of,
    stream_of,
)

from detent.contracts.calls.rollout import StartRolloutRequest
from detent.contracts.plan import OrderStyle
from detent.contracts.rollout import RampStep
from detent.core.rollout.gates import ACTIVE_ACK
from detent_cli.stack import Stack, StackOptions
from detent_client import DetentClient

SYMBOLS = (SYMBOL, OTHER_SYMBOL)


@pytest.fixture(name="stable", scope="module")
def _stable(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stable")
    options = StackOptions(artifact_dir=artifacts.stable, state_dir=folder, environment=PATIENT)
    stack = Stack(options)
    try:
        for name in ("feature", "inference"):
            stack.start(name)
        asyncio.run(fed(stack, artifacts, folder))
        yield stack
    finally:
        stack.stop_all()


@pytest.fixture(name="candidate", scope="module")
def _candidate(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = StackOptions(
        artifact_dir=artifacts.candidate,
        state_dir=tmp_path_factory.mktemp("candidate"),
        environment=PATIENT,
    )
    stack = Stack(options)
    try:
        stack.start("inference")
        yield stack
    finally:
        stack.stop_all()


async def play(client: DetentClient, artifacts: Artifacts, trouble: Trouble) -> None:
    """Start a rollout, which begins in shadow, and decide every bar under it."""
    request = StartRolloutRequest(
        rollout_id="r1",
        book="book-plan",
        symbols=SYMBOLS,
        stable_binding=artifacts.stable_binding,
        candidate_binding=artifacts.candidate_binding,
        ramp=(RampStep(canary_bps=10_000, hold_ms=0),),
        actor="ops",
        reason="a candidate",
    )
    await client.start_rollout(request)
    (opened,) = await client.open_under_rollout(plan_of("plan", SYMBOLS), "r1")
    held_ppm: dict[str, int] = Counter()
    for bar in range(FIRST, FIRST + BARS):
        trouble(bar - FIRST)
        rows = tuple(
            row_of(symbol, close=artifacts.bars[symbol][bar].close, weight_ppm=held_ppm[symbol])
            for symbol in SYMBOLS
        )
        ts_ms = artifacts.bars[SYMBOL][bar].ts_ms
        for result in await client.decide_many(opened, ts_ms=ts_ms, rows=rows):
            assert result.decision is not None
            if result.decision.order_style is not OrderStyle.NONE:
                held_ppm[result.decision.symbol] = result.decision.target_weight_final_ppm


async def decided(
    stable: Stack,
    candidate: Stack,
    artifacts: Artifacts,
    folder: Path,
    *,
    trouble: Trouble = nothing,
    **settings: object,
) -> Stream:
    model_id = artifacts.candidate_binding.model_id
    acting: dict[str, object] = {
        "SHADOW_MODE": "false",
        "ACTIVE_ENABLED": "true",
        "ACTIVE_ACK": ACTIVE_ACK,
        "CONTROL_URL": f"sqlite:///{folder}.control.sqlite",
        "INFERENCE_TARGETS": f'{{"{model_id}": "{candidate.targets["inference"]}"}}',
    }
    async with policy(stable, artifacts, folder, **(acting | settings)) as client:
        await play(client, artifacts, trouble)
    return stream_of(folder)


@pytest.mark.proves("R85", "R115", "R122")
async def test_a_candidate_in_shadow_changes_no_byte_whatever_becomes_of_it(
    stable: Stack, candidate: Stack, artifacts: Artifacts, tmp_path: Path
) -> None:
    def kill(bar: int) -> None:
        if bar == BARS // 2:
            candidate.kill("inference")

    without = await decided(stable, candidate, artifacts, tmp_path / "off", SHADOW_ROWS_MAX=0)
    sound = await decided(stable, candidate, artifacts, tmp_path / "sound")
    killed = await decided(stable, candidate, artifacts, tmp_path / "killed", trouble=kill)
    said, reasons = shadows_of(tmp_path / "sound"), Counter[str | None]()
    reasons.update(one["reason"] for one in shadows_of(tmp_path / "killed"))

    assert len(without) == 2 * BARS
    assert {row["canonical"].count('"signal_source":"model"') for row in without} == {1}
    assert sound == without
    assert killed == without
    assert shadows_of(tmp_path / "off") == []
    assert len(said) == 2 * BARS
    assert {one["model_id"] for one in said} == {artifacts.candidate_binding.model_id}
    assert {(one["rollout"]["arm"], one["reason"]) for one in said} == {("stable", None)}
    assert reasons[None] > 0
    assert reasons["INFERENCE_UNAVAILABLE"] > 0
