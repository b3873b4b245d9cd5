"""The inference handler: one pinned artifact, a reason for everything else."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.unit.artifacts import artifact, artifact_in, model_inputs

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import Serving, open_serving
from detent.contracts import events
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import (
    DescribeArtifactRequest,
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.errors import (
    ArtifactInvalid,
    BindingMismatch,
    DeadlineExceeded,
    ModelNotReady,
)
from detent.contracts.manifest import parse_manifest
from detent.contracts.proxy import PROXY_DEFAULT
from detent.contracts.reasons import Reason
from detent.contracts.signals import MlSignalSnapshot
from detent.core.features.model_input import features_hash
from detent.rpc.call import Call
from detent.servers.inference.handler import InferenceHandler

SYMBOL = "BTCUSDT"
BINDING_HASH = artifact().pinned.binding_hash


def call(*, left_s: float = 5.0) -> Call:
    """Give a call with this much time left."""
    return Call(
        deadline_s=time.monotonic() + left_s, clock=time.monotonic, identity="", trace=Context()
    )


def rows_of(*inputs: ModelInput) -> tuple[InferenceRow, ...]:
    """Ask for these inputs."""
    return tuple(InferenceRow(symbol=SYMBOL, model_input=row) for row in inputs)


def asked(*rows: InferenceRow, binding_hash: str = BINDING_HASH) -> InferSignalsRequest:
    """Give a request for some rows."""
    return InferSignalsRequest(binding_hash=binding_hash, rows=rows)


def hashed(row: ModelInput, values: bytes) -> ModelInput:
    """Give an input with other values and the hash that belongs to them."""
    found = features_hash(
        artifact().manifest.feature_version,
        symbol=SYMBOL,
        ts_ms=row.ts_ms,
        snapshot_hashes=row.snapshot_hashes,
        values=values,
    )
    return structs.replace(row, values=values, features_hash=found)


def integers(signal: MlSignalSnapshot | None) -> MlSignalSnapshot:
    """Give a signal without what is outside every digest."""
    assert signal is not None
    return structs.replace(signal, inference_latency_us=0)


@pytest.fixture(name="serving", scope="module")
def _serving() -> Serving:
    return open_serving(artifact())


@pytest.fixture(name="handler")
def _handler(serving: Serving) -> Iterator[InferenceHandler]:
    # Longer than the default: these tests are about other things than a busy machine.
    handler = InferenceHandler(serving, max_inference_latency_ms=2_000, clock=time.monotonic)
    yield handler
    handler.close()


class StubSession:
    """Stands for the runtime's session: it answers what it is told to, when it is told to."""

    def __init__(self, answer: Callable[[np.ndarray[Any, Any]], object]) -> None:
        self.answer = answer
        self.batches: list[int] = []

    def run(self, _: list[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[object]:
        values = feed["input"]
        self.batches.append(len(values))
        return [self.answer(values)]


def stubbed(serving: Serving, answer: Callable[[np.ndarray[Any, Any]], object]) -> Serving:
    """Give the artifact with a session that is a stub."""
    session = structs.replace(serving.session, session=StubSession(answer))
    # What may take long runs beside the event loop.
    slow = dict.fromkeys(serving.run_s, 0.001)
    return structs.replace(serving, session=session, run_s=slow)


def saying(p: float) -> Callable[[np.ndarray[Any, Any]], object]:
    """Answer the same probability for every row."""
    return lambda values: np.array([[1.0 - p, p]] * len(values), dtype=np.float32)


@pytest.mark.proves("R25", "R28")
async def test_signal_carries_what_answered_and_for_which_input(
    handler: InferenceHandler,
) -> None:
    row = model_inputs()[0]
    began = time.perf_counter()
    response = await handler.infer_signals(asked(*rows_of(row)), call())
    took_us = (time.perf_counter() - began) * 1e6
    manifest = artifact().manifest
    signal = response.rows[0].signal

    assert signal is not None
    assert signal.direction is not None
    assert response.binding_hash == BINDING_HASH
    assert response.model_version_hash == manifest.model_version_hash
    assert response.calibration_version == manifest.calibration_version
    assert response.rows[0].features_hash == row.features_hash
    assert (signal.ts, signal.symbol) == (row.ts_ms, SYMBOL)
    assert (signal.model_version, signal.model_hash) == (
        manifest.model_version,
        manifest.model_hash,
    )
    assert signal.features_hash == row.features_hash[:16]
    assert 0 < signal.inference_latency_us <= took_us
    raw_bps, p_bps = signal.direction.p_hat_raw_bps, signal.direction.p_hat_bps
    assert raw_bps != p_bps


@pytest.mark.parametrize(
    ("binding_hash", "found"),
    [
        pytest.param("", "(missing)", id="missing"),
        pytest.param("abc", "abc", id="malformed"),
        pytest.param(BINDING_HASH.upper(), BINDING_HASH.upper(), id="upper-case"),
        pytest.param(f" {BINDING_HASH}", f" {BINDING_HASH}", id="space"),
        pytest.param("0" * 64, "0" * 64, id="another"),
        pytest.param(PROXY_DEFAULT.proxy_version, PROXY_DEFAULT.proxy_version, id="proxy"),
        pytest.param(artifact().manifest.model_version_hash, None, id="manifest-hash"),
    ],
)
async def test_another_binding_is_refused_and_never_answered(
    handler: InferenceHandler, binding_hash: str, found: str | None
) -> None:
    for ask in (
        handler.infer_signals(
            asked(*rows_of(model_inputs()[0]), binding_hash=binding_hash), call()
        ),
        handler.describe_artifact(DescribeArtifactRequest(binding_hash=binding_hash), call()),
    ):
        with pytest.raises(BindingMismatch) as caught:
            await ask
        assert caught.value.metadata["found"] == (found or binding_hash)
        assert caught.value.metadata["expected"] == BINDING_HASH


async def test_process_without_an_artifact_says_which_gate_is_shut(tmp_path: Path) -> None:
    path = artifact_in(tmp_path)
    (path / "calibration.json").unlink()
    with pytest.raises(ArtifactInvalid) as refused:
        read_artifact(path)
    handler = InferenceHandler(refused.value, clock=time.monotonic)

    with pytest.raises(ModelNotReady) as caught:
        await handler.infer_signals(asked(*rows_of(model_inputs()[0])), call())
    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING
    assert "calibration.json" not in caught.value.message
    with pytest.raises(ModelNotReady):
        await handler.describe_artifact(DescribeArtifactRequest(binding_hash="0" * 64), call())
    with pytest.raises(BindingMismatch):
        await handler.describe_artifact(DescribeArtifactRequest(binding_hash="ABC"), call())


@pytest.mark.proves("R42")
async def test_row_is_answered_the_same_alone_and_in_a_batch(handler: InferenceHandler) -> None:
    inputs = model_inputs()[::3]
    batch = await handler.infer_signals(asked(*rows_of(*inputs)), call())

    assert len(batch.rows) == len(inputs)
    for row, in_batch in zip(inputs, batch.rows, strict=True):
        alone = (await handler.infer_signals(asked(*rows_of(row)), call())).rows[0]
        assert alone.features_hash == in_batch.features_hash
        assert integers(alone.signal) == integers(in_batch.signal)


def _wrong_width(row: ModelInput) -> ModelInput:
    return hashed(row, row.values[4:])


def _with_value(value: float) -> Callable[[ModelInput], ModelInput]:
    def change(row: ModelInput) -> ModelInput:
        return hashed(row, row.values[:8] + struct.pack("<f", value) + row.values[12:])

    return change


def _other_values(row: ModelInput) -> ModelInput:
    return structs.replace(row, values=row.values[:-4] + struct.pack("<f", 0.25))


def _other_instant(row: ModelInput) -> ModelInput:
    return structs.replace(row, ts_ms=row.ts_ms + 1)


def _other_hash(row: ModelInput) -> ModelInput:
    return structs.replace(row, features_hash="0" * 64)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_wrong_width, Reason.FEATURE_VERSION_MISMATCH, id="width"),
        pytest.param(_with_value(math.nan), Reason.FEATURES_MISSING, id="nan"),
        pytest.param(_with_value(math.inf), Reason.FEATURES_MISSING, id="infinite"),
        pytest.param(_with_value(-math.inf), Reason.FEATURES_MISSING, id="minus-infinite"),
        pytest.param(_other_values, Reason.FEATURES_MISSING, id="values"),
        pytest.param(_other_instant, Reason.FEATURES_MISSING, id="instant"),
        pytest.param(_other_hash, Reason.FEATURES_MISSING, id="hash"),
    ],
)
async def test_bad_row_gets_its_reason_and_leaves_the_others_alone(
    handler: InferenceHandler, spoil: Callable[[ModelInput], ModelInput], reason: Reason
) -> None:
    good = model_inputs()[:5]
    expected = await handler.infer_signals(asked(*rows_of(*good)), call())
    mixed = (good[0], spoil(good[1]), *good[2:4], spoil(good[1]), good[4])
    response = await handler.infer_signals(asked(*rows_of(*mixed)), call())
    only_bad = await handler.infer_signals(asked(*rows_of(spoil(good[1]))), call())

    assert [row.refusal for row in response.rows] == [None, reason, None, None, reason, None]
    kept = [integers(row.signal) for row in response.rows if row.refusal is None]
    wanted = [integers(row.signal) for row in expected.rows]
    assert kept == [wanted[0], *wanted[2:]]
    assert [row.refusal for row in only_bad.rows] == [reason]


