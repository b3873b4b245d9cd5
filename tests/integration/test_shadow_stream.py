"""Proves that no byte of the decisions knows of a shadow: real processes, real bars, real trouble.

The same bars are decided by policy processes that differ in their shadow alone. Whatever it does,
the records are the same, byte for byte, and so are their hashes.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import OTHER_SYMBOL, SYMBOL, plan_of, row_of
from tests.conftest import PATIENT, Artifacts
from tests.fakes import HandlerHost
from tests.strategist import feed, ledger_rows
from tests.tidy.tree import ROOT

from detent.adapters.grpc_dependencies import GrpcInference
from detent.contracts.binding import ModelBinding
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.contracts.decision import Decision
from detent.contracts.plan import OrderStyle
from detent.rpc.call import Call
from detent.rpc.channel import open_channel
from detent.rpc.probe import is_serving
from detent.rpc.tracing import no_tracer
from detent_cli.stack import Stack, StackOptions, free_port
from detent_client import ClientOptions, DetentClient

FIRST, BARS = 100, 130
READY_S_MAX = 30.0
# After so many bars a pause, as there is one after every bar of a market: shadows are asked then.
BURST_BARS, PAUSE_S = 10, 0.5
POLICY = "detent.servers.policy.main"
MEDDLING = "tests.integration.meddling_policy"
SERVICE = "detent.api.v1.PolicyService"
Stream = list[dict[str, Any]]
Trouble = Callable[[int], None]


def nothing(_bar: int) -> None:
    """Leave the shadow alone."""


@pytest.fixture(name="behind", scope="module")
def _behind(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a feature and an inference process that every policy process asks."""
    folder = tmp_path_factory.mktemp("behind")
    stack = Stack(
        StackOptions(artifact_dir=artifacts.stable, state_dir=folder, environment=PATIENT)
    )
    try:
        for name in ("feature", "inference"):
            stack.start(name)
        asyncio.run(fed(stack, artifacts, folder))
        yield stack
    finally:
        stack.stop_all()


async def fed(stack: Stack, artifacts: Artifacts, folder: Path) -> None:
    options = ClientOptions(
        journal_file=folder / "journal.jsonl", feature_target=stack.targets["feature"]
    )
    async with DetentClient(options) as client:
        await feed(client, artifacts.bars)


