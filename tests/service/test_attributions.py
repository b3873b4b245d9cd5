"""Attributions on request: after the answer, inside the deadline, the same alone and in a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.unit.artifacts import artifact, model_inputs
from tests.unit.exported_artifacts import exported_artifact
from tests.unit.head_artifacts import head_artifact

from detent.adapters.serving import Serving, open_serving
from detent.contracts.binding import Head
from detent.contracts.calls.inference import (
    ATTRIBUTION_ROWS_MAX,
    DescribeArtifactRequest,
    InferenceRow,
    InferSignalsRequest,
    SignalRow,
)
from detent.contracts.errors import DeadlineExceeded, InvalidField, Overloaded
from detent.rpc.call import Call
from detent.servers.inference import attributing
from detent.servers.inference.attributing import check_explains
from detent.servers.inference.handler import InferenceHandler

SYMBOL = "BTCUSDT"


def call(*, left_s: float = 20.0) -> Call:
    return Call(
        deadline_s=time.monotonic() + left_s, clock=time.monotonic, identity="", trace=Context()
    )


@pytest.fixture(name="serving", scope="module", params=[None, Head.REGIME, Head.BRACKETS])
def _serving(request: pytest.FixtureRequest) -> Serving:
    """Give a linear model, explained exactly, and heads that are not."""
    return open_serving(artifact() if request.param is None else head_artifact(request.param))


@pytest.fixture(name="handler")
def _handler(serving: Serving) -> Iterator[InferenceHandler]:
    handler = InferenceHandler(serving, max_inference_latency_ms=5_000, clock=time.monotonic)
    yield handler
    handler.close()


async def answers(
    handler: InferenceHandler, serving: Serving, *places: int, attributions: bool = True
) -> list[SignalRow]:
    """Ask for some inputs and give the rows without what is outside every digest."""
    query = InferSignalsRequest(
        binding_hash=serving.artifact.pinned.binding_hash,
        rows=tuple(
            InferenceRow(symbol=SYMBOL, model_input=model_inputs()[place]) for place in places
        ),
        attributions=attributions,
    )
    rows = (await handler.infer_signals(query, call())).rows
    assert all(row.signal is not None for row in rows)
    return [
        structs.replace(row, signal=structs.replace(row.signal, inference_latency_us=0))
        for row in rows
        if row.signal is not None
    ]


@pytest.mark.proves("R27")
async def test_answers_name_three_known_features_the_same_alone_and_in_a_batch(
    handler: InferenceHandler, serving: Serving
) -> None:
    places = list(range(0, 200, 5))
    batch = await answers(handler, serving, *places)
    named = set()
    for place, row in list(zip(places, batch, strict=True))[:12]:
        assert await answers(handler, serving, place) == [row]
    for row in batch:
        assert row.signal is not None
        weights = row.signal.top_feature_weights_x1000
        assert len(set(row.signal.top_features)) == 3
        assert set(row.signal.top_features) <= set(serving.artifact.manifest.input_features)
        assert 1_000 >= weights[0] >= weights[1] >= weights[2] >= 0
        assert sum(weights) <= 1_001
        named.add(row.signal.top_features)

    assert len(named) > 1, "the same three for every row explain nothing"


async def test_asking_changes_no_answer(handler: InferenceHandler, serving: Serving) -> None:
    places = range(20)
    asked = await answers(handler, serving, *places)
    plain = await answers(handler, serving, *places, attributions=False)
    bare = [
        structs.replace(
            row,
            signal=structs.replace(row.signal, top_features=(), top_feature_weights_x1000=()),
        )
        for row in asked
        if row.signal is not None
    ]

    assert bare == plain
    assert asked != plain


async def test_description_says_how_exact_the_weights_are(
    handler: InferenceHandler, serving: Serving
) -> None:
    query = DescribeArtifactRequest(binding_hash=serving.artifact.pinned.binding_hash)
    facts = (await handler.describe_artifact(query, call())).attributions

    assert facts is not None
    is_linear = serving.artifact.manifest.architecture_id == "logistic" and facts.exact
    assert facts.method == ("shapley_linear" if is_linear else "occlusion")
    assert facts.exact == (serving.artifact.manifest.head is Head.DIRECTION)


def test_more_rows_than_the_limit_are_refused() -> None:
    row = InferenceRow(symbol=SYMBOL, model_input=model_inputs()[0])
    rows = (row,) * (ATTRIBUTION_ROWS_MAX + 1)
    binding_hash = artifact().pinned.binding_hash

    assert InferSignalsRequest(binding_hash=binding_hash, rows=rows).attributions is False
    with pytest.raises(InvalidField, match="1 to 256 items"):
        InferSignalsRequest(binding_hash=binding_hash, rows=rows, attributions=True)


async def test_too_little_time_fails_the_call(
    handler: InferenceHandler, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await answers(handler, serving, 0))[0].signal is not None
    monkeypatch.setattr(handler._attributing, "_clock", iter([0.0, 1e9, 1e9]).__next__)

    with pytest.raises(DeadlineExceeded, match="attributions"):
        await answers(handler, serving, 0)


async def test_too_many_callers_are_shed(
    handler: InferenceHandler, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributing, "CALLS_MAX", 0)

    with pytest.raises(Overloaded, match="attributions"):
        await answers(handler, serving, 0)
    assert await answers(handler, serving, 0, attributions=False)


def test_model_of_two_features_cannot_name_three(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(5).normal(0, 1, (60, 2)).astype(np.float32)
    model = LogisticRegression().fit(rows, rows[:, 0] > 0)
    graph = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
    graph.graph.input[0].name = "input"
    graph.graph.node[0].input[0] = "input"
    serving = open_serving(exported_artifact(tmp_path, graph.SerializeToString(), rows))

    assert serving.explainer is None
    with pytest.raises(InvalidField, match="fewer than 3 features"):
        check_explains(serving)
