"""Lists every way in which a dependency can answer wrongly, with the reason that it gets.

A case is made for a host, because most of them spoil what its fakes would soundly answer.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import structs
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL
from tests.fakes import PolicyHost, hangs, model_input_of, raises

from detent.contracts import errors
from detent.contracts.calls.feature import FeatureRow
from detent.contracts.calls.signal_columns import SignalColumn
from detent.contracts.errors import ModelNotReady
from detent.contracts.reasons import Reason

T = Callable[[Any, Any], Awaitable[Any]]


def echoing(**changes: Any) -> Callable[[PolicyHost], T]:
    """Answer soundly but for some fields of the response."""

    def behavior_of(host: PolicyHost) -> T:
        async def behavior(query: Any, call: Any) -> Any:
            answers = host.inference.answers if hasattr(query, "rows") else host.features.answers
            return structs.replace(await answers(query, call), **changes)

        return behavior

    return behavior_of


def with_row(**changes: Any) -> Callable[[PolicyHost], T]:
    """Answer soundly but for some fields of the first row."""

    def behavior_of(host: PolicyHost) -> T:
        async def behavior(query: Any, call: Any) -> Any:
            answers = host.inference.answers if hasattr(query, "rows") else host.features.answers
            answer = await answers(query, call)
            rows = (structs.replace(answer.rows[0], **changes), *answer.rows[1:])
            return structs.replace(answer, rows=rows)

        return behavior

    return behavior_of


def with_columns(**changes: Any) -> Callable[[PolicyHost], T]:
    """Answer soundly but for some of the columns."""

    def behavior_of(host: PolicyHost) -> T:
        async def behavior(query: Any, call: Any) -> Any:
            answer = await host.inference.answers(query, call)
            count = answer.columns.count
            spoilt = {
                name: change(count) if callable(change) else change
                for name, change in changes.items()
            }
            return structs.replace(answer, columns=structs.replace(answer.columns, **spoilt))

        return behavior

    return behavior_of


def hashes_of(symbol: str, ts_ms: int) -> Callable[[int], bytes]:
    """Give the features hashes of another question than the one asked."""
    one = bytes.fromhex(model_input_of(symbol, ts_ms).features_hash)
    return lambda count: one * count


def columns(**integers: int) -> Callable[[int], tuple[SignalColumn, ...]]:
    """Give columns of integers that are the same in every row."""
    return lambda count: tuple(
        SignalColumn(name=name, values=value.to_bytes(4, "little", signed=True) * count)
        for name, value in integers.items()
    )


def elements(count: int) -> tuple[SignalColumn, ...]:
    """Give the direction's columns with a named element, as brackets have them."""
    given = columns(p_hat_raw_bps=9_000, p_hat_bps=9_000)(count)
    return tuple(structs.replace(column, elements=("UP",)) for column in given)


def failing(error: Exception) -> Callable[[PolicyHost], T]:
    return lambda _host: raises(error)


def hanging(_host: PolicyHost) -> T:
    return hangs


