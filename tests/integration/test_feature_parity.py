"""Compares the running feature service with the library that training reads from."""

import pytest
from opentelemetry.context import Context
from tests.builders import HOUR_MS, SYMBOL
from tests.conftest import Artifacts

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    ModelInput,
    SnapshotView,
)
from detent.core.features.feature_set import direction_bars_v1
from detent.core.features.offline_rows import iter_model_inputs
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.tracing import no_tracer
from detent_cli.stack import Stack
from detent_client import DetentClient


@pytest.mark.proves("R315")
async def test_the_service_gives_what_training_saw_bar_for_bar(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    """Streamed in, asked for one by one: the same hashes and the same bytes."""
    bars = artifacts.bars[SYMBOL]
    offline = list(iter_model_inputs(direction_bars_v1(HOUR_MS), bars))
    channel = open_channel(stack.targets["feature"])
    service = RemoteService(channel, "FeatureService", no_tracer())
    compared = 0
    try:
        for bar, expected in zip(bars, offline, strict=True):
            answer = await service.call(
                GetFeatureSnapshotsRequest(
                    binding_hash=artifacts.stable_binding.binding_hash,
                    as_of_ts_ms=bar.ts_ms,
                    symbols=(SYMBOL,),
                    view=SnapshotView.INPUT,
                ),
                GetFeatureSnapshotsResponse,
                timeout_s=5.0,
                trace=Context(),
            )
            if isinstance(expected, ModelInput):
                compared += 1
                assert answer.rows[0].model_input == expected
            else:
                assert answer.rows[0].refusal == expected
    finally:
        await channel.close()
    assert client.unreported_count == 0
    assert compared == len(bars) - direction_bars_v1(HOUR_MS).warmup_bars_min + 1
