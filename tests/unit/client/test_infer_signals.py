"""Holds the client to the binding's fallback when nobody, or somebody else, answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import START_MS, model_binding
from tests.fakes import HandlerHost
from tests.unit.artifacts import model_inputs
from tests.unit.head_artifacts import head_artifact, poisoned

from detent.adapters.serving import open_serving
from detent.contracts.binding import (
    PROXY_BINDING,
    FallbackMode,
    Head,
    ModelBinding,
    RegimeFallback,
)
from detent.contracts.calls.inference import InferenceRow, InferSignalsResponse
from detent.contracts.errors import (
    BindingMismatch,
    DeadlineExceeded,
    DetentError,
    InternalError,
    InvalidField,
    InvalidResponse,
    ModelNotReady,
    Overloaded,
    ServiceUnavailable,
    SignalFailed,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import RegimeSignal
from detent.core.signals.regime_fallback import REGIME_NEUTRAL, TOXICITY_NEUTRAL
from detent.servers.inference.handler import InferenceHandler
from detent_client import ClientOptions, DetentClient

SYMBOL = "BTCUSDT"
HOUR_MS = 3_600_000
PREVIOUS = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=HOUR_MS)
ERROR = RegimeFallback(mode=FallbackMode.ERROR)


class Service:
    """Stands where the inference service is called and does what it is told, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def call(self, _request: Any, _kind: Any, **_: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_of(tmp_path: Path, *, target: str = "127.0.0.1:1", **options: Any) -> DetentClient:
    """Give a client of an inference service; by default of none at all."""
    return DetentClient(
        ClientOptions(
            journal_file=tmp_path / "journal.jsonl",
            inference_target=target,
            backoff_s=0.001,
            deadline_s=0.3,
            **options,
        )
    )


def asking(client: DetentClient, *answers: Any) -> DetentClient:
    """Put a stand-in where the inference service is called."""
    client._inference = Service(*answers)  # type: ignore[assignment]
    return client


def row(index: int = 0, symbol: str = SYMBOL) -> InferenceRow:
    """Ask about one of the shared inputs."""
    return InferenceRow(symbol=symbol, model_input=model_inputs()[index])


def regime_binding(fallback: RegimeFallback | None = None) -> ModelBinding:
    """Give a regime binding of no real artifact."""
    return model_binding(head=Head.REGIME, regime_fallback=fallback)


@pytest.mark.proves("R75", "R318")
async def test_without_any_service_the_regime_is_neutral(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        answers = await client.infer_signals(regime_binding(), (row(), row(1, "ETHUSDT")))

    assert [answer.symbol for answer in answers] == [SYMBOL, "ETHUSDT"]
    assert {answer.reason for answer in answers} == {Reason.CLIENT_NO_SERVICE}
    assert [answer.answer for answer in answers] == [REGIME_NEUTRAL] * 2
    assert answers[0].snapshot is None
    assert answers[0].ts_ms == model_inputs()[0].ts_ms


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ServiceUnavailable("gone"), Reason.CLIENT_NO_SERVICE),
        (DeadlineExceeded("late"), Reason.CLIENT_NO_SERVICE),
        (Overloaded("shed"), Reason.CLIENT_NO_SERVICE),
        (InternalError("broken"), Reason.CLIENT_NO_SERVICE),
        (InvalidResponse("rows", 1, "2"), Reason.CLIENT_NO_SERVICE),
        (ModelNotReady("none", gate_reason=Reason.MANIFEST_INVALID), Reason.MANIFEST_INVALID),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        (regime_binding(), REGIME_NEUTRAL),
        (regime_binding(PREVIOUS), REGIME_NEUTRAL),
        (model_binding(head=Head.TOXICITY), TOXICITY_NEUTRAL),
        (model_binding(head=Head.FILL), None),
        (model_binding(head=Head.BRACKETS), None),
        (model_binding(head=Head.DIRECTION), None),
    ],
    ids=lambda value: getattr(value, "head", ""),
)
async def test_each_head_stands_in_as_the_table_says(
    error: DetentError, reason: Reason, binding: ModelBinding, expected: Any, tmp_path: Path
) -> None:
    async with asking(client_of(tmp_path), error) as client:
        answers = await client.infer_signals(binding, (row(),))

    assert [(answer.answer, answer.reason) for answer in answers] == [(expected, reason)]


@pytest.mark.proves("R77")
@pytest.mark.parametrize(
    "error", [ServiceUnavailable("gone"), ModelNotReady("x", gate_reason=Reason.MODEL_NOT_LOADED)]
)
async def test_a_binding_that_says_error_raises(error: DetentError, tmp_path: Path) -> None:
    async with asking(client_of(tmp_path), error) as client:
        with pytest.raises(type(error)):
            await client.infer_signals(regime_binding(ERROR), (row(),))


