"""Turn a row's refusal back into the error that it is."""

from typing import NoReturn

from detent.contracts import errors
from detent.contracts.calls.policy import DecisionResult
from detent.contracts.errors import DetentError

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