async def test_row_for_another_symbol_than_it_was_hashed_for_is_refused(
    handler: InferenceHandler,
) -> None:
    stolen = InferenceRow(symbol="ETHUSDT", model_input=model_inputs()[0])
    response = await handler.infer_signals(asked(stolen), call())

    assert response.rows[0].refusal is Reason.FEATURES_MISSING


async def test_good_rows_go_through_the_session_together(serving: Serving) -> None:
    stub = stubbed(serving, saying(0.5))
    handler = InferenceHandler(stub, max_inference_latency_ms=2_000, clock=time.monotonic)
    inputs = model_inputs()[:40]
    await handler.infer_signals(asked(*rows_of(*inputs)), call())
    await handler.infer_signals(asked(*rows_of(_other_hash(inputs[0]))), call())
    handler.close()

    assert stub.session.session.batches == [64]


@pytest.mark.proves("R203")
@pytest.mark.parametrize("p", [math.nan, math.inf, -math.inf, -1e-9, 1.0001])
async def test_answer_that_is_no_probability_is_a_reason(serving: Serving, p: float) -> None:
    handler = InferenceHandler(
        stubbed(serving, saying(p)), max_inference_latency_ms=2_000, clock=time.monotonic
    )
    response = await handler.infer_signals(asked(*rows_of(*model_inputs()[:3])), call())
    handler.close()

    assert [row.refusal for row in response.rows] == [Reason.OUTPUT_INVALID] * 3


