"""Follows one decision over every hop: one trace, the right parents, the right order."""

import collections

import pytest
from tests.conftest import Artifacts, client_of
from tests.strategist import Strategist, feed

from detent.adapters.telemetry import Telemetry
from detent_cli.demo.spans import Span, read_spans
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient


@pytest.fixture(name="spans")
async def _spans(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> list[Span]:
    """Decide one bar through three processes and read the spans that they wrote."""
    state_dir = tmp_path_factory.mktemp("traced")
    telemetry = Telemetry("client", otlp_endpoint=None, trace_file=state_dir / "client.spans.jsonl")
    environment = {"DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS": "2000"}
    options = StackOptions(
        artifact_dir=artifacts.stable, state_dir=state_dir, environment=environment
    )
    with Stack(options) as stack:
        async with client_of(stack, state_dir / "feeder.jsonl") as feeder:
            await feed(feeder, artifacts.bars)
        client_options = ClientOptions(
            journal_file=state_dir / "journal.jsonl",
            policy_target=stack.targets["policy"],
            deadline_s=5.0,
        )
        async with DetentClient(client_options, tracer=telemetry.tracer) as client:
            strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
            await client.decide(
                strategist.opened,
                ts_ms=strategist.bars[300].ts_ms,
                row=strategist.row(300),
            )
    telemetry.close()
    root = next(s for s in read_spans(state_dir) if s.name == "client/DecideTargetWeights")
    return [span for span in read_spans(state_dir) if span.trace_id == root.trace_id]


@pytest.mark.proves("R98", "R320")
async def test_one_decision_is_one_trace_over_every_hop(spans: list[Span]) -> None:
    by_id = {span.span_id: span for span in spans}
    parents = {
        (span.process, span.name): (
            (by_id[span.parent_id].process, by_id[span.parent_id].name)
            if span.parent_id is not None
            else None
        )
        for span in spans
    }
    counted = collections.Counter((span.process, span.name) for span in spans)

    assert all(count == 1 for count in counted.values())
    decide, features, infer = (
        "PolicyService/DecideTargetWeights",
        "FeatureService/GetFeatureSnapshots",
        "InferenceService/InferSignals",
    )
    assert parents == {
        ("client", "client/DecideTargetWeights"): None,
        ("client", decide): ("client", "client/DecideTargetWeights"),
        ("policy", decide): ("client", decide),
        ("policy", "features"): ("policy", decide),
        ("policy", features): ("policy", "features"),
        ("feature", features): ("policy", features),
        ("policy", "inference"): ("policy", decide),
        ("policy", infer): ("policy", "inference"),
        ("inference", infer): ("policy", infer),
        ("policy", "decide"): ("policy", decide),
        ("policy", "record"): ("policy", decide),
    }
    steps = sorted(
        (span for span in spans if span.name in ("features", "inference", "decide", "record")),
        key=lambda span: span.start_ms,
    )
    assert [span.name for span in steps] == ["features", "inference", "decide", "record"]
    served = next(s for s in spans if (s.process, s.name) == ("policy", decide))
    assert set(served.attributes) >= {"binding_hash", "plan_id", "ts_ms"}
    for process, name in (("feature", features), ("inference", infer)):
        hop = next(s for s in spans if (s.process, s.name) == (process, name))
        assert hop.attributes["binding_hash"] == served.attributes["binding_hash"]


@pytest.mark.proves("R35")
def test_the_span_of_an_inference_names_the_model(spans: list[Span], artifacts: Artifacts) -> None:
    found = [span for span in spans if span.name == "InferenceService/InferSignals"]
    served = next(span for span in found if span.process == "inference")
    binding = artifacts.stable_binding

    assert served.attributes["binding_hash"] == binding.binding_hash
    assert served.attributes["model_id"] == binding.model_id
    assert str(served.attributes["model_version"]) == binding.model_id.rpartition("_")[2]
    assert len(str(served.attributes["model_hash"])) == 16
