"""Check a model's answer again where it is about to be used."""

from collections.abc import Sequence

from detent.contracts.binding import Head
from detent.contracts.calls.inference import InferSignalsResponse, SignalRow
from detent.contracts.calls.signal_columns import Reasons, SignalColumns
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, HeadSignal, head_name
from detent.contracts.units import BPS_ONE
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


def gate_columns(
    columns: SignalColumns | None, *, inputs_sha256: str, features_hashes: Sequence[str]
) -> list[ModelOutcome]:
    """Give what the direction head's answers are worth to decisions, one per row asked.

    A fallback is none: what stands in for a direction is the proxy.

    Args:
        columns: The answer, in columns; None when it had none.
        inputs_sha256: SHA-256 of the model inputs that were sent, 64 hex.
        features_hashes: Those of the rows asked, 64 hex each.

    Returns:
        Per row an answer, or the reason why there is none. An answer to other inputs, to more
        or fewer rows, of another head or with a number that is no probability is none at all.
    """
    count = len(features_hashes)
    if columns is None or columns.count != count or columns.inputs_sha256 != inputs_sha256:
        return [refused(Reason.OUTPUT_INVALID, asked) for asked in features_hashes]
    nothing: Reasons = (None,) * count
    reasons = columns.refusals or columns.fallback_reasons or nothing
    if columns.refusals and columns.fallback_reasons:
        both = zip(columns.refusals, columns.fallback_reasons, strict=True)
        reasons = tuple(refusal or fallback for refusal, fallback in both)
    given = _directions(columns, [row for row, reason in enumerate(reasons) if reason is None])
    if given is None:
        # What was refused keeps its own reason.
        return [
            refused(reason or Reason.OUTPUT_INVALID, asked)
            for reason, asked in zip(reasons, features_hashes, strict=True)
        ]
    answered = columns.features_hashes.hex()
    return [
        _direction_outcome(reason, p_hat_raw_bps, p_hat_bps, asked, answered[start : start + 64])
        for reason, p_hat_raw_bps, p_hat_bps, asked, start in zip(
            reasons, *given, features_hashes, range(0, 64 * count, 64), strict=True
        )
    ]


def _directions(
    columns: SignalColumns, answered: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Give both columns of the direction head; None where they are not its columns."""
    given = {column.name: column for column in columns.signals}
    if given.keys() != set(DirectionSignal.__struct_fields__):
        return None
    if any(column.elements for column in columns.signals):
        return None
    for column in given.values():
        integers = column.integers[answered]
        if len(integers) and not 0 <= integers.min() <= integers.max() <= BPS_ONE:
            return None
    return given["p_hat_raw_bps"].integers.tolist(), given["p_hat_bps"].integers.tolist()


def _direction_outcome(
    reason: Reason | None, p_hat_raw_bps: int, p_hat_bps: int, asked: str, answered: str
) -> ModelOutcome:
    if reason is not None:
        return refused(reason, asked)
    if answered != asked:
        return refused(Reason.OUTPUT_INVALID, asked)
    return ModelOutcome(features_hash=asked, p_hat_raw_bps=p_hat_raw_bps, p_hat_bps=p_hat_bps)
