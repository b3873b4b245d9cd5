"""Map our errors to gRPC statuses and back; the only module that names status codes."""

import logging
from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from detent.contracts import errors, events
from detent.contracts.errors import DetentError, InternalError

DOMAIN = "detent"
DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_TEXT = "internal error"
# Trailers carry a message twice, and a client drops those of more than 8 KiB and says that the
# service is overloaded; a message may name what a caller sent, of any length.
MESSAGE_CHARS_MAX = 500

log = logging.getLogger(__name__)

CODES: dict[type[DetentError], grpc.StatusCode] = {
    errors.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DataLate: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataCrossed: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DataConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.BindingMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.FeatureVersionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.HorizonMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SnapshotStale: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SnapshotNotFound: grpc.StatusCode.NOT_FOUND,
    errors.PlanNotFound: grpc.StatusCode.NOT_FOUND,
    errors.PlanClosed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotOwner: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PlanOwnerMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.KillEpochStale: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RolloutNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RolloutRevisionStale: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RolloutConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RolloutHold: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RolloutArmEmpty: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PlanConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.SymbolNotInPlan: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BarOutOfOrder: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BarFromFuture: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DecisionConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.DecisionNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.SignalFailed: grpc.StatusCode.ABORTED,
    errors.LedgerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_BY_REASON = {kind.reason.value: kind for kind in CODES}
_BY_CODE: dict[grpc.StatusCode, type[DetentError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
}


def as_detent_error(error: Exception) -> DetentError:
    """Give the error that may leave the process: ours as it is, any other without its text.

    What others raise may hold paths, addresses or values, so only the log gets it.
    """
    if isinstance(error, DetentError) and type(error) in CODES:
        return error
    log.error(events.CALL_FAILED, exc_info=error)
    return InternalError(INTERNAL_TEXT)


def code_of(error: DetentError) -> grpc.StatusCode:
    """Give the status code of one of our errors."""
    return CODES[type(error)]


def message_of(error: DetentError) -> str:
    """Give the message of one of our errors, cut to what trailers have room for."""
    text = error.message
    is_short = len(text) <= MESSAGE_CHARS_MAX
    return text if is_short else text[: MESSAGE_CHARS_MAX - 1] + "…"


def details_of(error: DetentError) -> tuple[tuple[str, bytes], ...]:
    """Give the trailing metadata that carries the reason and its facts."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    status = status_pb2.Status(code=code_of(error).value[0], message=message_of(error))
    status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)


def from_rpc_error(service: str, error: grpc.aio.AioRpcError) -> DetentError:
    """Give the error that the other side raised, or the one that the transport means."""
    restored = _restored(error.trailing_metadata() or ())
    if restored is not None:
        return restored
    kind = _BY_CODE.get(error.code(), InternalError)
    code = error.code().name
    return kind(f"{service} answered {code}", service=service, code=code)


def _restored(trailers: Iterable[tuple[str, str | bytes]]) -> DetentError | None:
    """Give the error that the trailers carry; None where they carry none that we know.

    A server of a later version may name a gate's reason that we do not know, and what stands
    between may spoil the details: then the status code has to do.
    """
    try:
        return _carried(trailers)
    except (DecodeError, KeyError, ValueError):
        return None


def _carried(trailers: Iterable[tuple[str, str | bytes]]) -> DetentError | None:
    for key, value in trailers:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _BY_REASON:
                kind = _BY_REASON[info.reason]
                return kind.restore(status.message, dict(info.metadata))
    return None