async def test_one_row_of_nonsense_does_not_spoil_the_others(serving: Serving) -> None:
    def answer(values: np.ndarray[Any, Any]) -> object:
        p = np.full((len(values), 2), 0.5, dtype=np.float32)
        p[1] = math.nan
        return p

    handler = InferenceHandler(
        stubbed(serving, answer), max_inference_latency_ms=2_000, clock=time.monotonic
    )
    response = await handler.infer_signals(asked(*rows_of(*model_inputs()[:3])), call())
    handler.close()

    assert [row.refusal for row in response.rows] == [None, Reason.OUTPUT_INVALID, None]


@pytest.mark.proves("R38")
async def test_failing_session_gives_a_reason_and_logs_the_features_hash(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> object:
        raise RuntimeError("device lost")

    handler = InferenceHandler(
        stubbed(serving, fail), max_inference_latency_ms=2_000, clock=time.monotonic
    )
    row = model_inputs()[0]
    with caplog.at_level(logging.INFO):
        response = await handler.infer_signals(asked(*rows_of(row)), call())
    handler.close()

    assert response.rows[0].refusal is Reason.INFERENCE_ERROR
    assert response.rows[0].features_hash == row.features_hash
    lines = [record for record in caplog.records if record.name.startswith("detent")]
    assert [record.getMessage() for record in lines] == [events.ML_INFER_ERROR]
    assert vars(lines[0])["features_hash"] == [row.features_hash]
    assert vars(lines[0])["refusals"] == [Reason.INFERENCE_ERROR]


@pytest.mark.proves("R38")
async def test_each_call_logs_one_line_with_model_and_features_hash(
    handler: InferenceHandler, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = model_inputs()[:3]
    with caplog.at_level(logging.INFO):
        await handler.infer_signals(asked(*rows_of(*inputs)), call())

    lines = [record for record in caplog.records if record.name.startswith("detent")]
    assert [record.getMessage() for record in lines] == [events.ML_INFER_OK]
    facts = vars(lines[0])
    assert facts["features_hash"] == [row.features_hash for row in inputs]
    assert facts["model_hash"] == artifact().manifest.model_hash
    assert facts["model_id"] == artifact().manifest.model_id
    assert facts["binding_hash"] == BINDING_HASH


@pytest.mark.proves("R72")
async def test_slow_session_is_answered_in_time_and_its_answer_dropped(serving: Serving) -> None:
    """The answer comes at 10 ms, not when the session is done; then the next call works."""
    release = threading.Event()

    def hang(values: np.ndarray[Any, Any]) -> object:
        release.wait(timeout=10.0)
        return saying(0.9)(values)

    stub = stubbed(serving, hang)
    handler = InferenceHandler(stub, max_inference_latency_ms=10, clock=time.monotonic)
    began = time.perf_counter()
    late = await handler.infer_signals(asked(*rows_of(*model_inputs()[:2])), call())
    took_s = time.perf_counter() - began
    release.set()
    again = await _answered(handler, asked(*rows_of(model_inputs()[0])))
    handler.close()

    assert [row.refusal for row in late.rows] == [Reason.INFERENCE_DEADLINE] * 2
    assert 0.009 < took_s < 2.0
    assert again.rows[0].signal is not None
    assert again.rows[0].signal.direction is not None
    assert again.rows[0].signal.direction.p_hat_raw_bps == 9_000


async def _answered(handler: InferenceHandler, query: InferSignalsRequest) -> InferSignalsResponse:
    """Ask again until the session has caught up."""
    for _ in range(200):
        response = await handler.infer_signals(query, call())
        if response.rows[0].refusal is None:
            return response
        await asyncio.sleep(0.005)
    pytest.fail("the session never caught up")


async def test_answer_that_took_too_long_by_the_clock_is_dropped(serving: Serving) -> None:
    """The clock that counts is the one that was handed in."""
    now = iter([0.0, 0.001, 0.001, *[0.012] * 100])
    handler = InferenceHandler(serving, max_inference_latency_ms=10, clock=lambda: next(now))
    response = await handler.infer_signals(asked(*rows_of(model_inputs()[0])), call())
    handler.close()

    assert response.rows[0].refusal is Reason.INFERENCE_DEADLINE


async def test_overloaded_session_refuses_at_once(serving: Serving) -> None:
    release = threading.Event()

    def hang(values: np.ndarray[Any, Any]) -> object:
        release.wait(timeout=10.0)
        return saying(0.5)(values)

    handler = InferenceHandler(
        stubbed(serving, hang), max_inference_latency_ms=1, clock=time.monotonic
    )
    query = asked(*rows_of(model_inputs()[0]))
    answers = [(await handler.infer_signals(query, call())).rows[0] for _ in range(40)]
    release.set()
    handler.close()
    refusals = [row.refusal for row in answers]

    assert refusals[0] is Reason.INFERENCE_DEADLINE
    assert refusals[-1] is Reason.INFERENCE_OVERLOADED
    assert set(refusals) == {Reason.INFERENCE_DEADLINE, Reason.INFERENCE_OVERLOADED}


async def test_call_without_time_left_is_refused(handler: InferenceHandler) -> None:
    with pytest.raises(DeadlineExceeded):
        await handler.infer_signals(asked(*rows_of(model_inputs()[0])), call(left_s=0.0))


async def test_description_is_the_artifacts_own(handler: InferenceHandler) -> None:
    found = await handler.describe_artifact(
        DescribeArtifactRequest(binding_hash=BINDING_HASH), call()
    )

    assert found.binding_hash == BINDING_HASH
    assert found.model_binding.binding_hash == BINDING_HASH
    assert found.model_hash == artifact().manifest.model_hash
    assert found.calibration_method == "platt"
    assert found.execution_provider == "CPUExecutionProvider"
    assert found.golden_row_count == len(artifact().golden.rows)
    assert parse_manifest(found.manifest_json.encode("ascii")) == artifact().manifest
