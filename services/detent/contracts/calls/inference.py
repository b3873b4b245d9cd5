"""Hold the requests and responses of `InferenceService`."""

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.signal_columns import InferenceColumns, SignalColumns
from detent.contracts.certificate import DeterminismCertificate
from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_hash64,
    check_name,
    check_symbol,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.signals import MlSignalSnapshot
from detent.contracts.units import ROWS_MAX

# Weighing features costs many times what an answer costs.
ATTRIBUTION_ROWS_MAX = 256


class InferenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for one signal."""

    symbol: str
    model_input: ModelInput

    def __post_init__(self) -> None:
        """Refuse what is not an instrument."""
        check_symbol("symbol", self.symbol)


class InferSignalsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for signals.

    Attributes:
        binding_hash: The binding, 64 hex.
        rows: The rows, fewer of them with attributions.
        attributions: Whether each answer of the model shall name its heaviest features.
        columns: The rows in the other form; None with `rows`.
    """

    binding_hash: str
    rows: tuple[InferenceRow, ...] = ()
    attributions: bool = False
    columns: InferenceColumns | None = None

    def __post_init__(self) -> None:
        """Refuse a batch that is empty, too large, or there in both forms."""
        if self.columns is not None:
            if self.rows:
                expected = "exactly one of rows and columns"
                raise InvalidField("columns", f"columns and {len(self.rows)} rows", expected)
            if self.attributions:
                raise InvalidField("attributions", found=True, expected="absent with columns")
            return
        limit = ATTRIBUTION_ROWS_MAX if self.attributions else ROWS_MAX
        check_count("rows", self.rows, 1, limit)


class SignalRow(msgspec.Struct, frozen=True, kw_only=True):
    """Gives one signal, or the reason why there is none.

    Attributes:
        symbol: Instrument.
        features_hash: Hash of the features, 64 hex, computed before inference.
        signal: The signal; None with a refusal.
        refusal: Why there is none; None with a signal.
        fallback_reason: Why the signal is the head's fallback and not the model's answer.
    """

    symbol: str
    features_hash: str
    signal: MlSignalSnapshot | None = None
    refusal: Reason | None = None
    fallback_reason: Reason | None = None

    def __post_init__(self) -> None:
        """Refuse a row that says nothing or both."""
        if (self.signal is None) is (self.refusal is None):
            check_exactly_one("outcome", signal=self.signal, refusal=self.refusal)
        if self.signal is None and self.fallback_reason is not None:
            raise InvalidField("fallback_reason", self.fallback_reason, "absent: no signal")


class InferSignalsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives the signals in the order in which they were asked for, in the form of the question."""

    binding_hash: str
    model_version_hash: str
    calibration_version: str
    rows: tuple[SignalRow, ...] = ()
    columns: SignalColumns | None = None


class DescribeArtifactRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the artifact that is loaded."""

    binding_hash: str


class AttributionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """States how the features of an answer are weighed.

    Attributes:
        method: `shapley_linear`, `shapley_trees` or `occlusion`.
        exact: Whether the weights are the Shapley values of the model's score.
        baseline_hash: SHA-256 of the row that answers are measured from, float32, 64 hex.
    """

    method: str
    exact: bool
    baseline_hash: str

    def __post_init__(self) -> None:
        """Refuse what names no method or no row."""
        check_name("method", self.method)
        check_hash64("baseline_hash", self.baseline_hash)


class DescribeArtifactResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the artifact that is loaded."""

    binding_hash: str
    model_binding: ModelBinding
    model_hash: str
    calibration_method: str
    execution_provider: str
    golden_row_count: int
    manifest_json: str
    certificate: DeterminismCertificate
    signer: str | None = None
    attributions: AttributionFacts | None = None
