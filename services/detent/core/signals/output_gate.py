"""Check a model's answer again where it is about to be used."""

from detent.contracts.binding import Head
from detent.contracts.calls.inference import InferSignalsResponse, SignalRow
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, HeadSignal, head_name
from detent.core.signals.choice import ModelOutcome, refused


def gate_response(
    response: InferSignalsResponse,
    *,
    binding_hash: str,
    model_version_hash: str,
    calibration_version: str,
) -> Reason | None:
    """Refuse an answer that another artifact or another calibration gave.

    Returns:
        The reason to use the proxy for every row, or None.
    """
    if response.binding_hash != binding_hash:
        return Reason.BINDING_MISMATCH
    if response.model_version_hash != model_version_hash:
        return Reason.BINDING_MISMATCH
    if not response.calibration_version:
        return Reason.CALIBRATION_MISSING
    if response.calibration_version != calibration_version:
        return Reason.CALIBRATION_FAILED
    return None


def gate_signal(
    row: SignalRow, *, symbol: str, ts_ms: int, features_hash: str, head: Head
) -> HeadSignal | Reason:
    """Refuse a signal that answers another question than the one asked.

    Ranges and sums need no second look here: the domain types refused them on arrival.

    Returns:
        The answer of the head, or the reason why there is none.
    """
    if row.refusal is not None:
        return row.refusal
    signal = row.signal
    mine = (
        signal is not None
        and row.symbol == symbol
        and signal.symbol == symbol
        and signal.ts == ts_ms
        and row.features_hash == features_hash
        and signal.features_hash == features_hash[:16]
    )
    if not mine or signal is None:
        return Reason.OUTPUT_INVALID
    answer = signal.answer
    return answer if head_name(answer) == head else Reason.OUTPUT_INVALID


def gate_row(row: SignalRow, *, symbol: str, ts_ms: int, features_hash: str) -> ModelOutcome:
    """Give what the direction head's answer is worth to a decision; see `gate_signal`.

    A fallback is none: what stands in for a direction is the proxy.
    """
    answer = gate_signal(
        row, symbol=symbol, ts_ms=ts_ms, features_hash=features_hash, head=Head.DIRECTION
    )
    if isinstance(answer, Reason):
        return refused(answer, features_hash)
    if not isinstance(answer, DirectionSignal) or row.fallback_reason is not None:
        return refused(row.fallback_reason or Reason.OUTPUT_INVALID, features_hash)
    return ModelOutcome(
        features_hash=features_hash,
        p_hat_raw_bps=answer.p_hat_raw_bps,
        p_hat_bps=answer.p_hat_bps,
    )
