"""Answer `InferSignals` in columns: arrays go in, arrays come out, no value is made of a row.

The bytes that are hashed are the bytes that run: one digest over the whole block, taken before
the run, binds the answer to what the model saw. That a features hash belongs to its row is not
looked at here; whoever pairs the two checks it (ADR 0025).
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from detent.adapters.serving import Serving
from detent.contracts.binding import Head
from detent.contracts.calls.inference import InferSignalsRequest, InferSignalsResponse
from detent.contracts.calls.signal_columns import (
    ABSENT,
    HASH_BYTES,
    InferenceColumns,
    Reasons,
    SignalColumn,
    SignalColumns,
)
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import DeadlineExceeded, InternalError, SignalFailed
from detent.contracts.reasons import Reason
from detent.core.signals.columns import Integers
from detent.core.signals.regime_fallback import LastRegimes, ends_the_call, fallback_signal
from detent.core.signals.signal_columns import column_of, refusals_of, signal_columns
from detent.rpc.call import Call
from detent.servers.inference.answered import Answered, Answers
from detent.servers.inference.run_log import LOGGED_HASHES_MAX, log_run
from detent.servers.inference.run_queue import Floats, Ran

# Numbers of rows.
Places = NDArray[np.int64]


class Runs(Protocol):
    """Is the part of the inference handler that columns need."""

    async def run(self, inputs: Floats, call: Call) -> Ran:
        """Run the graph over rows that are whole and finite."""

    async def answers_of(self, serving: Serving, ran: Ran, *, count: int) -> Answered:
        """Map what a run gave to signals and reasons."""


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the columns of an answer, and what the log says beside them."""

    signals: tuple[SignalColumn, ...]
    refusals: Reasons = ()
    fallback_reasons: Reasons = ()
    coupling_refusals: Reasons = ()
    latency_us: int = 0
    error: InternalError | None = None


async def infer_columns(
    runs: Runs, serving: Serving, last: LastRegimes, query: InferSignalsRequest, call: Call
) -> InferSignalsResponse:
    """Infer and calibrate one signal per row of the columns; a bad row is refused alone.

    Args:
        runs: The session.
        serving: What the binding names.
        last: The regimes that the model gave so far.
        query: The question; it has columns.
        call: Whose deadline counts.

    Raises:
        DeadlineExceeded: Too little of the caller's deadline is left.
        SignalFailed: A row has no answer, and the binding says that this ends the call.
    """
    asked = query.columns
    assert asked is not None, "the handler looked"
    # The digest comes first: whatever happens next, it is in the log for which input.
    inputs_sha256 = sha256_hex(asked.values)
    found = _unanswered(asked, Reason.INFERENCE_ERROR)
    try:
        found = await _found(runs, serving, last, asked, call)
    except (DeadlineExceeded, asyncio.CancelledError):
        found = _unanswered(asked, Reason.INFERENCE_DEADLINE)
        raise
    finally:
        _log(serving, asked, inputs_sha256, found)
    binding, manifest = serving.artifact.pinned.binding, serving.artifact.manifest
    if found.refusals and ends_the_call(binding):
        row, reason = next((row, reason) for row, reason in enumerate(found.refusals) if reason)
        raise SignalFailed(asked.symbols[row], gate_reason=reason)
    return InferSignalsResponse(
        binding_hash=query.binding_hash,
        model_version_hash=binding.model_version_hash,
        calibration_version=manifest.calibration_version,
        columns=SignalColumns(
            features_hashes=asked.features_hashes,
            inputs_sha256=inputs_sha256,
            model_version=manifest.model_version,
            model_hash=manifest.model_hash,
            latency_us=found.latency_us,
            signals=found.signals,
            refusals=found.refusals,
            fallback_reasons=found.fallback_reasons,
            coupling_refusals=found.coupling_refusals,
        ),
    )


def _unanswered(asked: InferenceColumns, reason: Reason) -> _Found:
    return _Found(signals=(), refusals=(reason,) * len(asked.symbols))


