"""Turn a row's refusal back into the error that it is."""

from collections.abc import Sequence
from typing import NoReturn

from detent.contracts import errors
from detent.contracts.calls.policy import DecisionResult, RowRefusal
from detent.contracts.decision import DecisionRow
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
    assert result.refusal is not None
    raise error_of(result.refusal)


def error_of(refusal: RowRefusal) -> DetentError:
    """Give the error that a refusal is."""
    return _BY_REASON[refusal.reason].restore(refusal.message, refusal.metadata)


def check_echo(found: str, expected: str) -> None:
    """Refuse an answer that was given under another binding."""
    if found != expected:
        raise errors.BindingMismatch(found, expected)


def unrecorded_rows(
    rows: Sequence[DecisionRow], results: Sequence[DecisionResult]
) -> tuple[DecisionRow, ...]:
    """Give the rows that a service decided and could not record, so that it answers nothing."""
    unrecorded = ErrorReason.LEDGER_UNAVAILABLE
    return tuple(
        row
        for row, result in zip(rows, results, strict=True)
        if result.refusal is not None and result.refusal.reason is unrecorded
    )
