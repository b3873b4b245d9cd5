"""Proves that bad input is refused over the wire: by its path, with what was found and expected."""

import struct
from typing import Any

import grpc
import pytest
from tests.builders import HOUR_MS, START_MS, SYMBOL, emergency, plan_of, row_of
from tests.conftest import Artifacts
from tests.fakes import send
from tests.strategist import Strategist, fresh_plan_id, ledger_rows, noted, recorded

from detent.api.v1 import feature_service_pb2, reason_pb2
from detent.contracts.binding import PROXY_BINDING, PROXY_BINDING_HASH
from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    IngestMarketDataRequest,
    MarketEvent,
    ModelInput,
    SnapshotView,
)
from detent.contracts.calls.inference import InferenceRow, InferSignalsRequest
from detent.contracts.calls.policy import DecideTargetWeightsRequest, OpenPlanRequest
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import (
    BarFromFuture,
    InvalidField,
    Overloaded,
    PlanNotFound,
    shown,
)
from detent.contracts.market import Bar
from detent.contracts.plan import RiskOverrides, StandDown, StandDownSource
from detent.contracts.reasons import Reason
from detent.contracts.wire import to_wire
from detent.core.features.model_input import features_hash
from detent.rpc.status import from_rpc_error
from detent_cli.stack import Stack
from detent_client import DetentClient