OTHER_ROW = FeatureRow(symbol=OTHER_SYMBOL, model_input=model_input_of(OTHER_SYMBOL, START_MS))
REGIME = columns(
    regime_low_prob_bps=10_000,
    regime_mid_prob_bps=0,
    regime_high_prob_bps=0,
    predicted_regime=1,
    regime_confidence_bps=10_000,
    spacing_multiplier_x1000=1_000,
)
BAD_FEATURES = {
    "hangs": (hanging, Reason.FEATURES_UNAVAILABLE),
    "breaks": (failing(RuntimeError("boom")), Reason.FEATURES_UNAVAILABLE),
    "is gone": (
        failing(errors.ServiceUnavailable("gone", service="FeatureService")),
        Reason.FEATURES_UNAVAILABLE,
    ),
    "runs late": (
        failing(errors.DeadlineExceeded("late", remaining_ms=0)),
        Reason.FEATURES_UNAVAILABLE,
    ),
    "holds another binding": (
        failing(errors.BindingMismatch("a" * 64, "b" * 64)),
        Reason.BINDING_MISMATCH,
    ),
    "holds another feature version": (
        failing(errors.FeatureVersionMismatch("other", found="a", expected="b")),
        Reason.FEATURE_VERSION_MISMATCH,
    ),
    "is behind": (failing(errors.SnapshotStale("behind", symbol=SYMBOL)), Reason.FEATURES_STALE),
    "knows no such symbol": (
        failing(errors.SnapshotNotFound("unknown", symbol=SYMBOL)),
        Reason.SYMBOL_UNKNOWN,
    ),
    "answers unreadably": (
        failing(errors.InvalidResponse("rows[0].values", "3 bytes", "a multiple of 4")),
        Reason.FEATURES_MISSING,
    ),
    "answers for another binding": (echoing(binding_hash="f" * 64), Reason.BINDING_MISMATCH),
    "answers in another version": (
        echoing(feature_version="f" * 64),
        Reason.FEATURE_VERSION_MISMATCH,
    ),
    "answers nothing": (echoing(rows=()), Reason.FEATURES_MISSING),
    "answers for another symbol": (echoing(rows=(OTHER_ROW,)), Reason.FEATURES_MISSING),
    "answers for another bar": (
        with_row(model_input=model_input_of(SYMBOL, START_MS - HOUR_MS)),
        Reason.FEATURES_STALE,
    ),
    "pairs a hash with other values": (
        with_row(
            model_input=structs.replace(
                model_input_of(SYMBOL, START_MS), values=b"\x00\x00\x00\x40" * 11
            )
        ),
        Reason.FEATURES_MISSING,
    ),
    "pairs a hash with another version": (
        with_row(model_input=model_input_of(SYMBOL, START_MS, feature_version="f" * 64)),
        Reason.FEATURES_MISSING,
    ),
    "pairs a hash with another symbol": (
        with_row(model_input=model_input_of(OTHER_SYMBOL, START_MS)),
        Reason.FEATURES_MISSING,
    ),
    "has a missing feature": (
        with_row(model_input=None, refusal=Reason.FEATURES_MISSING),
        Reason.FEATURES_MISSING,
    ),
}
BAD_SIGNALS = {
    "hangs": (hanging, Reason.INFERENCE_DEADLINE),
    "breaks": (failing(RuntimeError("boom")), Reason.INFERENCE_ERROR),
    "fails inside": (failing(errors.InternalError("internal error")), Reason.INFERENCE_ERROR),
    "is gone": (
        failing(errors.ServiceUnavailable("gone", service="InferenceService")),
        Reason.INFERENCE_UNAVAILABLE,
    ),
    "sheds load": (failing(errors.Overloaded("full", limit=1)), Reason.INFERENCE_OVERLOADED),
    "runs late": (
        failing(errors.DeadlineExceeded("late", remaining_ms=0)),
        Reason.INFERENCE_DEADLINE,
    ),
    "serves another binding": (
        failing(errors.BindingMismatch("a" * 64, "b" * 64)),
        Reason.BINDING_MISMATCH,
    ),
    "answers unreadably": (
        failing(errors.InvalidResponse("rows[0]", "nothing", "something")),
        Reason.OUTPUT_INVALID,
    ),
    "answers for another binding": (echoing(binding_hash="f" * 64), Reason.BINDING_MISMATCH),
    "answers from another artifact": (
        echoing(model_version_hash="f" * 64),
        Reason.BINDING_MISMATCH,
    ),
    "answers uncalibrated": (echoing(calibration_version=""), Reason.CALIBRATION_MISSING),
    "answers otherwise calibrated": (
        echoing(calibration_version="f" * 64),
        Reason.CALIBRATION_FAILED,
    ),
    "answers nothing": (echoing(columns=None), Reason.OUTPUT_INVALID),
    "answers for another symbol": (
        with_columns(features_hashes=hashes_of("ETHEUR", START_MS)),
        Reason.OUTPUT_INVALID,
    ),
    "answers for another bar": (
        with_columns(features_hashes=hashes_of(SYMBOL, START_MS - HOUR_MS)),
        Reason.OUTPUT_INVALID,
    ),
    "answers for another input": (
        with_columns(features_hashes=lambda count: b"\xff" * 32 * count),
        Reason.OUTPUT_INVALID,
    ),
    "answers for other bytes": (with_columns(inputs_sha256="f" * 64), Reason.OUTPUT_INVALID),
    "answers more rows": (
        with_columns(
            features_hashes=lambda count: b"\xff" * 32 * (count + 1),
            signals=lambda count: columns(p_hat_raw_bps=1, p_hat_bps=1)(count + 1),
        ),
        Reason.OUTPUT_INVALID,
    ),
    "answers half": (with_columns(signals=columns(p_hat_bps=9_000)), Reason.OUTPUT_INVALID),
    "answers more than one": (
        with_columns(signals=columns(p_hat_raw_bps=9_000, p_hat_bps=10_001)),
        Reason.OUTPUT_INVALID,
    ),
    "answers less than nothing": (
        with_columns(signals=columns(p_hat_raw_bps=-1, p_hat_bps=9_000)),
        Reason.OUTPUT_INVALID,
    ),
    "answers another question": (with_columns(signals=REGIME), Reason.OUTPUT_INVALID),
    "answers by elements": (with_columns(signals=elements), Reason.OUTPUT_INVALID),
    "refuses the row": (
        with_columns(refusals=lambda count: (Reason.CALIBRATION_FAILED,) * count),
        Reason.CALIBRATION_FAILED,
    ),
    "falls back": (
        with_columns(fallback_reasons=lambda count: (Reason.OUTPUT_INVALID,) * count),
        Reason.OUTPUT_INVALID,
    ),
    **{
        f"is not ready: {gate}": (failing(ModelNotReady("no", gate_reason=gate)), gate)
        for gate in (
            Reason.ONNX_UNAVAILABLE,
            Reason.ARTIFACT_DIR_MISSING,
            Reason.MANIFEST_INVALID,
            Reason.MODEL_NOT_LOADED,
            Reason.CERTIFICATE_FAILED,
            Reason.SIGNATURE_REFUSED,
        )
    },
}
