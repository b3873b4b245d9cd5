"""Proves that an answer is checked again where it is about to be used."""

from typing import Any

import pytest
from msgspec import structs
from tests.builders import OTHER_SYMBOL, START_MS, SYMBOL, model_binding
from tests.fakes import model_input_of, signals_of

from detent.contracts.binding import Head
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
    SignalRow,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, FillSignal, HeadSignal
from detent.core.signals.output_gate import gate_response, gate_signal

BINDING = model_binding()
INPUT = model_input_of(SYMBOL, START_MS)
ANSWER = signals_of(
    InferSignalsRequest(
        binding_hash=BINDING.binding_hash, rows=(InferenceRow(symbol=SYMBOL, model_input=INPUT),)
    ),
    BINDING,
    p_hat_bps=8_000,
)


def gated(response: InferSignalsResponse) -> Reason | None:
    return gate_response(
        response,
        binding_hash=BINDING.binding_hash,
        model_version_hash=BINDING.model_version_hash,
        calibration_version=BINDING.calibration_version,
    )


def gated_row(row: SignalRow) -> HeadSignal | Reason:
    return gate_signal(
        row,
        symbol=SYMBOL,
        ts_ms=START_MS,
        features_hash=INPUT.features_hash,
        head=Head.DIRECTION,
    )


@pytest.mark.proves("R73")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"binding_hash": "0" * 64}, Reason.BINDING_MISMATCH),
        ({"binding_hash": BINDING.binding_hash.upper()}, Reason.BINDING_MISMATCH),
        ({"model_version_hash": "0" * 64}, Reason.BINDING_MISMATCH),
        ({"calibration_version": ""}, Reason.CALIBRATION_MISSING),
        ({"calibration_version": "0" * 64}, Reason.CALIBRATION_FAILED),
    ],
)
def test_an_answer_from_elsewhere_is_refused_for_every_row(
    changes: dict[str, str], reason: Reason | None
) -> None:
    assert gated(structs.replace(ANSWER, **changes)) is reason


@pytest.mark.proves("R73", "R203")
def test_a_sound_row_is_passed_on_untouched() -> None:
    assert gated_row(ANSWER.rows[0]) == DirectionSignal(p_hat_raw_bps=8_000, p_hat_bps=8_000)


@pytest.mark.proves("R73")
@pytest.mark.parametrize(
    "changes",
    [
        {"symbol": OTHER_SYMBOL},
        {"ts": START_MS - 1},
        {"features_hash": "0" * 16},
        {"direction": None, "fill": FillSignal(p_fill_bps=9_000)},
    ],
    ids=str,
)
def test_a_signal_that_answers_another_question_is_refused(changes: dict[str, Any]) -> None:
    row = ANSWER.rows[0]
    assert row.signal is not None
    spoilt = structs.replace(row, signal=structs.replace(row.signal, **changes))

    assert gated_row(spoilt) is Reason.OUTPUT_INVALID


@pytest.mark.proves("R73")
@pytest.mark.parametrize(
    "changes", [{"symbol": OTHER_SYMBOL}, {"features_hash": "0" * 64}], ids=str
)
def test_a_row_that_is_filed_under_another_question_is_refused(changes: dict[str, Any]) -> None:
    assert gated_row(structs.replace(ANSWER.rows[0], **changes)) is Reason.OUTPUT_INVALID


def test_a_refused_row_keeps_its_own_reason() -> None:
    row = SignalRow(symbol=SYMBOL, features_hash="0" * 64, refusal=Reason.INFERENCE_OVERLOADED)

    assert gated_row(row) is Reason.INFERENCE_OVERLOADED
