"""Holds contract, code and `docs/ERRORS.md` to one list of reasons and one of errors."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.builders import call_of, plan_of
from tests.fakes import PolicyHost

from detent.api.v1 import reason_pb2
from detent.contracts import errors
from detent.contracts.binding import PROXY_BINDING_HASH
from detent.contracts.calls.policy import GetPlanRequest, GetPlanResponse
from detent.contracts.errors import (
    DetentError,
    InternalError,
    InvalidField,
    ModelNotReady,
    NotOwner,
    PlanClosed,
)
from detent.contracts.reasons import ErrorReason, Reason
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.serve import Server, ServerOptions, Service
from detent.rpc.status import CODES, INTERNAL_TEXT, details_of, from_rpc_error
from detent.rpc.tracing import no_tracer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "ERRORS.md").read_text(encoding="utf-8")
MALFORMED = ("rows[2].position.equity", "-1", "above 0")
RAISED: dict[type[DetentError], DetentError] = {
    errors.NotOwner: errors.NotOwner("plan", owner=2, owner_target="policy-2:7303"),
    errors.PlanOwnerMismatch: errors.PlanOwnerMismatch("next", owner=1, replica_count=3),
    errors.KillEpochStale: errors.KillEpochStale(3, 5),
    errors.RolloutNotFound: errors.RolloutNotFound("r1"),
    errors.RolloutRevisionStale: errors.RolloutRevisionStale("r1", found=3, newest=5),
    errors.RolloutConflict: errors.RolloutConflict("r1", found="ended", expected="live"),
    errors.RolloutHold: errors.RolloutHold(
        "r1", canary_bps=5_000, canary_bps_max=2_500, wait_ms=1_000, at_ms=1_700_000_000_000
    ),
    errors.RolloutArmEmpty: errors.RolloutArmEmpty(
        "r1", canary_bps=100, symbols=3, canary_bps_min=812
    ),
    errors.InvalidField: InvalidField(*MALFORMED),
    errors.DataLate: errors.DataLate(*MALFORMED),
    errors.DataCrossed: errors.DataCrossed(*MALFORMED),
    errors.DataConflict: errors.DataConflict(*MALFORMED),
    errors.BindingMismatch: errors.BindingMismatch("A" * 64, "b" * 64),
    errors.HorizonMismatch: errors.HorizonMismatch("plan.horizon_id", "h8", "h4"),
    errors.SignalFailed: errors.SignalFailed("EURUSD", gate_reason=Reason.OUTPUT_INVALID),
    errors.ModelNotReady: ModelNotReady("not loaded", gate_reason=Reason.MANIFEST_INVALID),
}


def rows(heading: str) -> list[list[str]]:
    """Read the cells of the table under a heading."""
    section = DOCUMENT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


def values(enum: Any, prefix: str) -> list[str]:
    """List the values of a wire enum without its prefix, the error to send left out."""
    return [name.removeprefix(prefix) for name, number in enum.items() if number]


@pytest.mark.proves("R114")
def test_the_reasons_are_one_list() -> None:
    wire = values(reason_pb2.Reason, "REASON_")

    assert [reason.name for reason in Reason] == wire
    assert [row[1] for row in rows("Reasons")] == [reason.value for reason in Reason]
    assert all(len(row) == 4 and all(row) for row in rows("Reasons"))


def test_the_errors_are_one_list() -> None:
    wire = values(reason_pb2.ErrorReason, "ERROR_REASON_")
    table = rows("Errors")

    assert [reason.name for reason in ErrorReason] == wire
    assert [row[0] for row in table] == [reason.value for reason in ErrorReason]
    assert {row[0]: row[1] for row in table} == {
        kind.reason.value: code.name for kind, code in CODES.items()
    }


def test_every_error_that_travels_has_a_reason_of_its_own() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, DetentError)
    }
    local = {
        DetentError,
        errors.InvalidResponse,
        errors.ArtifactInvalid,
        errors.DataInvalid,
        errors.ControlUnavailable,
        errors.GuardRefused,
        errors.LeaderDeposed,
        errors.ModelNotRegistered,
        errors.RegistryConflict,
    }

    assert set(CODES) == kinds - local
    assert len({kind.reason for kind in CODES}) == len(CODES)


@pytest.mark.proves("R213")
def test_the_emergency_reasons_keep_the_seeds_spelling() -> None:
    assert [reason.value for reason in Reason if reason.value.startswith("emergency_")] == [
        "emergency_exit_executed",
        "emergency_exit_veto_same_bar",
        "emergency_exit_veto_min_hold",
        "emergency_exit_missing_exit_rule",
        "emergency_exit_preempts_entry",
    ]


class Raises:
    """Answers every call with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        async def answer(_query: object, _call: object) -> None:
            raise self.error

        return answer


