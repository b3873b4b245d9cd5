"""Hold a signal as a strategist gets it, and give one where no service did."""

from collections.abc import Sequence

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.inference import InferenceRow, InferSignalsResponse
from detent.contracts.reasons import Reason
from detent.contracts.signals import HeadSignal, MlSignalSnapshot
from detent.core.signals.output_gate import gate_response, gate_signal
from detent.core.signals.regime_fallback import LastRegimes, fallback_signal


class SignalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Gives one symbol's signal, and why it is not the model's own if it is not.

    Attributes:
        symbol: Instrument.
        ts_ms: The instant that was asked about, Unix milliseconds.
        answer: The head's answer or its fallback; None when the head has neither.
        reason: Why the answer is not the model's; None when it is.
        snapshot: What the service gave, with its provenance; None when it gave nothing.
    """

    symbol: str
    ts_ms: int
    answer: HeadSignal | None
    reason: Reason | None
    snapshot: MlSignalSnapshot | None


def answers_of(
    binding: ModelBinding,
    rows: Sequence[InferenceRow],
    response: InferSignalsResponse,
    last: LastRegimes,
) -> tuple[SignalAnswer, ...]:
    """Check a response again, row by row, and put the fallback where it fails.

    Args:
        binding: What was asked under.
        rows: What was asked.
        response: What came.
        last: The regimes so far; what the model gave is added.
    """
    wrong = gate_response(
        response,
        binding_hash=binding.binding_hash,
        model_version_hash=binding.model_version_hash,
        calibration_version=binding.calibration_version,
    )
    if wrong is None and len(response.rows) != len(rows):
        wrong = Reason.OUTPUT_INVALID
    if wrong is not None:
        return local_answers(binding, rows, last, reason=wrong)
    answers = []
    for asked, given in zip(rows, response.rows, strict=True):
        ts_ms = asked.model_input.ts_ms
        assert binding.head is not None
        answer = gate_signal(
            given,
            symbol=asked.symbol,
            ts_ms=ts_ms,
            features_hash=asked.model_input.features_hash,
            head=binding.head,
        )
        if isinstance(answer, Reason):
            # The service's own reason says more than that its row does not fit.
            reason = given.fallback_reason or answer
            answers.append(_local(binding, asked, last, reason=reason))
            continue
        if given.fallback_reason is None:
            last.remember(asked.symbol, ts_ms, answer)
        answers.append(
            SignalAnswer(
                symbol=asked.symbol,
                ts_ms=ts_ms,
                answer=answer,
                reason=given.fallback_reason,
                snapshot=given.signal,
            )
        )
    return tuple(answers)


def local_answers(
    binding: ModelBinding, rows: Sequence[InferenceRow], last: LastRegimes, *, reason: Reason
) -> tuple[SignalAnswer, ...]:
    """Answer without any service, by the rule that the service itself follows."""
    return tuple(_local(binding, row, last, reason=reason) for row in rows)


def _local(
    binding: ModelBinding, row: InferenceRow, last: LastRegimes, *, reason: Reason
) -> SignalAnswer:
    ts_ms = row.model_input.ts_ms
    return SignalAnswer(
        symbol=row.symbol,
        ts_ms=ts_ms,
        answer=fallback_signal(binding, last, symbol=row.symbol, ts_ms=ts_ms),
        reason=reason,
        snapshot=None,
    )
