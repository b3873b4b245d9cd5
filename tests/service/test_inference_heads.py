"""Every head over the wire: from its artifact's bytes to the signal, and to its fallback."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.fakes import HandlerHost, remote
from tests.unit.artifacts import model_inputs
from tests.unit.head_artifacts import (
    KEYS,
    graph_of,
    head_artifact,
    poisoned,
    write_head_artifact,
)

from detent.adapters.artifact_store import Artifact, read_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.adapters.serving import Serving, open_serving
from detent.contracts import events
from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import (
    DescribeArtifactRequest,
    DescribeArtifactResponse,
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.errors import ArtifactInvalid, SignalFailed
from detent.contracts.manifest import GoldenRow, GoldenSet
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    BracketsSignal,
    FillSignal,
    RegimeSignal,
    by_head,
)
from detent.core.signals.regime_fallback import REGIME_NEUTRAL, TOXICITY_NEUTRAL
from detent.servers.inference.handler import InferenceHandler

SYMBOL = "BTCUSDT"
HOUR_MS = 3_600_000
PREVIOUS = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=HOUR_MS)
ERROR = RegimeFallback(mode=FallbackMode.ERROR)


class Asked:
    """Asks one served artifact over real gRPC."""

    def __init__(self, service: Any, binding_hash: str) -> None:
        self._service = service
        self._binding_hash = binding_hash

    async def infer(self, *rows: ModelInput, symbol: str = SYMBOL) -> InferSignalsResponse:
        request = InferSignalsRequest(
            binding_hash=self._binding_hash,
            rows=tuple(InferenceRow(symbol=symbol, model_input=row) for row in rows),
        )
        return await self._call(request, InferSignalsResponse)

    async def describe(self) -> DescribeArtifactResponse:
        request = DescribeArtifactRequest(binding_hash=self._binding_hash)
        return await self._call(request, DescribeArtifactResponse)

    async def _call(self, request: Any, kind: Any) -> Any:
        return await self._service.call(request, kind, timeout_s=5.0, trace=Context())


@contextlib.asynccontextmanager
async def served(artifact: Artifact) -> AsyncIterator[Asked]:
    """Serve an artifact from this process, over real gRPC."""
    handler = InferenceHandler(
        open_serving(artifact), max_inference_latency_ms=2_000, clock=time.monotonic
    )
    async with (
        HandlerHost("InferenceService", handler) as host,
        remote(host.target, "InferenceService") as service,
    ):
        yield Asked(service, artifact.pinned.binding_hash)
    handler.close()


@pytest.mark.proves("R20", "R25", "R42", "R252")
@pytest.mark.parametrize("head", Head)
async def test_an_artifact_of_any_head_answers_its_golden_rows_over_the_wire(head: Head) -> None:
    artifact = head_artifact(head)
    inputs = model_inputs()[: len(artifact.golden.rows)]
    async with served(artifact) as asked:
        batch = await asked.infer(*inputs)
        alone = [(await asked.infer(row)).rows[0] for row in inputs]
        described = await asked.describe()

    assert batch.calibration_version == artifact.manifest.calibration_version
    assert described.model_binding.head is head
    assert described.calibration_method == artifact.calibration.method
    for golden, row, single in zip(artifact.golden.rows, batch.rows, alone, strict=True):
        assert row.refusal is None
        assert row.fallback_reason is None
        assert row.signal is not None
        assert single.signal is not None
        assert row.signal.answer == single.signal.answer == golden.answer
        assert list(by_head(row.signal.answer)) == [head]
        assert row.signal.model_hash == artifact.manifest.model_hash
        assert row.signal.inference_latency_us > 0
    # The control: the rows do not all give the same, so the answers come from the inputs.
    assert len({str(golden.answer) for golden in artifact.golden.rows}) > 1


@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("index", [0, -1])
def test_serving_that_misses_a_golden_row_is_refused_for_any_head(head: Head, index: int) -> None:
    artifact = head_artifact(head)
    rows = list(artifact.golden.rows)
    rows[index] = GoldenRow(values=rows[index].values, **by_head(_other(rows[index].answer)))
    other = structs.replace(artifact, golden=GoldenSet(rows=tuple(rows)))

    assert isinstance(open_serving(artifact), Serving)
    with pytest.raises(ArtifactInvalid, match="golden row") as caught:
        open_serving(other)
    assert caught.value.gate_reason is Reason.CERTIFICATE_FAILED


def _other(answer: Any) -> Any:
    """Give the answer with the least change that its contract allows."""
    if isinstance(answer, BracketsSignal):
        first = answer.brackets[0]
        moved = structs.replace(first, p_hat_bps=first.p_hat_bps + 1)
        return structs.replace(answer, brackets=(moved, *answer.brackets[1:]))
    if isinstance(answer, RegimeSignal):
        spacing_x1000 = answer.spacing_multiplier_x1000 + 1
        return structs.replace(answer, spacing_multiplier_x1000=spacing_x1000)
    if isinstance(answer, FillSignal):
        return FillSignal(p_fill_bps=answer.p_fill_bps + 1)
    changed = {"p_hat_bps": 9_999} if hasattr(answer, "p_hat_bps") else {}
    if not changed:
        least, most = "toxicity_low_prob_bps", "toxicity_high_prob_bps"
        step = 1 if getattr(answer, most) else -1
        changed = {least: getattr(answer, least) + step, most: getattr(answer, most) - step}
    return structs.replace(answer, **changed)


@pytest.mark.proves("R148")
async def test_a_regime_without_a_spacing_output_has_a_spacing_of_one(tmp_path: Path) -> None:
    path = write_head_artifact(tmp_path, Head.REGIME, further=())
    async with served(read_artifact(path)) as asked:
        response = await asked.infer(model_inputs()[0])

    signal = response.rows[0].signal
    assert signal is not None
    assert signal.regime is not None
    assert signal.regime.spacing_multiplier_x1000 == 1_000


@pytest.mark.parametrize("head", Head)
async def test_an_output_that_nobody_asked_for_does_no_harm(head: Head, tmp_path: Path) -> None:
    """Public converters put the label first."""
    path = write_head_artifact(tmp_path, head, extra_label=True)
    plain = head_artifact(head)
    async with served(read_artifact(path)) as asked:
        response = await asked.infer(*model_inputs()[: len(plain.golden.rows)])

    for row, golden in zip(response.rows, plain.golden.rows, strict=True):
        assert row.signal is not None
        assert row.signal.answer == golden.answer


async def test_a_graph_that_takes_a_window_is_given_one(tmp_path: Path) -> None:
    width = len(head_artifact(Head.FILL).manifest.input_features)
    path = write_head_artifact(tmp_path, Head.FILL, input_shape=(1, width))
    async with served(read_artifact(path)) as asked:
        response = await asked.infer(*model_inputs()[:3])

    expected = head_artifact(Head.FILL).golden.rows[:3]
    found = [row.signal.answer for row in response.rows if row.signal is not None]
    assert found == [row.answer for row in expected]


@pytest.mark.proves("R148")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"further_outputs": ()}, id="fitting"),
        pytest.param({"further_outputs": (("spacing_multiplier", 1),)}, id="also fitting"),
        pytest.param({"further_outputs": (("spacing_multiplier", 2),)}, id="columns"),
        pytest.param({"further_outputs": (("other", 1),)}, id="name"),
        pytest.param({"output_name": "label"}, id="dtype"),
        pytest.param({"input_shape": (1, 11)}, id="window"),
    ],
)
def test_a_graph_without_what_is_asked_for_is_refused(
    change: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    manifest = head_artifact(Head.REGIME).manifest
    model = graph_of(Head.REGIME, manifest.further_outputs, width=11, extra_label=True)
    contract = structs.replace(GraphContract.of(manifest), **change)

    if "fitting" in request.node.callspec.id:
        assert open_session(model, contract, execution_provider="cpu").graph == contract
        return
    with pytest.raises(ArtifactInvalid) as caught:
        open_session(model, contract, execution_provider="cpu")
    assert caught.value.gate_reason is Reason.MODEL_NOT_LOADED


@pytest.mark.parametrize("head", [Head.DIRECTION, Head.FILL, Head.BRACKETS])
async def test_a_head_without_a_fallback_gives_its_reason(head: Head) -> None:
    good = model_inputs()[0]
    async with served(head_artifact(head)) as asked:
        response = await asked.infer(good, poisoned(good, symbol=SYMBOL))

    assert response.rows[0].signal is not None
    assert response.rows[1].refusal is Reason.OUTPUT_INVALID
    assert response.rows[1].fallback_reason is None


async def test_a_group_that_lacks_an_outcome_travels_uncoupled_with_its_reason() -> None:
    good = model_inputs()[0]
    lacking = poisoned(good, symbol=SYMBOL, columns=slice(1, 2))
    async with served(head_artifact(Head.BRACKETS)) as asked:
        response = await asked.infer(good, lacking)

    whole, part = (row.signal.brackets for row in response.rows if row.signal is not None)
    assert whole is not None
    assert part is not None
    assert whole.coupling_refusal is None
    assert sum(bracket.p_unified_bps or 0 for bracket in whole.brackets) == 10_000
    assert part.coupling_refusal is Reason.BRACKETS_INCOMPLETE
    assert [bracket.bracket_key for bracket in part.brackets] == [KEYS[0], *KEYS[2:]]
    assert {bracket.p_unified_bps for bracket in part.brackets} == {None}


@pytest.mark.proves("R19", "R75")
@pytest.mark.parametrize(
    ("head", "neutral"), [(Head.REGIME, REGIME_NEUTRAL), (Head.TOXICITY, TOXICITY_NEUTRAL)]
)
async def test_a_failed_row_is_neutral_beside_its_reason(head: Head, neutral: Any) -> None:
    good = model_inputs()[0]
    spoilt = structs.replace(good, features_hash="0" * 64)
    async with served(head_artifact(head)) as asked:
        response = await asked.infer(good, poisoned(good, symbol=SYMBOL), spoilt, good)

    found = [(row.fallback_reason, row.refusal) for row in response.rows]
    assert found == [
        (None, None),
        (Reason.OUTPUT_INVALID, None),
        (Reason.FEATURES_MISSING, None),
        (None, None),
    ]
    answers = [row.signal.answer for row in response.rows if row.signal is not None]
    assert answers[1:3] == [neutral, neutral]
    assert answers[0] == answers[3] != neutral


@pytest.mark.proves("R76")
async def test_previous_is_the_symbols_own_last_valid_signal() -> None:
    artifact = head_artifact(Head.REGIME, PREVIOUS)
    first, second, third = model_inputs()[:3]
    async with served(artifact) as asked:
        none_yet = await asked.infer(poisoned(first, symbol=SYMBOL))
        given = await asked.infer(first)
        same = await asked.infer(poisoned(second, symbol=SYMBOL))
        too_old = await asked.infer(poisoned(third, symbol=SYMBOL))
        other = await asked.infer(poisoned(second, symbol="ETHUSDT"), symbol="ETHUSDT")

    assert second.ts_ms - first.ts_ms == HOUR_MS
    answers = [
        response.rows[0].signal.answer
        for response in (none_yet, given, same, too_old, other)
        if response.rows[0].signal is not None
    ]
    assert answers[1] != REGIME_NEUTRAL
    assert answers == [REGIME_NEUTRAL, answers[1], answers[1], REGIME_NEUTRAL, REGIME_NEUTRAL]
    assert same.rows[0].fallback_reason is Reason.OUTPUT_INVALID
    assert same.rows[0].signal is not None
    # It is dated and hashed as what was asked, not as what it was taken from.
    assert same.rows[0].signal.ts == second.ts_ms
    assert same.rows[0].signal.features_hash == same.rows[0].features_hash[:16]


@pytest.mark.proves("R77")
async def test_error_is_logged_first_and_ends_the_call(caplog: pytest.LogCaptureFixture) -> None:
    good = model_inputs()[0]
    async with served(head_artifact(Head.REGIME, ERROR)) as asked:
        assert (await asked.infer(good)).rows[0].signal is not None
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(SignalFailed) as caught:
            await asked.infer(good, structs.replace(good, features_hash="0" * 64))

    assert caught.value.metadata == {"symbol": SYMBOL, "gate_reason": "FEATURES_MISSING"}
    assert caught.value.gate_reason is Reason.FEATURES_MISSING
    lines = [line for line in caplog.records if line.getMessage() == events.ML_INFER_ERROR]
    assert [vars(line)["refusals"] for line in lines] == [[Reason.FEATURES_MISSING]]