async def raised_over_the_wire(error: Exception) -> DetentError:
    """Raise an error in a server and give what its caller gets."""
    options = ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=0)
    server = Server(options, [Service(name="PolicyService", handler=Raises(error))], no_tracer())
    channel = open_channel(await server.start())
    service = RemoteService(channel, "PolicyService", no_tracer())
    try:
        with pytest.raises(DetentError) as caught:
            await service.call(
                GetPlanRequest(plan_id="p"),
                GetPlanResponse,
                timeout_s=5.0,
                trace=call_of().trace,
            )
    finally:
        await channel.close()
        await server.drain()
    return caught.value


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
async def test_an_error_arrives_as_it_was_raised(kind: type[DetentError]) -> None:
    sent = RAISED.get(kind) or kind("what was found and expected", symbol="EURUSD", ts_ms=7)
    arrived = await raised_over_the_wire(sent)

    assert type(arrived) is kind
    assert arrived.message == sent.message
    assert arrived.metadata == sent.metadata
    if isinstance(arrived, ModelNotReady):
        assert arrived.gate_reason is Reason.MANIFEST_INVALID
    if isinstance(arrived, InvalidField):
        assert (arrived.field, arrived.found) == ("rows[2].position.equity", "-1")


@pytest.mark.parametrize(
    ("sent", "name", "whole"),
    [
        (PlanClosed("closed", replaced_by="n" * 128), "replaced_by", "n" * 128),
        (NotOwner("plan", owner=2, owner_target="h" * 253), "owner_target", "h" * 253),
    ],
    ids=["plan", "address"],
)
async def test_what_is_asked_for_next_is_never_cut(
    sent: DetentError, name: str, whole: str
) -> None:
    arrived = await raised_over_the_wire(sent)

    assert arrived.metadata[name] == whole


@pytest.mark.parametrize("spoilt", ["later reason", "no reason", "no details"])
async def test_an_error_that_cannot_be_read_is_what_its_code_says(spoilt: str) -> None:
    """Servers are renewed one by one: who is older does not break on what it does not know."""
    sent = ModelNotReady("not loaded", gate_reason=Reason.MANIFEST_INVALID)
    if spoilt == "later reason":
        sent.metadata["gate_reason"] = "A_REASON_OF_THE_NEXT_VERSION"
    else:
        del sent.metadata["gate_reason"]
    trailers = details_of(sent) if spoilt != "no details" else (("grpc-status-details-bin", b"x"),)
    refused = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers)
    )

    error = from_rpc_error("InferenceService", refused)

    assert type(error) is errors.ServiceUnavailable
    assert error.message == "InferenceService answered UNAVAILABLE"


@pytest.mark.parametrize("letter", ["x", "\u65e5", "\U0001f600"], ids=["ascii", "three", "four"])
async def test_an_error_that_names_what_is_too_long_still_arrives_as_it_is(letter: str) -> None:
    """Trailers that are too large are dropped by the caller's own transport, as an overload."""
    name = letter * 100_000
    caught = await raised_over_the_wire(
        errors.PlanNotFound(f"no plan is named {name!r}", plan_id=name)
    )

    assert type(caught) is errors.PlanNotFound
    assert caught.message.startswith(f"no plan is named '{letter}")
    assert (len(caught.message), len(caught.metadata["plan_id"])) == (500, 120)


async def test_what_others_raise_does_not_leave_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Foreign texts hold paths, addresses, values: the caller gets none of it, the log all."""
    arrived = await raised_over_the_wire(OSError(2, "secret", "/var/lib/somewhere"))

    assert isinstance(arrived, InternalError)
    assert arrived.message == INTERNAL_TEXT
    assert arrived.metadata == {}
    assert "secret" in caplog.text


async def test_a_stranger_reads_the_reason_from_the_standard_details(host: PolicyHost) -> None:
    """Any gRPC client can: `google.rpc.Status` with one `ErrorInfo`."""
    from google.rpc import error_details_pb2, status_pb2

    from detent.contracts.wire import message_class

    async with grpc.aio.insecure_channel(host.target) as channel:
        ask = channel.unary_unary(
            "/detent.api.v1.PolicyService/GetPlan",
            request_serializer=message_class("GetPlanRequest").SerializeToString,
            response_deserializer=message_class("GetPlanResponse").FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(message_class("GetPlanRequest")(plan_id="nobody"), timeout=5)
    trailers = dict(refused.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("detent", "PLAN_NOT_FOUND")
    assert dict(info.metadata) == {"plan_id": "nobody"}
    assert re.fullmatch(r"no plan is named 'nobody'", status.message)
    assert PROXY_BINDING_HASH not in status.message
    assert plan_of("nobody").plan_id in status.message
