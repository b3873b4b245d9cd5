"""Hold the rows of `InferSignals` as columns, and the answers to them.

A call of columns costs what a call costs and hardly anything per row, because no value is made
of a single row anywhere on its way (ADR 0025). Numbers travel as little-endian bytes.
"""

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.calls.feature import INPUT_BYTES_MAX
from detent.contracts.checks import (
    check_count,
    check_hash64,
    check_int,
    check_name,
    check_size,
    check_symbols,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.signals import BRACKETS_MAX, check_model
from detent.contracts.units import INT64_MAX, ROWS_MAX, TS_MS_MAX, TS_MS_MIN

# Stands in a column for what is absent; no field of a signal can be negative.
ABSENT = -1
HASH_BYTES = 32
TS_BYTES = 8
FLOAT_BYTES = 4
INTEGER_BYTES = 4
# As many fields as a signal may have on the wire; the heads have at most six.
SIGNAL_FIELDS_MAX = 16

Reasons = tuple[Reason | None, ...]


class InferenceColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the signals of many rows.

    Attributes:
        symbols: Instrument of each row.
        ts_ms: Instant of each row, Unix milliseconds UTC, little-endian int64.
        values: Model inputs, row after row, little-endian float32.
        features_hashes: Hash of the features of each row, 32 bytes.
    """

    symbols: tuple[str, ...]
    ts_ms: bytes
    values: bytes
    features_hashes: bytes

    def __post_init__(self) -> None:
        """Refuse columns that are not as long as there are rows."""
        check_count("symbols", self.symbols, 1, ROWS_MAX)
        check_symbols("symbols", self.symbols)
        count, size = len(self.symbols), len(self.values)
        check_size("ts_ms", self.ts_ms, TS_BYTES * count)
        check_size("features_hashes", self.features_hashes, HASH_BYTES * count)
        row_bytes, left = divmod(size, count)
        if left or not 0 < row_bytes <= INPUT_BYTES_MAX or row_bytes % FLOAT_BYTES:
            expected = f"{count} times a multiple of 4 in [4, {INPUT_BYTES_MAX}]"
            raise InvalidField("values", f"{size} bytes", expected)
        first = self.ts_ms[:TS_BYTES]
        if self.ts_ms == first * count:
            # Nearly always: all rows are of one bar.
            check_ts_ms("ts_ms[0]", int.from_bytes(first, "little", signed=True))
            return
        instants = self.instants
        if instants.min() < TS_MS_MIN or instants.max() > TS_MS_MAX:
            for index, ts_ms in enumerate(instants.tolist()):
                check_ts_ms(f"ts_ms[{index}]", ts_ms)

    @property
    def instants(self) -> NDArray[np.int64]:
        """Give the instants, shape (n,)."""
        return np.frombuffer(self.ts_ms, "<i8")

    @property
    def width(self) -> int:
        """Count the values of a row."""
        return len(self.values) // (FLOAT_BYTES * len(self.symbols))

    def features_hash(self, row: int) -> str:
        """Give the features hash of a row as 64 hex."""
        return self.features_hashes[HASH_BYTES * row : HASH_BYTES * (row + 1)].hex()


class SignalColumn(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one field of many signals.

    Attributes:
        name: Field of the head's signal.
        values: Its integers, row after row, little-endian int32; `ABSENT` where there is none.
        elements: Names of the elements of a row; empty where it has one.
    """

    name: str
    values: bytes
    elements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no column."""
        check_name("name", self.name)
        check_count("elements", self.elements, 0, BRACKETS_MAX)
        check_unique("elements", self.elements)
        for element in self.elements:
            check_name("elements", element)

    @property
    def integers(self) -> NDArray[np.int32]:
        """Give the integers, shape (n,) or, with names of elements, (n, elements)."""
        integers = np.frombuffer(self.values, "<i4")
        return integers.reshape(-1, len(self.elements)) if self.elements else integers


class SignalColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Gives the signals of many rows.

    Attributes:
        features_hashes: Those of the question.
        inputs_sha256: SHA-256 of the question's `values`, 64 hex, computed before inference.
        model_version: Semantic version, `v1.0.0`.
        model_hash: First 16 hex of SHA-256(model.onnx).
        latency_us: Time inside inference; outside every digest.
        signals: One column per field of the head's signal.
        refusals: Why a row has no signal; empty where all have.
        fallback_reasons: Why a signal is the head's fallback; empty where none is.
        coupling_refusals: Why the brackets of a row are not coupled; empty where all are.
    """

    BY_ROW: ClassVar[tuple[str, ...]] = ("refusals", "fallback_reasons", "coupling_refusals")

    features_hashes: bytes
    inputs_sha256: str
    model_version: str
    model_hash: str
    latency_us: int
    signals: tuple[SignalColumn, ...]
    refusals: Reasons = ()
    fallback_reasons: Reasons = ()
    coupling_refusals: Reasons = ()

    def __post_init__(self) -> None:
        """Refuse columns that are not as long as there are rows."""
        count, left = divmod(len(self.features_hashes), HASH_BYTES)
        if left or not 1 <= count <= ROWS_MAX:
            expected = f"1 to {ROWS_MAX} times {HASH_BYTES} bytes"
            raise InvalidField("features_hashes", f"{len(self.features_hashes)} bytes", expected)
        check_hash64("inputs_sha256", self.inputs_sha256)
        check_model(self.model_version, self.model_hash)
        check_int("latency_us", self.latency_us, 0, INT64_MAX)
        check_count("signals", self.signals, 1, SIGNAL_FIELDS_MAX)
        check_unique("signals", [column.name for column in self.signals])
        for index, column in enumerate(self.signals):
            size = INTEGER_BYTES * count * max(1, len(column.elements))
            check_size(f"signals[{index}].values", column.values, size)
        for name in self.BY_ROW:
            reasons = getattr(self, name)
            if reasons and len(reasons) != count:
                raise InvalidField(name, f"{len(reasons)} items", f"{count} items, or none")

    @property
    def count(self) -> int:
        """Count the rows."""
        return len(self.features_hashes) // HASH_BYTES
