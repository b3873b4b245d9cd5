"""Turn a row's refusal back into the error that it is."""

from typing import NoReturn

from detent.contracts import errors
from detent.contracts.calls.policy import DecisionResult
from detent.contracts.errors import DetentError
from detent.contracts.reasons import ErrorReason

_BY_REASON = {
    kind.reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, DetentError)
    and kind
    not in (DetentError, errors.InvalidResponse, errors.ArtifactInvalid, errors.DataInvalid)
}


def raise_refusal(result: DecisionResult) -> NoReturn:
    """Raise the error that a refused row carries."""
    refusal = result.refusal
    assert refusal is not None
    raise _BY_REASON[refusal.reason].restore(refusal.message, refusal.metadata)


def is_unrecorded(result: DecisionResult) -> bool:
    """Say whether the service decided a row and could not record it, so that it says nothing."""
    refusal = result.refusal
    return refusal is not None and refusal.reason is ErrorReason.LEDGER_UNAVAILABLE