@pytest.mark.parametrize(
    "error", [BindingMismatch("a", "b"), InvalidField("rows", 0, "1 to 5000 items")]
)
async def test_a_question_at_fault_is_not_answered_locally(
    error: DetentError, tmp_path: Path
) -> None:
    async with asking(client_of(tmp_path), error) as client:
        with pytest.raises(type(error)):
            await client.infer_signals(regime_binding(), (row(),))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"binding_hash": "0" * 64}, Reason.BINDING_MISMATCH),
        ({"model_version_hash": "0" * 64}, Reason.BINDING_MISMATCH),
        ({"calibration_version": "0" * 64}, Reason.CALIBRATION_FAILED),
        ({"rows": ()}, Reason.OUTPUT_INVALID),
    ],
)
async def test_an_answer_to_another_question_is_worth_a_fallback(
    changes: dict[str, Any], reason: Reason, tmp_path: Path
) -> None:
    binding = regime_binding()
    response = InferSignalsResponse(
        binding_hash=binding.binding_hash,
        model_version_hash=binding.model_version_hash,
        calibration_version=binding.calibration_version,
        rows=(),
    )
    async with asking(client_of(tmp_path), structs.replace(response, **changes)) as client:
        answers = await client.infer_signals(binding, (row(),))

    assert [(answer.answer, answer.reason) for answer in answers] == [(REGIME_NEUTRAL, reason)]


@pytest.mark.proves("R76", "R318")
async def test_the_client_remembers_what_the_service_gave_and_goes_on_with_it(
    tmp_path: Path,
) -> None:
    """The same fallback as the service's own: the symbol's last valid signal, while it is new."""
    artifact = head_artifact(Head.REGIME, PREVIOUS)
    handler = InferenceHandler(
        open_serving(artifact), max_inference_latency_ms=2_000, clock=time.monotonic
    )
    bad = InferenceRow(symbol=SYMBOL, model_input=poisoned(model_inputs()[1], symbol=SYMBOL))
    binding = artifact.pinned.binding
    async with (
        HandlerHost("InferenceService", handler) as host,
        client_of(tmp_path, target=host.target) as client,
    ):
        given = (await client.infer_signals(binding, (row(),), deadline_s=5.0))[0]
        by_service = (await client.infer_signals(binding, (bad,), deadline_s=5.0))[0]
        stolen = (await client.infer_signals(binding, (row(0, "ETHUSDT"),), deadline_s=5.0))[0]
        asking(client, ServiceUnavailable("gone"))
        by_client = (await client.infer_signals(binding, (row(1),)))[0]
        too_old = (await client.infer_signals(binding, (row(2),)))[0]
        other = (await client.infer_signals(binding, (row(1, "ETHUSDT"),)))[0]
        unbound = (await client.infer_signals(regime_binding(PREVIOUS), (row(1),)))[0]
    handler.close()

    assert isinstance(given.answer, RegimeSignal)
    assert given.reason is None
    assert given.snapshot is not None
    assert given.snapshot.model_hash == artifact.manifest.model_hash
    assert by_service.answer == by_client.answer == given.answer != REGIME_NEUTRAL
    assert by_service.reason is Reason.OUTPUT_INVALID
    assert (stolen.answer, stolen.reason) == (REGIME_NEUTRAL, Reason.FEATURES_MISSING)
    assert by_client.reason is Reason.CLIENT_NO_SERVICE
    assert too_old.answer == other.answer == unbound.answer == REGIME_NEUTRAL


@pytest.mark.proves("R77")
async def test_a_row_that_the_service_lost_raises_where_the_binding_says_error(
    tmp_path: Path,
) -> None:
    binding = regime_binding(ERROR)
    empty = InferSignalsResponse(
        binding_hash=binding.binding_hash,
        model_version_hash=binding.model_version_hash,
        calibration_version=binding.calibration_version,
        rows=(),
    )
    async with asking(client_of(tmp_path), empty) as client:
        with pytest.raises(SignalFailed) as refused:
            await client.infer_signals(binding, (row(),))

    assert refused.value.gate_reason is Reason.OUTPUT_INVALID


async def test_a_client_that_knows_no_service_or_no_model_says_so(tmp_path: Path) -> None:
    async with DetentClient(ClientOptions(journal_file=tmp_path / "journal.jsonl")) as client:
        with pytest.raises(InvalidField, match="inference_target"):
            await client.infer_signals(regime_binding(), (row(),))
    async with client_of(tmp_path) as client:
        with pytest.raises(InvalidField, match="signal_source"):
            await client.infer_signals(PROXY_BINDING, (row(),))


async def test_memory_of_bindings_is_bounded(tmp_path: Path) -> None:
    async with asking(client_of(tmp_path), ServiceUnavailable("gone")) as client:
        for index in range(20):
            binding = structs.replace(regime_binding(), data_cutoff_ts_ms=START_MS + index)
            await client.infer_signals(binding, (row(),))

        assert len(client._last_regimes) == 16


@pytest.mark.proves("R27")
async def test_client_gets_the_heaviest_features_when_it_asks(tmp_path: Path) -> None:
    serving = open_serving(head_artifact(Head.REGIME))
    binding = serving.artifact.pinned.binding
    handler = InferenceHandler(serving, max_inference_latency_ms=5_000, clock=time.monotonic)
    async with (
        HandlerHost("InferenceService", handler) as host,
        client_of(tmp_path, target=host.target) as client,
    ):
        asked, plain = [
            (await client.infer_signals(binding, (row(),), attributions=wish, deadline_s=10.0))[0]
            for wish in (True, False)
        ]
    handler.close()

    assert asked.snapshot is not None
    assert plain.snapshot is not None
    assert len(set(asked.snapshot.top_features)) == 3
    assert set(asked.snapshot.top_features) <= set(serving.artifact.manifest.input_features)
    assert plain.snapshot.top_features == ()
    assert asked.answer == plain.answer
