"""Columns and rows are two forms of one call: the same integers, the same reasons."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from opentelemetry.context import Context
from tests.fakes import HandlerHost, send
from tests.unit.artifacts import model_inputs
from tests.unit.head_artifacts import KEYS, hashed, head_artifact, poisoned

from detent.adapters.serving import Serving, open_serving
from detent.contracts import events
from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.calls.signal_columns import (
    ABSENT,
    InferenceColumns,
    SignalColumn,
    SignalColumns,
)
from detent.contracts.errors import DeadlineExceeded, InvalidField, SignalFailed
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    BracketProbability,
    BracketsSignal,
    HeadSignal,
    Regime,
)
from detent.contracts.wire import from_wire, to_bytes, to_wire
from detent.core.signals.signal_columns import SIGNALS
from detent.rpc.call import Call
from detent.servers.inference.handler import InferenceHandler

HOUR_MS = 3_600_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "A", "Z.9_:/-" + "X" * 25)
PREVIOUS = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=HOUR_MS)
ERROR = RegimeFallback(mode=FallbackMode.ERROR)
SPOILS = (None, None, None, "nan", "inf", "-inf", "poison", "lacking")

# What a row of either form says: the answer or its refusal, and why it is a fallback.
Said = tuple[HeadSignal | Reason, Reason | None]


@functools.cache
def serving_of(head: Head, fallback: RegimeFallback | None = None) -> Serving:
    return open_serving(head_artifact(head, fallback))


def handler_of(head: Head, fallback: RegimeFallback | None = None) -> InferenceHandler:
    return InferenceHandler(
        serving_of(head, fallback), max_inference_latency_ms=10_000, clock=time.monotonic
    )


def call(*, left_s: float = 60.0) -> Call:
    return Call(
        deadline_s=time.monotonic() + left_s, clock=time.monotonic, identity="", trace=Context()
    )


def columns_of(rows: Sequence[InferenceRow]) -> InferenceColumns:
    """Give rows as columns."""
    return InferenceColumns(
        symbols=tuple(row.symbol for row in rows),
        ts_ms=b"".join(struct.pack("<q", row.model_input.ts_ms) for row in rows),
        values=b"".join(row.model_input.values for row in rows),
        features_hashes=bytes.fromhex("".join(row.model_input.features_hash for row in rows)),
    )


def good_rows(count: int = 3) -> list[InferenceRow]:
    return [InferenceRow(symbol=SYMBOLS[0], model_input=row) for row in model_inputs()[:count]]


def spoilt(row: ModelInput, spoil: str | None, *, symbol: str) -> ModelInput:
    """Give an input that is spoilt in one way, with the hash that belongs to it."""
    if spoil == "poison":
        return poisoned(row, symbol=symbol)
    if spoil == "lacking":
        return poisoned(row, symbol=symbol, columns=slice(1, 2))
    values = row.values
    if spoil is not None:
        values = values[:8] + struct.pack("<f", float(spoil)) + values[12:]
    return hashed(structs.replace(row, values=values), symbol=symbol)


@st.composite
def batches(draw: st.DrawFn) -> list[InferenceRow]:
    """Draw a batch, of which some rows are spoilt, and sometimes all are too narrow."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    narrow = draw(st.sampled_from([False, False, False, True]))
    kinds = draw(st.lists(st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(SPOILS)), min_size=1))
    rows = []
    for symbol, spoil in kinds:
        row = model_inputs()[int(chance.integers(len(model_inputs())))]
        factors = chance.normal(1.0, 0.5, len(row.values) // 4)
        values = (np.frombuffer(row.values, "<f4") * factors).astype("<f4").tobytes()
        given_ = spoilt(structs.replace(row, values=values), spoil, symbol=symbol)
        if narrow:
            given_ = hashed(structs.replace(given_, values=given_.values[:-4]), symbol=symbol)
        rows.append(InferenceRow(symbol=symbol, model_input=given_))
    return rows


def said_in_rows(response: InferSignalsResponse) -> list[Said]:
    found: list[Said] = []
    for row in response.rows:
        answer = row.refusal if row.signal is None else row.signal.answer
        assert answer is not None
        found.append((answer, row.fallback_reason))
    return found


def said_in_columns(response: InferSignalsResponse, head: Head) -> list[Said]:
    """Read columns as somebody would who knows the heads' messages and nothing else."""
    columns = response.columns
    assert columns is not None
    none: tuple[None, ...] = (None,) * columns.count
    refusals = columns.refusals or none
    reasons = zip(refusals, columns.fallback_reasons or none, strict=True)
    fields = {column.name: column.integers.tolist() for column in columns.signals}
    uncoupled = columns.coupling_refusals or none
    found: list[Said] = []
    for row, (refusal, fallback_reason) in enumerate(reasons):
        of_row = {name: values[row] for name, values in fields.items()}
        if refusal is not None:
            assert set(np.ravel(list(of_row.values())).tolist()) == {ABSENT}
            found.append((refusal, fallback_reason))
        elif head is Head.BRACKETS:
            found.append((brackets_of(of_row, uncoupled[row]), fallback_reason))
        else:
            found.append((SIGNALS[head](**regimes(of_row)), fallback_reason))
    return found


def regimes(fields: dict[str, int]) -> dict[str, Any]:
    named = {"predicted_regime", "predicted_toxicity", "next_regime"}
    return {
        name: list(Regime)[value - 1] if name in named else value for name, value in fields.items()
    }


def brackets_of(fields: dict[str, Any], refusal: Reason | None) -> BracketsSignal:
    shares = zip(KEYS, fields["p_hat_bps"], fields["p_unified_bps"], strict=True)
    return BracketsSignal(
        brackets=tuple(
            BracketProbability(
                bracket_key=key,
                p_hat_bps=p_hat_bps,
                p_unified_bps=None if p_unified_bps == ABSENT else p_unified_bps,
            )
            for key, p_hat_bps, p_unified_bps in shares
            if p_hat_bps != ABSENT
        ),
        coupling_refusal=refusal,
    )


async def both(
    handlers: tuple[InferenceHandler, InferenceHandler], rows: list[InferenceRow]
) -> tuple[InferSignalsResponse, InferSignalsResponse]:
    """Ask in both forms, columns over the bytes of the wire."""
    serving = handlers[0].serving
    assert isinstance(serving, Serving)
    binding_hash = serving.artifact.pinned.binding_hash
    query = InferSignalsRequest(binding_hash=binding_hash, columns=columns_of(rows))
    by_row = await handlers[0].infer_signals(
        InferSignalsRequest(binding_hash=binding_hash, rows=tuple(rows)), call()
    )
    received = from_wire(InferSignalsRequest, to_wire(query))
    answer = await handlers[1].infer_signals(received, call())
    message = type(to_wire(answer)).FromString(to_bytes(answer))
    return by_row, from_wire(InferSignalsResponse, message)


@pytest.mark.proves("R20", "R42", "R75", "R76")
@pytest.mark.parametrize(
    ("head", "fallback"), [*((head, None) for head in Head), (Head.REGIME, PREVIOUS)]
)
@settings(max_examples=25, deadline=None)
@given(calls=st.lists(batches(), min_size=1, max_size=3))
def test_both_forms_say_the_same(
    head: Head, fallback: RegimeFallback | None, calls: list[list[InferenceRow]]
) -> None:
    """Integers, refusals and fallbacks, call after call: the last regime is remembered alike."""
    handlers = (handler_of(head, fallback), handler_of(head, fallback))

    async def ask_all() -> list[tuple[InferSignalsResponse, InferSignalsResponse]]:
        return [await both(handlers, rows) for rows in calls]

    for rows, (by_row, by_column) in zip(calls, asyncio.run(ask_all()), strict=True):
        assert said_in_columns(by_column, head) == said_in_rows(by_row)
        assert by_column.columns is not None
        assert by_column.columns.features_hashes.hex() == "".join(
            row.features_hash for row in by_row.rows
        )
        values = b"".join(row.model_input.values for row in rows)
        assert by_column.columns.inputs_sha256 == hashlib.sha256(values).hexdigest()
    for handler in handlers:
        handler.close()


@pytest.mark.parametrize("head", Head)
async def test_a_large_batch_with_every_kind_of_bad_row_says_the_same(head: Head) -> None:
    inputs, rows = model_inputs(), []
    for index in range(300):
        symbol = SYMBOLS[index % len(SYMBOLS)]
        given_ = spoilt(inputs[index % len(inputs)], SPOILS[index % len(SPOILS)], symbol=symbol)
        rows.append(InferenceRow(symbol=symbol, model_input=given_))
    handlers = (handler_of(head), handler_of(head))
    by_row, by_column = await both(handlers, rows)
    for handler in handlers:
        handler.close()

    said = said_in_columns(by_column, head)
    assert said == said_in_rows(by_row)
    # The control: some were answered, and some were not.
    assert {isinstance(answer, Reason) or why is not None for answer, why in said} == {True, False}


async def test_sound_columns_carry_no_column_of_reasons() -> None:
    handlers = (handler_of(Head.DIRECTION), handler_of(Head.DIRECTION))
    _, response = await both(handlers, good_rows())
    for handler in handlers:
        handler.close()

    columns = response.columns
    assert columns is not None
    assert (columns.refusals, columns.fallback_reasons, columns.coupling_refusals) == ((), (), ())
    assert [column.name for column in columns.signals] == ["p_hat_raw_bps", "p_hat_bps"]
    assert columns.model_hash == head_artifact(Head.DIRECTION).manifest.model_hash
    assert columns.latency_us > 0
    assert response.rows == ()


async def test_columns_do_not_look_whether_a_hash_belongs_to_its_row() -> None:
    """What rows check and columns do not: the caller pairs them, and the digest binds the bytes."""
    (row,) = good_rows(1)
    other = structs.replace(row.model_input, features_hash="0" * 64)
    handlers = (handler_of(Head.DIRECTION), handler_of(Head.DIRECTION))
    by_row, by_column = await both(handlers, [structs.replace(row, model_input=other)])
    for handler in handlers:
        handler.close()

    assert by_row.rows[0].refusal is Reason.FEATURES_MISSING
    assert by_column.columns is not None
    assert by_column.columns.refusals == ()
    assert by_column.columns.features_hashes == b"\x00" * 32


@pytest.mark.proves("R77")
async def test_a_binding_that_says_error_ends_the_call_and_the_log_knows_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = handler_of(Head.REGIME, ERROR)
    good = good_rows(2)
    bad = InferenceRow(
        symbol=SYMBOLS[1], model_input=poisoned(good[0].model_input, symbol=SYMBOLS[1])
    )
    query = InferSignalsRequest(
        binding_hash=serving_of(Head.REGIME, ERROR).artifact.pinned.binding_hash,
        columns=columns_of([*good, bad]),
    )
    with caplog.at_level(logging.INFO), pytest.raises(SignalFailed) as failed:
        await handler.infer_signals(query, call())
    handler.close()

    assert failed.value.gate_reason is Reason.OUTPUT_INVALID
    assert failed.value.metadata["symbol"] == SYMBOLS[1]
    (line,) = [record for record in caplog.records if record.name.startswith("detent")]
    assert line.getMessage() == events.ML_INFER_ERROR


@pytest.mark.proves("R38")
@pytest.mark.parametrize("failure", ["none", "deadline", "session"])
async def test_the_digest_of_the_inputs_is_logged_whatever_happens(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    serving = serving_of(Head.DIRECTION)
    if failure == "session":
        broken = structs.replace(serving.session, session=None, errors=(AttributeError,))
        serving = structs.replace(serving, session=broken)
    handler = InferenceHandler(serving, max_inference_latency_ms=10_000, clock=time.monotonic)
    rows = good_rows()
    query = InferSignalsRequest(
        binding_hash=serving.artifact.pinned.binding_hash, columns=columns_of(rows)
    )
    with caplog.at_level(logging.INFO):
        if failure == "deadline":
            with pytest.raises(DeadlineExceeded):
                await handler.infer_signals(query, call(left_s=0.0))
        else:
            await handler.infer_signals(query, call())
    handler.close()

    (line,) = [record for record in caplog.records if record.name.startswith("detent")]
    facts = vars(line)
    refused = {"none": [], "deadline": [Reason.INFERENCE_DEADLINE]}
    values = b"".join(row.model_input.values for row in rows)
    assert facts["inputs_sha256"] == hashlib.sha256(values).hexdigest()
    assert facts["features_hash"] == [row.model_input.features_hash for row in rows]
    assert facts["refusals"] == refused.get(failure, [Reason.INFERENCE_ERROR])
    assert line.getMessage() == (events.ML_INFER_OK if failure == "none" else events.ML_INFER_ERROR)


# What is no question

SOUND = columns_of(good_rows())
WIDTH = len(SOUND.values) // 12


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        pytest.param({"symbols": ()}, "columns.symbols", "0 items", id="no rows"),
        pytest.param({"symbols": ("A",) * 5_001}, "columns.symbols", "5001 items", id="too many"),
        pytest.param({"symbols": ("A", "b", "C")}, "columns.symbols[1]", "b", id="symbol"),
        pytest.param({"symbols": ("A", "", "C")}, "columns.symbols[1]", "", id="no symbol"),
        pytest.param({"symbols": ("A", "B\nC", "D")}, "columns.symbols[1]", "B\nC", id="two"),
        pytest.param({"symbols": ("A", "B")}, "columns.ts_ms", "24 bytes", id="fewer symbols"),
        pytest.param({"ts_ms": b""}, "columns.ts_ms", "0 bytes", id="no instants"),
        pytest.param({"ts_ms": b"\x00" * 23}, "columns.ts_ms", "23 bytes", id="instants"),
        pytest.param({"ts_ms": b"\x00" * 24}, "columns.ts_ms[0]", "0", id="instant"),
        pytest.param(
            {"features_hashes": b"\x00" * 95}, "columns.features_hashes", "95 bytes", id="hashes"
        ),
        pytest.param({"values": b""}, "columns.values", "0 bytes", id="no values"),
        pytest.param(
            {"values": SOUND.values[:-1]}, "columns.values", f"{12 * WIDTH - 1} bytes", id="values"
        ),
        pytest.param(
            {"values": SOUND.values[:-4]}, "columns.values", f"{12 * WIDTH - 4} bytes", id="a value"
        ),
        pytest.param(
            {"values": b"\x00" * 3 * (4 * 65_537)}, "columns.values", "786444 bytes", id="too wide"
        ),
    ],
)
async def test_columns_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Any], field: str, found: str
) -> None:
    handler = handler_of(Head.DIRECTION)
    message = to_wire(InferSignalsRequest(binding_hash="0" * 64, columns=SOUND))
    for name, value in changes.items():
        message.columns.ClearField(name)
        if isinstance(value, bytes):
            setattr(message.columns, name, value)
        else:
            message.columns.symbols.extend(value)
    async with HandlerHost("InferenceService", handler) as host:
        with pytest.raises(InvalidField) as refused:
            await send(host.target, message)
    handler.close()

    assert (refused.value.field, refused.value.metadata["found"]) == (field, found)
    assert refused.value.expected


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        pytest.param({}, "rows", "0 items", id="neither"),
        pytest.param(
            {"columns": SOUND, "rows": tuple(good_rows(1))},
            "columns",
            "columns and 1 rows",
            id="both",
        ),
        pytest.param(
            {"columns": SOUND, "attributions": True}, "attributions", True, id="attributions"
        ),
    ],
)
def test_a_question_has_one_form(changes: dict[str, Any], field: str, found: object) -> None:
    with pytest.raises(InvalidField) as refused:
        InferSignalsRequest(binding_hash="0" * 64, **changes)

    assert (refused.value.field, refused.value.found) == (field, found)
    assert refused.value.expected


