"""Holds the contract between a model and its inputs: ordered features, and how each is made.

`feature_version` is the SHA-256 of the canonical JSON, so whatever could change a value is in
it: order, transforms, windows, engine, rounding, missing-data rule (D2). A feature that no
input provides cannot be named: the set is refused when it is built, never filled with zeros.
"""

import functools
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.calls.feature import INPUT_BYTES_MAX
from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import check_count, check_int, check_name, check_unique
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.feature_set_forms import read_form, write_form
from detent.core.features.feature_spec import (
    BOOK_TRANSFORMS,
    COLUMNS,
    FROM_TRADES,
    ROWS_READ_MAX,
    FeatureSpec,
    FeatureTransform,
    feature,
)

FEATURES_MAX = 1_024
FLOAT_BYTES = 4


class SpreadRounding(StrEnum):
    """Says how the spread becomes an integer (D5 knows one way)."""

    TRUNCATE = "truncate"


class BpsRounding(StrEnum):
    """Says how every other share becomes an integer (D5 knows one way)."""

    HALF_EVEN = "half_even"


class MissingData(StrEnum):
    """Says what happens when a value cannot be had (D7: the row is refused)."""

    REFUSE = "refuse"


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Fixes what a model is given, in order.

    It has no slots so that the hash, which every row repeats, is computed once.

    Attributes:
        name: Name for people; different sets may share it, their hashes differ.
        features: The features in the order in which the model consumes them.
        window_rows: Rows that the model is given, oldest first; the newest is the instant's.
        engine: How bars become indicators.
        spread_rounding: How the spread is rounded.
        bps_rounding: How every other share is rounded.
        missing_data: What happens when a value cannot be had.
    """

    SCHEMA: ClassVar[str] = "detent.feature_set.v1"
    SCHEMA_V2: ClassVar[str] = "detent.feature_set.v2"

    name: str
    features: tuple[FeatureSpec, ...]
    engine: EngineConfig
    spread_rounding: SpreadRounding = SpreadRounding.TRUNCATE
    bps_rounding: BpsRounding = BpsRounding.HALF_EVEN
    missing_data: MissingData = MissingData.REFUSE
    window_rows: int = 1

    def __post_init__(self) -> None:
        """Refuse an empty or ambiguous set and one that could never warm up."""
        check_name("name", self.name)
        check_count("features", self.features, 1, FEATURES_MAX)
        check_unique("features", self.feature_names)
        check_int("window_rows", self.window_rows, 1, ROWS_READ_MAX)
        values_max = INPUT_BYTES_MAX // FLOAT_BYTES
        if self.window_rows * len(self.features) > values_max:
            expected = f"at most {values_max} values in all rows"
            raise InvalidField("window_rows", self.window_rows, expected)
        for index, spec in enumerate(self.features):
            self._check_provided(f"features[{index}]", spec)
        if self.warmup_bars_min > self.engine.max_bars:
            expected = f"at least the {self.warmup_bars_min} bars that the features need"
            raise InvalidField("max_bars", self.engine.max_bars, expected)
        # Both or neither: two sets that give the same inputs have one hash.
        if self.reads_book and self.engine.book is None:
            raise InvalidField("l2_qty_ref", None, "a quantity: a feature reads the book")
        if self.engine.book is not None and not self.reads_book:
            found = self.engine.book.l2_qty_ref
            raise InvalidField("l2_qty_ref", found, "none: no feature reads the book")

    def _check_provided(self, path: str, spec: FeatureSpec) -> None:
        if spec.transform is FeatureTransform.CALLER and spec.name in COLUMNS:
            raise InvalidField(f"{path}.name", spec.name, "not the name of a column of a bar")
        for source in spec.sources:
            if source not in self.specs:
                expected = f"a feature of this set or one of {', '.join(COLUMNS)}"
                raise InvalidField(f"{path}.sources", source, expected)
        traded = {spec.transform, *(self.specs[name].transform for name in spec.sources)}
        if self.engine.bar_source is not BarSource.READY_MADE and traded & FROM_TRADES:
            expected = f"what bars built from quotes provide, not {spec.transform}"
            raise InvalidField(f"{path}.name", spec.name, expected)
        if self._from_caller(spec) and max(spec.rows_read, self.window_rows) > 1:
            expected = "no past of what a caller says of one instant"
            raise InvalidField(f"{path}.name", spec.name, expected)

    def _from_caller(self, spec: FeatureSpec) -> bool:
        # A name holds the names of its sources, so that no chain of them comes back to itself.
        return spec.transform is FeatureTransform.CALLER or any(
            self._from_caller(self.specs[name]) for name in spec.sources
        )

    def _bars_needed(self, spec: FeatureSpec) -> int:
        deepest = max((self._bars_needed(self.specs[name]) for name in spec.sources), default=0)
        return deepest + spec.rows_read - 1 if deepest else spec.bars_needed(self.engine)

    @functools.cached_property
    def canonical_json(self) -> bytes:
        """Give the bytes that `feature_version` is the hash of.

        A set that uses nothing of version 2 is written as version 1, and keeps its hash.
        """
        version, fields = write_form(to_json(self))
        return canonical_bytes(self.SCHEMA if version == 1 else self.SCHEMA_V2, fields)

    @functools.cached_property
    def feature_version(self) -> str:
        """Hash the set, in canonical form, to 64 hex."""
        return sha256_hex(self.canonical_json)

    @functools.cached_property
    def feature_names(self) -> tuple[str, ...]:
        """List the names in the order in which the model consumes them."""
        return tuple(spec.name for spec in self.features)

    @functools.cached_property
    def reads_book(self) -> bool:
        """Say whether a feature is read from the order book."""
        return any(spec.transform in BOOK_TRANSFORMS for spec in self.features)

    @functools.cached_property
    def specs(self) -> dict[str, FeatureSpec]:
        """Give the features by name, and the columns of a bar, which need not be declared."""
        return COLUMNS | {spec.name: spec for spec in self.features}

    @functools.cached_property
    def caller_names(self) -> tuple[str, ...]:
        """List the features that only the strategist knows, in the order of the set."""
        caller = FeatureTransform.CALLER
        return tuple(spec.name for spec in self.features if spec.transform is caller)

    @functools.cached_property
    def input_names(self) -> tuple[str, ...]:
        """List the names of all values of the model input, in order.

        With several rows, `return_pct_1@63` is the value 63 bars before the newest.
        """
        if self.window_rows == 1:
            return self.feature_names
        return tuple(
            f"{name}@{back}"
            for back in range(self.window_rows - 1, -1, -1)
            for name in self.feature_names
        )

    @functools.cached_property
    def warmup_bars_min(self) -> int:
        """Count the bars that a symbol needs before it can be served."""
        deepest = max(self._bars_needed(spec) for spec in self.features)
        return deepest + self.window_rows - 1


def parse_feature_set(text: bytes) -> FeatureSet:
    """Read a feature set from JSON.

    Args:
        text: What `canonical_json` wrote; other spacing or key order is the same set.

    Raises:
        InvalidField: The text is no feature set, or names what no input provides.
    """
    fields = parse_json("feature_set", text)
    schemas = {FeatureSet.SCHEMA: 1, FeatureSet.SCHEMA_V2: 2}
    schema = fields.pop("schema", "(missing)")
    if not isinstance(schema, str) or schema not in schemas:
        raise InvalidField("schema", schema, f"one of {', '.join(schemas)}")
    return from_json(FeatureSet, read_form(schemas[schema], fields))


def direction_bars_v1(bar_interval_ms: int) -> FeatureSet:
    """Give the feature set of a direction model that sees finished bars and nothing else.

    Args:
        bar_interval_ms: Length of the bars that the model was trained on.
    """
    returns = tuple(feature(FeatureTransform.RETURN_PCT, bars) for bars in (1, 3, 6, 12, 24))
    deviations = tuple(feature(FeatureTransform.DEVIATION_PCT, bars) for bars in (12, 24))
    shape = (
        feature(FeatureTransform.CLOSE_ZSCORE, 24),
        feature(FeatureTransform.NATR_PCT),
        feature(FeatureTransform.SUM_ABS_RETURNS_PCT),
        feature(FeatureTransform.RANGE_SCORE_CAPPED),
    )
    engine = EngineConfig(bar_interval_ms=bar_interval_ms, bar_source=BarSource.READY_MADE)
    return FeatureSet(
        name="direction_bars_v1", features=returns + deviations + shape, engine=engine
    )


HOUR_MS = 3_600_000
DIRECTION_BARS_V1 = direction_bars_v1(HOUR_MS)
