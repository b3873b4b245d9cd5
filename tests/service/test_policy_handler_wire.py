"""Proves what policy makes of a dependency whose bytes are not even an answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import START_MS, plan_of, row_of
from tests.fakes import PolicyHost, RawServer

from detent.adapters.grpc_dependencies import GrpcFeatures, GrpcInference
from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.decision import Decision
from detent.contracts.reasons import Reason
from detent.rpc.channel import open_channel
from detent.rpc.tracing import no_tracer
from detent_client import ClientOptions, DetentClient


@pytest.mark.proves("R94", "R203")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(lambda _: b"\xff\xff\xff\xff", Reason.INFERENCE_ERROR, id="garbage"),
        pytest.param(lambda _: b"", Reason.BINDING_MISMATCH, id="empty"),
        pytest.param(lambda _: b"\x0a\x40" + b"f" * 64, Reason.BINDING_MISMATCH, id="other hash"),
    ],
)
async def test_bytes_that_are_no_answer_are_a_fallback(
    tmp_path: Path, binding: ModelBinding, answer: Callable[[Any], bytes], reason: Reason
) -> None:
    async with RawServer("InferenceService", {"InferSignals": answer}) as server:
        channel = open_channel(server.target)
        inference = GrpcInference(channel, no_tracer())
        async with (
            PolicyHost(tmp_path / "ledger.sqlite", binding, inference=inference) as host,
            client_at(host, tmp_path) as client,
        ):
            opened = await client.open_plan(plan_of("p"), binding)
            decision = await client.decide(opened, ts_ms=START_MS, row=row_of())
        await channel.close()

    assert_proxy(reason, decision)


async def test_features_that_answer_with_garbage_are_a_fallback(
    tmp_path: Path, binding: ModelBinding
) -> None:
    garbage = {"GetFeatureSnapshots": lambda _: b"\xff\xff\xff"}
    async with RawServer("FeatureService", garbage) as server:
        channel = open_channel(server.target)
        features = GrpcFeatures(channel, no_tracer())
        async with (
            PolicyHost(tmp_path / "ledger.sqlite", binding, features=features) as host,
            client_at(host, tmp_path) as client,
        ):
            opened = await client.open_plan(plan_of("p"), binding)
            decision = await client.decide(opened, ts_ms=START_MS, row=row_of())
        await channel.close()

    assert_proxy(Reason.FEATURES_UNAVAILABLE, decision)


def assert_proxy(reason: Reason, decision: Decision) -> None:
    assert decision.signal_source is SignalSource.PROXY
    assert decision.fallback_reason is reason
    assert decision.record_hash


def client_at(host: PolicyHost, folder: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=folder / "journal.jsonl", policy_target=host.target, deadline_s=5.0
        )
    )