NOT_TIMES = (0, -1, -START_MS, START_MS // 1000, START_MS * 1000, 2**63 - 1, -(2**63))
NOT_PRICES = (
    "",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "inf",
    "-1",
    "0",
    "1e5",
    "1E-5",
    "1.",
    ".5",
    "+1",
    " 1",
    "1 ",
    "01",
    "1,5",
    "1_000",
    "0x10",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "1" * 41,
)


def set_path(message: Any, path: str, value: Any) -> None:
    """Set a field of a message by its path, for example `rows[0].position.equity`."""
    *parents, last = path.split(".")
    for part in parents:
        name, _, index = part.rstrip("]").partition("[")
        message = getattr(message, name)
        message = message[int(index)] if index else message
    name, _, index = last.rstrip("]").partition("[")
    if isinstance(value, list):
        del getattr(message, name)[:]
        getattr(message, name).extend(value)
    elif index:
        getattr(message, name)[int(index)] = value
    elif value is None:
        message.ClearField(name)
    else:
        setattr(message, name, value)


# A bar

BAD_BARS: list[tuple[str, Any]] = [
    *(("ts_ms", value) for value in NOT_TIMES),
    *(("rows[0].bar_close", value) for value in NOT_PRICES),
    *(("rows[0].position.equity", value) for value in ("0", "-1", "NaN", "1e9", "")),
    ("rows[0].position.current_weight_ppm", 100_000_001),
    ("rows[0].position.current_weight_ppm", -(2**63)),
    ("rows[0].position", None),
    ("rows[0].trigger_state", 0),
    ("rows[0].trigger_state", 99),
    ("rows[0].vol_unit", 0),
    ("rows[0].vol_unit", -1),
    ("kind", 0),
    ("kind", 7),
    *(("rows[0].symbol", value) for value in ("", "eurusd", "EUR USD", "E" * 33, "\u0415URUSD")),
    ("rows[0].active_trigger_ids", ["a", "a"]),
    ("rows[0].active_trigger_ids", ["not a name"]),
    ("rows[0].active_trigger_ids", [f"t{index}" for index in range(257)]),
    ("rows[0].exit_intent.kind", 0),
    ("rows[0].risk_overrides.max_weight_ppm", -1),
    ("rows[0].risk_overrides.max_weight_ppm", 1_000_001),
    ("rows[0].risk_overrides.stand_down.until_ts_ms", START_MS // 1000),
    ("rows[0].risk_overrides.stand_down.source", 0),
    ("rows[0].risk_overrides.stand_down.source", 99),
    ("rows[0].risk_overrides.stand_down.reason", ""),
    ("rows[0].risk_overrides.stand_down.reason", "x" * 513),
]


@pytest.mark.proves("R17", "R18", "R213", "R220")
@pytest.mark.parametrize(("path", "value"), BAD_BARS, ids=lambda item: str(item)[:40])
async def test_a_bad_bar_is_refused_by_its_path_and_decides_nothing(
    stack: Stack, opened: Strategist, path: str, value: Any
) -> None:
    message = asking(opened)
    set_path(message, path, value)

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.field == path
    assert_says(refused.value, value)
    assert recorded(stack.ledger_file, opened.plan_id) == []
    assert noted(stack.ledger_file, opened.plan_id)[-1]["reason"] == "INVALID_FIELD"


def assert_says(error: InvalidField, value: Any) -> None:
    """Hold a refusal to naming what was there and what should have been."""
    found = error.metadata["found"]
    assert error.metadata["expected"]
    if value is None:
        assert found == "(missing)"
    elif isinstance(value, list):
        assert found in value or found == f"{len(value)} items"
    elif found == "(unspecified)":
        assert value == 0
    else:
        assert str(value).startswith(found.removesuffix("\N{HORIZONTAL ELLIPSIS}"))


@pytest.fixture(name="opened")
async def _opened(client: DetentClient, artifacts: Artifacts) -> Strategist:
    return await Strategist.open(client, artifacts.bars, PROXY_BINDING)


def asking(opened: Strategist, index: int = 100) -> Any:
    """Give a sound question, with every optional part filled in."""
    row = row_of(
        SYMBOL,
        close=opened.bars[index].close,
        exit_intent=emergency(),
        risk_overrides=RiskOverrides(
            max_weight_ppm=1,
            stand_down=StandDown(until_ts_ms=START_MS, reason="news", source=StandDownSource.OPS),
        ),
    )
    return to_wire(
        DecideTargetWeightsRequest(
            binding_hash=PROXY_BINDING_HASH,
            plan_id=opened.plan_id,
            ts_ms=opened.bars[index].ts_ms,
            kind=DecisionKind.BAR,
            rows=(row,),
        )
    )


async def test_the_sound_question_behind_these_is_answered(
    stack: Stack, opened: Strategist
) -> None:
    """The control: it is the spoilt field that was refused, and nothing else about it."""
    answer = await send(stack.targets["policy"], asking(opened))

    assert answer.results[0].HasField("decision")


async def test_rows_are_one_per_symbol_at_least_one_and_not_too_many(
    stack: Stack, opened: Strategist
) -> None:
    message = asking(opened)
    row = message.rows[0]
    for rows, found in (([], "0 items"), ([row, row], SYMBOL), ([row] * 5_001, "5001 items")):
        del message.rows[:]
        message.rows.extend(rows)

        with pytest.raises(InvalidField) as refused:
            await send(stack.targets["policy"], message)

        assert (refused.value.field, refused.value.metadata["found"]) == ("rows", found)


async def test_a_bar_from_the_future_is_refused_with_both_times(
    stack: Stack, opened: Strategist
) -> None:
    message = asking(opened)
    message.ts_ms = 4_000_000_000_000

    with pytest.raises(BarFromFuture) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.metadata["ts_ms"] == "4000000000000"
    assert int(refused.value.metadata["now_ms"]) < 4_000_000_000_000
    assert recorded(stack.ledger_file, opened.plan_id) == []


async def test_a_plan_that_nobody_opened_is_not_found(stack: Stack, opened: Strategist) -> None:
    message = asking(opened)
    message.plan_id = "nobody"

    with pytest.raises(PlanNotFound, match="nobody"):
        await send(stack.targets["policy"], message)


# A plan

BAD_PLANS: list[tuple[str, str, Any]] = [
    ("plan_id", "plan_id", ""),
    ("plan_id", "plan_id", "a b"),
    ("plan_id", "plan_id", "x" * 129),
    ("book", "book", ""),
    ("symbols", "symbols", []),
    ("symbols", "symbols", ["EURUSD", "EURUSD"]),
    ("symbols", "symbols", ["eurusd"]),
    ("bar_interval_ms", "bar_interval_ms", 0),
    ("bar_interval_ms", "bar_interval_ms", -HOUR_MS),
    ("triggers[0].trigger_id", "triggers[0].trigger_id", ""),
    ("triggers[0].parameters_hash", "triggers[0].parameters_hash", "A" * 64),
    ("policy_config", "policy_config", None),
    ("policy_config.horizon_id", "policy_config.horizon_id", ""),
    ("policy_config.tau_bps", "policy_config.tau_bps", 10_000),
    ("policy_config.vol_target_ppm", "policy_config.vol_target_ppm", 0),
    ("policy_config.vol_unit", "policy_config.vol_unit", 0),
    ("policy_config.w_min_ppm", "policy_config.w_min_ppm", 250_001),
    ("policy_config.w_max_ppm", "policy_config.w_max_ppm", 1_000_001),
    ("policy_config.epsilon_w_ppm", "policy_config.epsilon_w_ppm", -1),
    *(
        ("policy_config.min_trade_notional", "policy_config.min_trade_notional", value)
        for value in ("", "1e1", "NaN", "-1", "10,0")
    ),
    ("policy_config.symbol_allowlist", "policy_config.symbol_allowlist", ["usdjpy"]),
    ("symbol_allowlist", "policy_config.symbol_allowlist", ["USDJPY"]),
    ("risk_limits", "risk_limits", None),
    ("risk_limits.max_weight_ppm", "risk_limits.max_weight_ppm", 1_000_001),
]


@pytest.mark.proves("R17", "R211")
@pytest.mark.parametrize(("field", "path", "value"), BAD_PLANS, ids=lambda item: str(item)[:40])
async def test_a_bad_plan_is_refused_by_its_path_and_not_opened(
    stack: Stack, field: str, path: str, value: Any
) -> None:
    plan_id = fresh_plan_id("bad")
    query = OpenPlanRequest(
        binding_hash=PROXY_BINDING_HASH, plan=plan_of(plan_id), model_binding=PROXY_BINDING
    )
    message = to_wire(query)
    set_path(message.plan, path, value)

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["policy"], message)

    assert refused.value.field == f"plan.{field}"
    assert refused.value.metadata["expected"]
    sql = "SELECT * FROM plan_log WHERE plan_id = ?"
    assert ledger_rows(stack.ledger_file, sql, plan_id) == []


# Market data

BAD_DATA: list[tuple[str, Any]] = [
    *(("ts_ms", value) for value in NOT_TIMES),
    *(("close", value) for value in NOT_PRICES),
    ("interval_ms", 0),
    ("volume", "-1"),
    ("volume", "1e3"),
    ("high", "0.00001"),
    ("symbol", "eurusd"),
]


@pytest.mark.proves("R17", "R18")
@pytest.mark.parametrize(("field", "value"), BAD_DATA, ids=lambda item: str(item)[:40])
async def test_a_bad_bar_of_market_data_is_refused_by_its_path(
    stack: Stack, artifacts: Artifacts, field: str, value: Any
) -> None:
    bar: Bar = artifacts.bars[SYMBOL][-1]
    message = to_wire(IngestMarketDataRequest(events=(MarketEvent(bar=bar),)))
    setattr(message.events[0].bar, field, value)

    answer = await ingest(stack.targets["feature"], message)

    assert (answer.accepted_count, answer.refused_count) == (0, 1)
    (refusal,) = answer.refusals
    assert (refusal.index, refusal.reason) == (0, reason_pb2.ERROR_REASON_INVALID_FIELD)
    assert refusal.message.startswith(f"bar.{field}: found ")
    assert shown(value) in refusal.message


async def ingest(target: str, *messages: Any) -> Any:
    """Stream messages as they are; `send` knows calls with one request only."""
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_unary(
            "/detent.api.v1.FeatureService/IngestMarketData",
            request_serializer=feature_service_pb2.IngestMarketDataRequest.SerializeToString,
            response_deserializer=feature_service_pb2.IngestMarketDataResponse.FromString,
        )
        try:
            return await call(iter(messages), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("FeatureService", error) from error


@pytest.mark.proves("R18")
@pytest.mark.parametrize("as_of_ts_ms", NOT_TIMES)
async def test_features_as_of_no_time_are_refused(
    stack: Stack, artifacts: Artifacts, as_of_ts_ms: int
) -> None:
    message = to_wire(
        GetFeatureSnapshotsRequest(
            binding_hash=artifacts.stable_binding.binding_hash,
            as_of_ts_ms=START_MS,
            symbols=(SYMBOL,),
            view=SnapshotView.INPUT,
        )
    )
    message.as_of_ts_ms = as_of_ts_ms

    with pytest.raises(InvalidField, match="as_of_ts_ms"):
        await send(stack.targets["feature"], message)


# A model input


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (struct.pack("<11f", *[float("nan")] + [0.0] * 10), Reason.FEATURES_MISSING),
        (struct.pack("<11f", *[0.0] * 10 + [float("inf")]), Reason.FEATURES_MISSING),
        (struct.pack("<10f", *[0.0] * 10), Reason.FEATURE_VERSION_MISMATCH),
        (struct.pack("<12f", *[0.0] * 12), Reason.FEATURE_VERSION_MISMATCH),
    ],
    ids=["nan", "inf", "narrow", "wide"],
)
async def test_an_input_that_the_model_must_not_see_gets_its_reason(
    stack: Stack, artifacts: Artifacts, values: bytes, reason: Reason
) -> None:
    answer = await send(stack.targets["inference"], inferring(artifacts, values))

    (row,) = answer.rows
    assert row.WhichOneof("outcome") == "refusal"
    assert (
        row.refusal
        == type(row)
        .DESCRIPTOR.fields_by_name["refusal"]
        .enum_type.values_by_name[f"REASON_{reason.name}"]
        .number
    )


