"""Proves that an error which crosses from one process to another says what it said."""

import concurrent.futures
import copy
import multiprocessing
import pickle

import pytest
from tests.contract.test_reasons import RAISED

from detent.contracts import errors
from detent.contracts.errors import DetentError
from detent.contracts.reasons import Reason

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DetentError)
]
SAID: dict[type[DetentError], DetentError] = RAISED | {
    errors.GuardRefused: errors.GuardRefused("G4", "active_ack", "yes", "the acknowledgement"),
    errors.LeaderDeposed: errors.LeaderDeposed("rollouts", epoch=1, newest=2),
    errors.InvalidResponse: errors.InvalidResponse("rows[0]", 7, "8", rule="RULE"),
    errors.ArtifactInvalid: errors.ArtifactInvalid(
        "no model", gate_reason=Reason.CERTIFICATE_FAILED, file="model.onnx"
    ),
}


def raised_by(kind: type[DetentError]) -> DetentError:
    return SAID.get(kind) or kind("found 7, expected 8", symbol="EURUSD", found=7)


def raise_it(kind: type[DetentError]) -> None:
    raise raised_by(kind)


def facts_of(error: DetentError) -> tuple[object, ...]:
    names = ("field", "expected", "rule", "gate_reason", "guard")
    return type(error), str(error), error.metadata, [getattr(error, name, None) for name in names]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_survives_pickling_and_copying(kind: type[DetentError]) -> None:
    error = raised_by(kind)
    arrived = pickle.loads(pickle.dumps(error))

    assert facts_of(arrived) == facts_of(error)
    assert facts_of(copy.copy(error)) == facts_of(error)
    assert facts_of(pickle.loads(pickle.dumps(arrived))) == facts_of(error)


def test_what_was_found_need_not_be_something_that_can_travel() -> None:
    found = (value for value in ())

    arrived = pickle.loads(pickle.dumps(errors.InvalidField("line", found, "a number")))

    assert arrived.found == str(found)


def test_error_of_a_worker_process_arrives_as_it_was_raised() -> None:
    """An error that cannot be read again breaks the whole pool, and hides what went wrong."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        arrived = pool.submit(raise_it, errors.InvalidField).exception(timeout=60)

    assert isinstance(arrived, errors.InvalidField)
    assert facts_of(arrived) == facts_of(raised_by(errors.InvalidField))
