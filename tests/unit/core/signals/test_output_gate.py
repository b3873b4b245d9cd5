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
from detent.contracts.calls.signal_columns import InferenceColumns, SignalColumn, SignalColumns
from detent.contracts.canonical import sha256_hex
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, FillSignal, HeadSignal
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.output_gate import gate_columns, gate_response, gate_signal

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


# In columns

ASKED = InferSignalsRequest(
    binding_hash=BINDING.binding_hash,
    columns=InferenceColumns(
        symbols=(SYMBOL, OTHER_SYMBOL),
        ts_ms=START_MS.to_bytes(8, "little") * 2,
        values=INPUT.values * 2,
        features_hashes=bytes.fromhex(INPUT.features_hash * 2),
    ),
)
COLUMNS = signals_of(ASKED, BINDING, p_hat_bps=8_000).columns
HASHES = (INPUT.features_hash, INPUT.features_hash)
SOUND = ModelOutcome(features_hash=INPUT.features_hash, p_hat_raw_bps=8_000, p_hat_bps=8_000)


def gated_columns(columns: SignalColumns | None) -> list[ModelOutcome]:
    return gate_columns(columns, inputs_sha256=sha256_hex(INPUT.values * 2), features_hashes=HASHES)


def integers(name: str, *values: int) -> SignalColumn:
    return SignalColumn(
        name=name, values=b"".join(v.to_bytes(4, "little", signed=True) for v in values)
    )


@pytest.mark.proves("R73", "R203")
def test_sound_columns_are_passed_on_untouched() -> None:
    assert gated_columns(COLUMNS) == [SOUND, SOUND]


@pytest.mark.proves("R73")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"inputs_sha256": "0" * 64}, id="other bytes"),
        pytest.param({"features_hashes": b"\x00" * 64}, id="other rows"),
        pytest.param({"signals": (integers("p_fill_bps", 1, 1),)}, id="another head"),
        pytest.param({"signals": (integers("p_hat_bps", 1, 1),)}, id="half of it"),
        pytest.param(
            {"signals": (integers("p_hat_bps", 1, 10_001), integers("p_hat_raw_bps", 1, 1))},
            id="more than one",
        ),
        pytest.param(
            {"signals": (integers("p_hat_bps", 1, 1), integers("p_hat_raw_bps", 1, -1))},
            id="less than nothing",
        ),
    ],
)
def test_columns_that_answer_another_question_are_refused(changes: dict[str, Any]) -> None:
    assert COLUMNS is not None
    outcomes = gated_columns(structs.replace(COLUMNS, **changes))

    assert [outcome.reason for outcome in outcomes] == [Reason.OUTPUT_INVALID] * 2
    assert [outcome.features_hash for outcome in outcomes] == list(HASHES)


def test_no_columns_and_fewer_rows_are_no_answer() -> None:
    assert COLUMNS is not None
    one = structs.replace(
        COLUMNS,
        features_hashes=COLUMNS.features_hashes[:32],
        signals=(integers("p_hat_raw_bps", 8_000), integers("p_hat_bps", 8_000)),
    )

    for columns in (None, one):
        assert {outcome.reason for outcome in gated_columns(columns)} == {Reason.OUTPUT_INVALID}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"refusals": (Reason.FEATURES_MISSING, None)}, [Reason.FEATURES_MISSING, None]),
        ({"fallback_reasons": (None, Reason.OUTPUT_INVALID)}, [None, Reason.OUTPUT_INVALID]),
        (
            {
                "refusals": (None, Reason.CALIBRATION_FAILED),
                "fallback_reasons": (Reason.OUTPUT_INVALID, None),
            },
            [Reason.OUTPUT_INVALID, Reason.CALIBRATION_FAILED],
        ),
        (
            {"features_hashes": bytes.fromhex(INPUT.features_hash) + b"\x00" * 32},
            [None, Reason.OUTPUT_INVALID],
        ),
    ],
)
def test_a_row_that_has_no_answer_leaves_the_others_alone(
    changes: dict[str, Any], reasons: list[Reason | None]
) -> None:
    assert COLUMNS is not None
    outcomes = gated_columns(structs.replace(COLUMNS, **changes))

    assert [outcome.reason for outcome in outcomes] == reasons
    assert [outcome for outcome in outcomes if outcome.reason is None] == [SOUND] * reasons.count(
        None
    )


def test_a_refused_row_may_say_anything_in_its_columns() -> None:
    assert COLUMNS is not None
    columns = structs.replace(
        COLUMNS,
        refusals=(Reason.OUTPUT_INVALID, None),
        signals=(integers("p_hat_raw_bps", -1, 8_000), integers("p_hat_bps", -1, 8_000)),
    )

    assert [outcome.p_hat_bps for outcome in gated_columns(columns)] == [None, 8_000]
