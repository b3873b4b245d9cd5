"""Starts, asks, drains and stops real processes, in three and in one."""

import asyncio
import json
import time
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.conftest import PATIENT, Artifacts, client_of
from tests.strategist import Strategist, feed

from detent.contracts.calls.ledger import ListDecisionsRequest
from detent.contracts.errors import ServiceUnavailable
from detent.rpc.probe import is_serving
from detent_cli.stack import Stack, StackOptions

BARS = 30


async def decided(stack: Stack, artifacts: Artifacts, journal_file: Path) -> list[str]:
    """Decide some bars under one plan and give the records' hashes."""
    async with client_of(stack, journal_file) as client:
        await feed(client, artifacts.bars)
        plan = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
        for index in range(300, 300 + BARS):
            decision = await client.decide(
                plan.opened, ts_ms=plan.bars[index].ts_ms, row=plan.row(index)
            )
            assert decision.fallback_reason is None
        page = await client.list_decisions(
            ListDecisionsRequest(plan_id=plan.plan_id, symbol="", page_size=1000, page_token="")
        )
    # The plans' names differ from run to run; all else must not.
    name = plan.plan_id.encode()
    return [record.canonical.replace(name, b"plan").decode() for record in page.records]


@pytest.mark.proves("R51", "R150")
async def test_one_process_decides_the_same_as_three(
    artifacts: Artifacts, stack: Stack, tmp_path: Path
) -> None:
    """The same handlers without a wire between them: same bars, same records but the chain."""
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path / "single",
        single=True,
        environment=PATIENT,
    )
    with Stack(options) as single:
        alone = await decided(single, artifacts, tmp_path / "a.jsonl")
        assert is_serving(single.targets["policy"], "detent.api.v1.InferenceService")
    three = await decided(stack, artifacts, tmp_path / "b.jsonl")

    assert len(alone) == BARS
    for one, other in zip(alone, three, strict=True):
        first, second = json.loads(one), json.loads(other)
        # The plan's name is hashed into the chain, so the links differ and nothing else.
        del first["previous_hash"], second["previous_hash"]
        assert first == second


@pytest.mark.proves("R340")
def test_every_process_answers_for_its_health(stack: Stack, artifacts: Artifacts) -> None:
    hash_ = artifacts.stable_binding.model_version_hash
    for name, services in {
        "feature": ("", "detent.api.v1.FeatureService"),
        "inference": ("", "detent.api.v1.InferenceService", f"artifact/{hash_}"),
        "policy": ("", "detent.api.v1.PolicyService", "detent.api.v1.LedgerService"),
    }.items():
        for service in services:
            assert is_serving(stack.targets[name], service), (name, service)
    assert not is_serving(stack.targets["inference"], "artifact/" + "0" * 64)


def test_the_contract_can_be_read_from_a_server(stack: Stack) -> None:
    with grpc.insecure_channel(stack.targets["policy"]) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(iter(stub.ServerReflectionInfo(iter([request]))))

    names = {service.name for service in answer.list_services_response.service}
    assert {"detent.api.v1.PolicyService", "detent.api.v1.LedgerService"} <= names


async def test_a_drain_finishes_what_was_begun(artifacts: Artifacts, tmp_path: Path) -> None:
    """SIGTERM in the middle of a stream of bars: every answered bar is in the ledger."""
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path / "drained",
        single=True,
        environment=PATIENT,
    )
    answered: list[str] = []
    with Stack(options) as stack:
        async with client_of(stack, tmp_path / "journal.jsonl") as client:
            await feed(client, artifacts.bars)
            plan = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
            for index in range(300, 340):
                pending = asyncio.create_task(
                    client.decide(
                        plan.opened,
                        ts_ms=plan.bars[index].ts_ms,
                        row=plan.row(index),
                        deadline_s=1.0,
                    )
                )
                if index == 320:
                    await asyncio.to_thread(stack.stop_all)
                decision = await pending
                if not decision.record_hash:
                    break
                answered.append(decision.record_hash)
        assert 20 <= len(answered) < 40
        stack.start_all()
        async with client_of(stack, tmp_path / "other.jsonl") as client:
            verified = await client.verify_ledger(plan.plan_id)
            for record_hash in answered:
                await client.get_decision(record_hash)
    assert verified.breaks == ()
    assert verified.record_count >= len(answered)


def test_a_process_without_its_artifact_says_which_gate_is_shut(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """It stays up, so that policy has a reason to record, and says that it does not serve."""
    options = StackOptions(
        artifact_dir=artifacts.stable.parent / "direction_test_v9.9.9", state_dir=tmp_path
    )
    stack = Stack(options)
    target = stack.targets["inference"]
    try:
        stack.start("inference", wait=False)
        ends_s = time.monotonic() + 10.0
        while not is_serving(target, "") and time.monotonic() < ends_s:
            time.sleep(0.05)

        assert is_serving(target, "")
        assert not is_serving(target, "detent.api.v1.InferenceService")
        assert any("ARTIFACT_DIR_MISSING" in line for line in stack.log_lines("inference"))
    finally:
        stack.stop_all()


def test_a_process_that_cannot_listen_is_reported_with_its_last_words(
    stack: Stack, artifacts: Artifacts, tmp_path: Path
) -> None:
    taken = int(stack.targets["feature"].rpartition(":")[2])
    options = StackOptions(
        artifact_dir=artifacts.stable, state_dir=tmp_path, ports={"feature": taken}
    )
    other = Stack(options)
    other.start("feature", wait=False)
    other._processes["feature"].wait(10)

    with pytest.raises(ServiceUnavailable, match="is another process there"):
        other.wait_ready("feature")