async def test_an_input_that_is_not_what_was_hashed_is_not_believed(
    stack: Stack, artifacts: Artifacts
) -> None:
    message = inferring(artifacts, struct.pack("<11f", *[0.0] * 11))
    message.rows[0].model_input.features_hash = "0" * 64

    answer = await send(stack.targets["inference"], message)

    assert answer.rows[0].WhichOneof("outcome") == "refusal"


@pytest.mark.parametrize("values", [b"", b"\x00\x00\x00", b"\x00" * (4 * 65_536 + 4)])
async def test_bytes_that_are_no_input_are_refused(
    stack: Stack, artifacts: Artifacts, values: bytes
) -> None:
    message = inferring(artifacts, struct.pack("<11f", *[0.0] * 11))
    message.rows[0].model_input.values = values

    with pytest.raises(InvalidField) as refused:
        await send(stack.targets["inference"], message)

    assert refused.value.field == "rows[0].model_input.values"
    assert refused.value.metadata["found"] == f"{len(values)} bytes"


def inferring(artifacts: Artifacts, values: bytes) -> Any:
    binding = artifacts.stable_binding
    hashes = ("d" * 64,)
    hash_ = features_hash(
        binding.feature_version,
        symbol=SYMBOL,
        ts_ms=START_MS,
        snapshot_hashes=hashes,
        values=values,
    )
    given = ModelInput(ts_ms=START_MS, values=values, snapshot_hashes=hashes, features_hash=hash_)
    row = InferenceRow(symbol=SYMBOL, model_input=given)
    return to_wire(InferSignalsRequest(binding_hash=binding.binding_hash, rows=(row,)))


# The envelope


@pytest.mark.parametrize("service", ["policy", "feature", "inference"])
async def test_bytes_that_are_no_message_are_a_typed_refusal(stack: Stack, service: str) -> None:
    name, method = {
        "policy": ("PolicyService", "GetPlan"),
        "feature": ("FeatureService", "DescribeFeatureSet"),
        "inference": ("InferenceService", "DescribeArtifact"),
    }[service]
    async with grpc.aio.insecure_channel(stack.targets[service]) as channel:
        call: Any = channel.unary_unary(f"/detent.api.v1.{name}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\xff\xff\xff\xff", timeout=5.0)

    error = from_rpc_error(name, refused.value)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.metadata == {
        "field": "request",
        "found": "4 bytes that do not parse",
        "expected": f"a {method}Request",
    }


async def test_a_message_that_is_too_large_is_refused_and_harms_nobody(
    stack: Stack, opened: Strategist
) -> None:
    message = asking(opened)
    message.rows[0].active_trigger_ids.append("x" * (17 * 1024 * 1024))

    with pytest.raises(Overloaded):
        await send(stack.targets["policy"], message)

    decision = await opened.decide(100)
    assert decision.record_hash