async def _found(
    runs: Runs, serving: Serving, last: LastRegimes, asked: InferenceColumns, call: Call
) -> _Found:
    count = len(asked.symbols)
    if asked.width != serving.width:
        call.budget_s()
        return _of_rows(serving, last, asked, [Reason.FEATURE_VERSION_MISMATCH] * count)
    inputs = np.frombuffer(asked.values, "<f4").reshape(count, serving.width)
    finite = np.isfinite(inputs)
    # None while every row is good, which is nearly always.
    good = None if finite.all() else np.flatnonzero(finite.all(axis=1))
    if good is not None and not len(good):
        call.budget_s()
        return _of_rows(serving, last, asked, [Reason.FEATURES_MISSING] * count)
    ran = await runs.run(inputs if good is None else inputs[good], call)
    if ran.columns is not None and not isinstance(ran.outputs, Reason):
        return _of_columns(ran.columns, good, count=count, latency_us=ran.latency_us)
    answered = await runs.answers_of(serving, ran, count=count if good is None else len(good))
    answers = answered.answers
    if good is not None:
        answers = [Reason.FEATURES_MISSING] * count
        for row, answer in zip(good.tolist(), answered.answers, strict=True):
            answers[row] = answer
    found = _of_rows(serving, last, asked, answers)
    return structs.replace(found, latency_us=answered.latency_us, error=answered.error)


def _of_columns(
    columns: Mapping[str, Integers], good: Places | None, *, count: int, latency_us: int
) -> _Found:
    """Give the columns of a head that is mapped as a whole; rows that did not run are absent."""
    if good is None:
        signals = tuple(column_of(name, integers) for name, integers in columns.items())
        return _Found(signals=signals, latency_us=latency_us)
    spread = {name: np.full(count, ABSENT, dtype="<i4") for name in columns}
    for name, integers in columns.items():
        spread[name][good] = integers
    ran = set(good.tolist())
    return _Found(
        signals=tuple(column_of(name, integers) for name, integers in spread.items()),
        refusals=tuple(None if row in ran else Reason.FEATURES_MISSING for row in range(count)),
        latency_us=latency_us,
    )


def _of_rows(
    serving: Serving, last: LastRegimes, asked: InferenceColumns, answers: Answers
) -> _Found:
    """Give the columns of answers that were made one by one, with the head's fallbacks."""
    binding, manifest = serving.artifact.pinned.binding, serving.artifact.manifest
    instants = asked.instants.tolist()
    if binding.head is Head.REGIME:
        for symbol, ts_ms, answer in zip(asked.symbols, instants, answers, strict=True):
            if not isinstance(answer, Reason):
                last.remember(symbol, ts_ms, answer)
    reasons = refusals_of(answers)
    given = list(answers)
    for row, reason in enumerate(reasons):
        if reason is not None:
            stand_in = fallback_signal(
                binding, last, symbol=asked.symbols[row], ts_ms=instants[row]
            )
            given[row] = reason if stand_in is None else stand_in
    signals, coupling_refusals = signal_columns(manifest.head, given, keys=manifest.output_classes)
    refusals = refusals_of(given)
    # A head has a fallback for every row or for none.
    return _Found(
        signals=signals,
        refusals=refusals,
        fallback_reasons=() if refusals else reasons,
        coupling_refusals=coupling_refusals,
    )


def _log(serving: Serving, asked: InferenceColumns, inputs_sha256: str, found: _Found) -> None:
    """Write the one line of a call; a large batch names its first rows only."""
    symbols = asked.symbols[:LOGGED_HASHES_MAX]
    hashes = asked.features_hashes[: len(symbols) * HASH_BYTES]
    log_run(
        serving,
        [reason for reason in found.refusals or found.fallback_reasons if reason is not None],
        row_count=len(asked.symbols),
        latency_us=found.latency_us,
        error=found.error,
        facts={
            "symbols": symbols,
            "features_hash": hashes.hex(",", HASH_BYTES).split(","),
            "inputs_sha256": inputs_sha256,
        },
    )
