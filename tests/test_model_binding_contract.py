"""Proves that a plan pins one artifact: every hop checks it, and nothing changes it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from msgspec import structs
from tests.builders import SYMBOL, model_binding, plan_of
from tests.conftest import Artifacts
from tests.fakes import model_input_of, send
from tests.strategist import Strategist, fresh_plan_id, ledger_rows, noted, recorded

from detent.api.v1 import policy_service_pb2
from detent.contracts.binding import (
    PROXY_BINDING,
    PROXY_BINDING_HASH,
    Head,
    ModelBinding,
    SignalSource,
    TrainingWindow,
)
from detent.contracts.calls.feature import (
    DescribeFeatureSetRequest,
    GetFeatureSnapshotsRequest,
    SnapshotView,
)
from detent.contracts.calls.inference import (
    DescribeArtifactRequest,
    InferenceRow,
    InferSignalsRequest,
)
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    DecideTargetWeightsRequest,
    OpenPlanRequest,
    ReportLocalAnswersRequest,
)
from detent.contracts.canonical import canonical_hash
from detent.contracts.decision import DecisionKind, LocalAnswer
from detent.contracts.errors import BindingMismatch, HorizonMismatch, InvalidField, PlanConflict
from detent.contracts.json_codec import to_json
from detent.contracts.plan import Plan
from detent.contracts.reasons import ErrorReason, Reason
from detent.contracts.wire import to_wire
from detent_cli.stack import Stack
from detent_client import DetentClient

OTHER = {
    "head": Head.REGIME,
    "model_id": "direction_test_v1.0.1",
    "model_version_hash": "f" * 64,
    "feature_version": "f" * 64,
    "label_definition": "another question",
    "horizon_id": "h8",
    "horizon_bars": 8,
    "calibration_version": "f" * 64,
    "training_window": TrainingWindow(start_ts_ms=1_600_000_000_000, end_ts_ms=1_610_000_000_000),
    "data_cutoff_ts_ms": 1_699_999_999_999,
    "architecture_id": "linear",
}


def wrong_hashes(right: str) -> dict[str, str]:
    """Give what a careless or hostile caller sends instead of a binding hash."""
    return {
        "missing": "",
        "upper case": right.upper(),
        "another's": "f" * 64,
        "one digit": ("0" if right[0] != "0" else "1") + right[1:],
        "short": right[:16],
        "padded": f" {right}",
        "look-alike": right.replace("a", "\N{CYRILLIC SMALL LETTER A}").replace("0", "O"),
    }


WRONG = tuple(wrong_hashes("a0" * 32))


# The binding itself


@pytest.mark.proves("R173", "R174", "R175", "R176", "R177", "R178", "R179", "R180", "R181")
@pytest.mark.proves("R182", "R183")
@pytest.mark.parametrize("field", [*OTHER, "signal_source", "fallback_signal_source"])
async def test_a_binding_without_a_field_is_refused_by_its_path(
    stack: Stack, artifacts: Artifacts, field: str
) -> None:
    binding = artifacts.stable_binding
    message = opening(plan_of(fresh_plan_id()), binding)
    message.model_binding.ClearField(field)

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.field == f"model_binding.{field}"
    assert refused.value.metadata["expected"]


@pytest.mark.proves("R173")
async def test_a_plan_without_a_binding_is_refused(stack: Stack, artifacts: Artifacts) -> None:
    message = opening(plan_of(fresh_plan_id()), artifacts.stable_binding)
    message.ClearField("model_binding")

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.field == "source"
    assert "model_binding" in str(refused.value.expected)


@pytest.mark.proves("R175", "R176", "R177", "R178", "R179", "R180", "R181", "R182")
@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_a_binding_is_part_of_its_hash(field: str) -> None:
    binding = model_binding()

    changed = structs.replace(binding, **{field: OTHER[field]})

    assert changed.binding_hash != binding.binding_hash


@pytest.mark.proves("R174", "R183")
@pytest.mark.parametrize("field", [*OTHER, "signal_source", "fallback_signal_source"])
def test_the_hash_covers_exactly_the_canonical_json(field: str) -> None:
    """Two fields can have one value only, so their place in the hash is shown on the JSON."""
    binding = model_binding()
    fields = to_json(binding)

    assert canonical_hash(ModelBinding.SCHEMA, fields) == binding.binding_hash
    assert canonical_hash(ModelBinding.SCHEMA, fields | {field: None}) != binding.binding_hash


@pytest.mark.proves("R137", "R174")
def test_rolling_back_is_one_field_and_gives_the_published_hash() -> None:
    binding = model_binding()

    rolled_back = structs.replace(binding, signal_source=SignalSource.PROXY)

    assert rolled_back.binding_hash == PROXY_BINDING_HASH

    before, after = to_json(binding), to_json(rolled_back)
    assert [name for name in before if before[name] != after[name]] == ["signal_source"]


@pytest.mark.proves("R138")
@pytest.mark.parametrize("number", [0, 3, 99, -1])
async def test_a_signal_source_that_is_neither_proxy_nor_model_is_refused(
    stack: Stack, artifacts: Artifacts, number: int
) -> None:
    message = opening(plan_of(fresh_plan_id()), artifacts.stable_binding)
    message.model_binding.signal_source = number

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.field == "model_binding.signal_source"
    assert refused.value.metadata["expected"] == "one of proxy, model"


def test_a_binding_that_saw_data_after_its_cutoff_is_refused() -> None:
    window = model_binding().training_window
    assert window is not None

    with pytest.raises(InvalidField, match="data_cutoff_ts_ms"):
        model_binding(data_cutoff_ts_ms=window.end_ts_ms - 1)


# The horizon


@pytest.mark.proves("R141", "R184")
async def test_a_binding_of_another_horizon_is_refused_when_the_plan_opens(
    client: DetentClient, artifacts: Artifacts
) -> None:
    plan = plan_of(fresh_plan_id())
    config = structs.replace(plan.policy_config, horizon_id="h24")

    with pytest.raises(HorizonMismatch) as refused:
        await client.open_plan(
            structs.replace(plan, policy_config=config), artifacts.stable_binding
        )

    assert refused.value.metadata["field"] == "plan.policy_config.horizon_id"
    assert refused.value.metadata["found"] == "h24"
    assert "h4" in refused.value.metadata["expected"]
    assert isinstance(refused.value.__cause__, grpc.aio.AioRpcError)
    assert refused.value.__cause__.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_binding_of_other_bars_is_refused_when_the_plan_opens(
    client: DetentClient, artifacts: Artifacts
) -> None:
    """A quarter-hourly plan would ask an hourly model about every fourth bar, wrongly."""
    plan = plan_of(fresh_plan_id(), bar_interval_ms=900_000)

    with pytest.raises(HorizonMismatch) as refused:
        await client.open_plan(plan, artifacts.stable_binding)

    assert refused.value.metadata == {
        "field": "plan.bar_interval_ms",
        "found": "900000",
        "expected": "3600000",
    }


@pytest.mark.proves("R184")
async def test_a_binding_with_a_forged_horizon_is_held_by_nobody(
    client: DetentClient, artifacts: Artifacts
) -> None:
    """Changing the binding to fit the plan changes its hash, which no manifest gives."""
    forged = structs.replace(artifacts.stable_binding, horizon_id="h24")
    plan = plan_of(fresh_plan_id())
    config = structs.replace(plan.policy_config, horizon_id="h24")

    with pytest.raises(BindingMismatch):
        await client.open_plan(structs.replace(plan, policy_config=config), forged)


# The hash at each hop


@pytest.mark.proves("R319")
@pytest.mark.parametrize("case", WRONG)
async def test_policy_refuses_a_wrong_hash_on_every_call(
    stack: Stack, client: DetentClient, artifacts: Artifacts, case: str
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    right, plan_id = strategist.opened.binding_hash, strategist.plan_id
    wrong = wrong_hashes(right)[case]
    row, ts_ms = strategist.row(100), strategist.bars[100].ts_ms
    local = LocalAnswer(
        ts_ms=ts_ms,
        kind=DecisionKind.BAR,
        row=row,
        target_weight_final_ppm=0,
        reason=Reason.CLIENT_NO_SERVICE,
    )
    unopened = plan_of(fresh_plan_id())
    questions = (
        OpenPlanRequest(binding_hash=wrong, plan=unopened, model_binding=artifacts.stable_binding),
        deciding(wrong, plan_id, ts_ms=ts_ms, row=row),
        ReportLocalAnswersRequest(binding_hash=wrong, plan_id=plan_id, answers=(local,)),
        ClosePlanRequest(binding_hash=wrong, plan_id=plan_id),
    )

    for question in questions:
        await assert_refused(stack.targets["policy"], to_wire(question), wrong, right)

    assert recorded(stack.ledger_file, plan_id) == []


@pytest.mark.proves("R319")
@pytest.mark.parametrize("case", WRONG)
async def test_the_feature_service_refuses_a_wrong_hash(
    stack: Stack, artifacts: Artifacts, case: str
) -> None:
    right = artifacts.stable_binding.binding_hash
    wrong = wrong_hashes(right)[case]
    snapshots = GetFeatureSnapshotsRequest(
        binding_hash=wrong,
        as_of_ts_ms=artifacts.bars[SYMBOL][100].ts_ms,
        symbols=(SYMBOL,),
        view=SnapshotView.INPUT,
    )

    # It holds two artifacts here, and a message has no room for every hash that it takes.
    expected = "64 lowercase hex of one of 2 held here"
    for question in (snapshots, DescribeFeatureSetRequest(binding_hash=wrong)):
        await assert_refused(stack.targets["feature"], to_wire(question), wrong, expected)


@pytest.mark.proves("R319", "R69")
@pytest.mark.parametrize("case", WRONG)
async def test_the_inference_service_refuses_a_wrong_hash(
    stack: Stack, artifacts: Artifacts, case: str
) -> None:
    right = artifacts.stable_binding.binding_hash
    wrong = wrong_hashes(right)[case]
    row = InferenceRow(symbol=SYMBOL, model_input=model_input_of(SYMBOL, 1_700_000_000_000))

    for question in (
        InferSignalsRequest(binding_hash=wrong, rows=(row,)),
        DescribeArtifactRequest(binding_hash=wrong),
    ):
        await assert_refused(stack.targets["inference"], to_wire(question), wrong, right)


@pytest.mark.proves("R319")
async def test_inference_refuses_a_binding_of_an_artifact_that_it_does_not_serve(
    stack: Stack, artifacts: Artifacts
) -> None:
    """The candidate is sound and its manifest is at hand; it is not what this process pins."""
    candidate = artifacts.candidate_binding.binding_hash

    await assert_refused(
        stack.targets["inference"],
        to_wire(DescribeArtifactRequest(binding_hash=candidate)),
        candidate,
        artifacts.stable_binding.binding_hash,
    )


@pytest.mark.proves("R319", "R186")
async def test_a_refused_hash_is_noted_and_leaves_the_key_free(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    right, plan_id = strategist.opened.binding_hash, strategist.plan_id
    question = deciding(
        right.upper(), plan_id, ts_ms=strategist.bars[200].ts_ms, row=strategist.row(200)
    )

    with pytest.raises(BindingMismatch):
        await send(stack.targets["policy"], to_wire(question))
    decision = await strategist.decide(200)

    (event,) = noted(stack.ledger_file, plan_id)
    assert event["reason"] == ErrorReason.BINDING_MISMATCH
    assert event["method"] == "PolicyService/DecideTargetWeights"
    assert event["binding_hash"] == right.upper()
    assert event["ts_ms"] == strategist.bars[200].ts_ms
    assert right in event["metadata"]
    (record,) = recorded(stack.ledger_file, plan_id)
    assert (record["sequence"], record["record_hash"]) == (0, decision.record_hash)


# A plan under way


@pytest.mark.proves("R185", "R186", "R187")
async def test_a_change_of_binding_under_a_plan_is_refused_with_both_hashes(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    plan, bound = strategist.opened.plan, strategist.opened.binding_hash

    for binding in (artifacts.candidate_binding, PROXY_BINDING):
        with pytest.raises(PlanConflict) as refused:
            await client.open_plan(plan, binding)

        assert refused.value.metadata["found"] == binding.binding_hash
        assert refused.value.metadata["expected"] == bound
    events = ledger_rows(
        stack.ledger_file,
        "SELECT * FROM block_events WHERE reason = ? AND metadata LIKE ?",
        ErrorReason.PLAN_CONFLICT.value,
        f"%{plan.plan_id}%",
    )
    assert [event["binding_hash"] for event in events] == [
        artifacts.candidate_binding.binding_hash,
        PROXY_BINDING_HASH,
    ]
    assert (await client.get_plan(plan.plan_id)).binding_hash == bound


@pytest.mark.proves("R185")
def test_the_contract_offers_no_way_to_change_a_plan() -> None:
    """What cannot be asked for cannot be granted by mistake: a binding comes with a new plan."""
    service = policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"]
    taking = {
        name: {
            method.name for method in service.methods if name in method.input_type.fields_by_name
        }
        for name in ("model_binding", "plan")
    }

    assert taking["model_binding"] == taking["plan"] == {"OpenPlan", "ReplacePlan"}


@pytest.mark.proves("R187")
async def test_the_name_of_a_closed_plan_is_used_up(
    client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    await client.close_plan(strategist.opened)

    for binding in (artifacts.stable_binding, artifacts.candidate_binding, PROXY_BINDING):
        with pytest.raises(PlanConflict, match="new plan id"):
            await client.open_plan(strategist.opened.plan, binding)


@pytest.mark.proves("R187")
async def test_other_content_under_the_name_of_an_open_plan_is_refused(
    client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    plan = strategist.opened.plan
    config = structs.replace(plan.policy_config, tau_bps=999)

    with pytest.raises(PlanConflict, match="other content"):
        await client.open_plan(
            structs.replace(plan, policy_config=config), artifacts.stable_binding
        )
    again = await client.open_plan(plan, artifacts.stable_binding)

    assert again == strategist.opened


@pytest.mark.proves("R69", "R186", "R188", "R319")
async def test_a_model_deployed_under_an_open_plan_never_answers_for_it(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    before = await strategist.decide(150)
    other = serving(stack, artifacts.candidate)
    stack.kill("inference")
    other.start("inference")
    # Policy looks for a lost server five times a second.
    await asyncio.sleep(0.5)
    try:
        deployed = [await strategist.decide(index) for index in (151, 152)]
    finally:
        other.kill("inference")
        stack.start("inference")
    await asyncio.sleep(0.5)
    after = await strategist.decide(153)

    assert before.signal_source is after.signal_source is SignalSource.MODEL
    assert [decision.signal_source for decision in deployed] == [SignalSource.PROXY] * 2
    assert {decision.fallback_reason for decision in deployed} == {Reason.BINDING_MISMATCH}
    records = recorded(stack.ledger_file, strategist.plan_id)
    assert {record["model_version_hash"] for record in records} == {
        artifacts.stable_binding.model_version_hash
    }
    assert {record["binding_hash"] for record in records} == {strategist.opened.binding_hash}


@pytest.mark.proves("R188")
async def test_every_bar_of_a_plan_is_answered_by_one_artifact(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    for index in range(100, 120):
        await strategist.decide(index)

    records = recorded(stack.ledger_file, strategist.plan_id)
    assert len(records) == 20
    assert {record["signal_source"] for record in records} == {"model"}
    assert {record["binding_hash"] for record in records} == {strategist.opened.binding_hash}
    assert {record["model_version_hash"] for record in records} == {
        artifacts.stable_binding.model_version_hash
    }


async def test_a_binding_that_no_held_manifest_gives_is_refused(
    client: DetentClient,
) -> None:
    with pytest.raises(BindingMismatch, match="held manifest"):
        await client.open_plan(plan_of(fresh_plan_id()), model_binding())


def opening(plan: Plan, binding: ModelBinding) -> Any:
    request = OpenPlanRequest(binding_hash=binding.binding_hash, plan=plan, model_binding=binding)
    return to_wire(request)


def deciding(binding_hash: str, plan_id: str, *, ts_ms: int, row: Any) -> Any:
    return DecideTargetWeightsRequest(
        binding_hash=binding_hash,
        plan_id=plan_id,
        ts_ms=ts_ms,
        kind=DecisionKind.BAR,
        rows=(row,),
    )


async def assert_refused(target: str, message: Message, found: str, expected: str) -> None:
    with pytest.raises(BindingMismatch) as refused:
        await send(target, message)

    assert refused.value.metadata["found"] == (found or "(missing)")
    assert expected in refused.value.metadata["expected"]


def serving(stack: Stack, artifact_dir: Path) -> Stack:
    """Give a stack at the same addresses that serves another artifact."""
    ports = {name: int(target.rpartition(":")[2]) for name, target in stack.targets.items()}
    options = structs.replace(stack._options, artifact_dir=artifact_dir, ports=ports)
    return Stack(options)