@contextlib.contextmanager
def process_of(
    behind: Stack, artifacts: Artifacts, folder: Path, module: str, settings: dict[str, object]
) -> Iterator[str]:
    """Run a policy process of its own on the rung SHADOW, give its address, and end it well."""
    folder.mkdir()
    target = f"127.0.0.1:{free_port()}"
    given: dict[str, object] = {
        "LISTEN": target,
        "ARTIFACTS_DIR": artifacts.stable.parent,
        "LEDGER_FILE": folder / "ledger.sqlite",
        "FEATURE_TARGET": behind.targets["feature"],
        "INFERENCE_TARGET": behind.targets["inference"],
        "INFER_ENABLED": "true",
        "SHADOW_MODE": "true",
        "DRAIN_GRACE_S": 10,
        **settings,
    }
    environment = {f"DETENT_POLICY_{name}": str(value) for name, value in given.items()}
    with (folder / "policy.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        ends_s = time.monotonic() + READY_S_MAX
        while not is_serving(target, SERVICE):
            assert process.poll() is None, (folder / "policy.log").read_text()
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        yield target
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def policy(
    behind: Stack, artifacts: Artifacts, folder: Path, *, module: str = POLICY, **settings: object
) -> AsyncIterator[DetentClient]:
    """Give a client of a policy process of its own, which is asked to end when it leaves."""
    running = process_of(behind, artifacts, folder, module, settings)
    target = await asyncio.to_thread(running.__enter__)
    options = ClientOptions(
        journal_file=folder / "journal.jsonl", policy_target=target, deadline_s=20.0
    )
    try:
        async with DetentClient(options) as client:
            yield client
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def play(
    client: DetentClient,
    artifacts: Artifacts,
    trouble: Trouble = nothing,
    *,
    binding: ModelBinding | None = None,
    word: str = "",
) -> None:
    """Decide every bar three times: one symbol in a call, two in a call, two in a stream."""
    binding, bars = binding or artifacts.stable_binding, artifacts.bars
    symbols = (SYMBOL, OTHER_SYMBOL)
    alone = await client.open_plan(plan_of(f"{word}alone"), binding)
    batch = await client.open_plan(plan_of(f"{word}batch", symbols), binding)
    streamed = await client.open_plan(plan_of(f"{word}streamed", symbols), binding)
    held_ppm: dict[tuple[str, str], int] = Counter()

    def hold(plan_id: str, decision: Decision | None) -> None:
        assert decision is not None
        if decision.order_style is not OrderStyle.NONE:
            held_ppm[plan_id, decision.symbol] = decision.target_weight_final_ppm

    async with client.stream_decisions() as stream:
        for bar in range(FIRST, FIRST + BARS):
            trouble(bar - FIRST)
            if (bar - FIRST) % BURST_BARS == 0:
                await asyncio.sleep(PAUSE_S)
            ts_ms = bars[SYMBOL][bar].ts_ms
            rows = {
                plan_id: tuple(
                    row_of(
                        symbol,
                        close=bars[symbol][bar].close,
                        weight_ppm=held_ppm[plan_id, symbol],
                    )
                    for symbol in symbols
                )
                for plan_id in ("alone", "batch", "streamed")
            }
            hold("alone", await client.decide(alone, ts_ms=ts_ms, row=rows["alone"][0]))
            for result in await client.decide_many(batch, ts_ms=ts_ms, rows=rows["batch"]):
                hold("batch", result.decision)
            await stream.ask(streamed, ts_ms=ts_ms, rows=rows["streamed"])
            for result in (await anext(stream)).results:
                hold("streamed", result.decision)
        stream.end()


def stream_of(folder: Path) -> Stream:
    """Give what was decided, byte for byte and hash for hash."""
    sql = (
        "SELECT plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical"
        " FROM decision_records ORDER BY plan_id, symbol, sequence"
    )
    return ledger_rows(folder / "ledger.sqlite", sql)


def shadows_of(folder: Path) -> list[dict[str, Any]]:
    rows = ledger_rows(folder / "ledger.sqlite", "SELECT canonical FROM shadow_signals")
    return [json.loads(row["canonical"]) for row in rows]


@pytest.fixture(name="without", scope="module")
def _without(
    behind: Stack, artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory
) -> Stream:
    """Give the decisions of a process that asks no shadow anything."""
    folder = tmp_path_factory.mktemp("without") / "run"

    async def run() -> None:
        async with policy(behind, artifacts, folder, SHADOW_ROWS_MAX=0) as client:
            await play(client, artifacts)

    asyncio.run(run())
    assert shadows_of(folder) == []
    stream = stream_of(folder)
    assert len(stream) == 5 * BARS
    return stream


@pytest.mark.proves("R85", "R115", "R312")
async def test_a_sound_shadow_changes_no_byte(
    behind: Stack, artifacts: Artifacts, tmp_path: Path, without: Stream
) -> None:
    folder = tmp_path / "run"
    async with policy(behind, artifacts, folder) as client:
        await play(client, artifacts)
    said = shadows_of(folder)

    assert stream_of(folder) == without
    assert len(said) == 5 * BARS
    assert {one["reason"] for one in said} == {None}
    assert {one["record_hash"] for one in said} == {row["record_hash"] for row in without}


@pytest.mark.proves("R85")
async def test_a_shadow_that_is_killed_in_the_middle_changes_no_byte(
    behind: Stack, artifacts: Artifacts, tmp_path: Path, without: Stream
) -> None:
    folder = tmp_path / "run"

    def kill_and_revive(bar: int) -> None:
        if bar == BARS // 3:
            behind.kill("inference")
        if bar == 2 * BARS // 3:
            behind.start("inference")

    async with policy(behind, artifacts, folder) as client:
        await play(client, artifacts, kill_and_revive)
    reasons = Counter(one["reason"] for one in shadows_of(folder))

    assert stream_of(folder) == without
    assert reasons[None] > 0
    assert reasons.keys() - {None}


@pytest.mark.proves("R85")
async def test_a_shadow_that_hangs_changes_no_byte(
    behind: Stack, artifacts: Artifacts, tmp_path: Path, without: Stream
) -> None:
    folder = tmp_path / "run"
    pid = behind.pid("inference")

    def stop_and_go(bar: int) -> None:
        if bar == BARS // 3:
            os.kill(pid, signal.SIGSTOP)
        if bar == 2 * BARS // 3:
            os.kill(pid, signal.SIGCONT)

    limits = {"SHADOW_DEADLINE_MS": 100, "SHADOW_ROWS_MAX": 50}
    try:
        async with policy(behind, artifacts, folder, **limits) as client:
            await play(client, artifacts, stop_and_go)
    finally:
        os.kill(pid, signal.SIGCONT)
    said = shadows_of(folder)

    assert stream_of(folder) == without
    assert Counter(one["reason"] for one in said)["INFERENCE_DEADLINE"] > 0
    # The queue is short: what it did not hold was dropped, and is not there.
    assert 0 < len(said) < 5 * BARS
    assert "SHADOW_DROPPED" in (folder / "policy.log").read_text()


@pytest.mark.proves("R85")
async def test_a_shadow_that_is_slow_changes_no_byte(
    behind: Stack, artifacts: Artifacts, tmp_path: Path, without: Stream
) -> None:
    folder = tmp_path / "run"
    channel = open_channel(behind.targets["inference"])

    class Slow:
        """Is the same inference behind a slow line."""

        def __init__(self) -> None:
            self._inference = GrpcInference(channel, no_tracer())

        async def infer_signals(
            self, query: InferSignalsRequest, call: Call
        ) -> InferSignalsResponse:
            await asyncio.sleep(0.2)
            return await self._inference.infer_signals(query, call)

        describe_artifact = infer_signals

    async with HandlerHost("InferenceService", Slow()) as slow:
        settings = {"INFERENCE_TARGET": slow.target, "DRAIN_GRACE_S": 1}
        async with policy(behind, artifacts, folder, **settings) as client:
            await play(client, artifacts)
    await channel.close()
    said = shadows_of(folder)

    assert stream_of(folder) == without
    assert 0 < len(said) < 5 * BARS
    assert min(one["latency_us"] for one in said) >= 200_000


async def test_a_shadow_that_touches_the_decisions_is_found(
    behind: Stack, artifacts: Artifacts, tmp_path: Path, without: Stream
) -> None:
    """The control: without it the tests above might compare nothing."""
    folder = tmp_path / "run"
    async with policy(behind, artifacts, folder, module=MEDDLING) as client:
        await play(client, artifacts)

    assert stream_of(folder) != without