def test_the_sound_question_behind_these_is_one() -> None:
    """The control."""
    assert InferSignalsRequest(binding_hash="0" * 64, columns=SOUND).columns == SOUND


# What is no answer

ANSWER = SignalColumns(
    features_hashes=b"\x00" * 64,
    inputs_sha256="a" * 64,
    model_version="v1.0.0",
    model_hash="b" * 16,
    latency_us=1,
    signals=(SignalColumn(name="p_fill_bps", values=b"\x00" * 8),),
)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"features_hashes": b""}, "features_hashes", id="no rows"),
        pytest.param({"features_hashes": b"\x00" * 65}, "features_hashes", id="hashes"),
        pytest.param({"features_hashes": b"\x00" * 96}, "signals[0].values", id="more rows"),
        pytest.param({"inputs_sha256": ""}, "inputs_sha256", id="no digest"),
        pytest.param({"model_version": "1"}, "model_version", id="version"),
        pytest.param({"model_hash": ""}, "model_hash", id="model"),
        pytest.param({"latency_us": -1}, "latency_us", id="latency"),
        pytest.param({"signals": ()}, "signals", id="no fields"),
        pytest.param({"signals": ANSWER.signals * 2}, "signals", id="a field twice"),
        pytest.param({"refusals": (None,)}, "refusals", id="refusals"),
        pytest.param({"fallback_reasons": (None,) * 3}, "fallback_reasons", id="fallbacks"),
        pytest.param({"coupling_refusals": (None,)}, "coupling_refusals", id="couplings"),
        pytest.param(
            {"signals": (structs.replace(ANSWER.signals[0], elements=("A", "B")),)},
            "signals[0].values",
            id="elements",
        ),
    ],
)
def test_columns_that_are_no_answer_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(ANSWER, **changes)

    assert refused.value.field == field


def test_a_reason_that_is_none_is_refused_by_its_place() -> None:
    message = to_wire(structs.replace(ANSWER, refusals=(None, Reason.OUTPUT_INVALID)))
    assert from_wire(SignalColumns, message).refusals == (None, Reason.OUTPUT_INVALID)
    message.refusals[1] = 9_999

    with pytest.raises(InvalidField) as refused:
        from_wire(SignalColumns, message)

    assert (refused.value.field, refused.value.found) == ("refusals[1]", 9_999)
