"""Holds the contract between a model and its inputs: ordered features, and how each is made.

`feature_version` is the SHA-256 of the canonical JSON, so whatever could change a value is in
it: order, transforms, windows, engine, rounding, missing-data rule (D2). A feature that no
input provides cannot be named: the set is refused when it is built, never filled with zeros.
"""

import functools
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import check_count, check_int, check_name, check_unique
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.core.features.engine import BARS_HELD_MAX, BarSource, EngineConfig

FEATURES_MAX = 1_024


class FeatureTransform(StrEnum):
    """Names every way to make a value; `feature_values` computes them.

    The value is the stem of the feature's name. Shares are in percent, so that values are of
    the order of one whatever the price of the instrument.
    """

    RETURN_PCT = "return_pct"
    DEVIATION_PCT = "deviation_pct"
    CLOSE_ZSCORE = "close_zscore"
    NATR_PCT = "natr_pct"
    SUM_ABS_RETURNS_PCT = "sum_abs_returns_pct"
    NET_RETURN_PCT = "net_return_pct"
    RANGE_SCORE_CAPPED = "range_score_capped"
    SPREAD_PCT = "spread_pct"
    IMBALANCE_L1 = "imbalance_l1"
    DEPTH_IMBALANCE = "depth_imbalance"
    IMPACT_BUY_PCT = "impact_buy_pct"
    IMPACT_SELL_PCT = "impact_sell_pct"
    WALL_BID_SCORE = "wall_bid_score"
    WALL_ASK_SCORE = "wall_ask_score"
    INSUFFICIENT_DEPTH_BUY = "insufficient_depth_buy"
    INSUFFICIENT_DEPTH_SELL = "insufficient_depth_sell"


# What each transform reads: bars before and including the newest, given its window.
_CLOSES_BEYOND_WINDOW = {
    FeatureTransform.RETURN_PCT: 1,
    FeatureTransform.DEVIATION_PCT: 1,
    FeatureTransform.CLOSE_ZSCORE: 0,
}
_FROM_ATR = frozenset({FeatureTransform.NATR_PCT})
_FROM_RANGE = frozenset(
    {
        FeatureTransform.SUM_ABS_RETURNS_PCT,
        FeatureTransform.NET_RETURN_PCT,
        FeatureTransform.RANGE_SCORE_CAPPED,
    }
)
# What is read from the order book; `book_values` computes them.
BOOK_TRANSFORMS = frozenset(
    {
        FeatureTransform.DEPTH_IMBALANCE,
        FeatureTransform.IMPACT_BUY_PCT,
        FeatureTransform.IMPACT_SELL_PCT,
        FeatureTransform.WALL_BID_SCORE,
        FeatureTransform.WALL_ASK_SCORE,
        FeatureTransform.INSUFFICIENT_DEPTH_BUY,
        FeatureTransform.INSUFFICIENT_DEPTH_SELL,
    }
)


class SpreadRounding(StrEnum):
    """Says how the spread becomes an integer (D5 knows one way)."""

    TRUNCATE = "truncate"


class BpsRounding(StrEnum):
    """Says how every other share becomes an integer (D5 knows one way)."""

    HALF_EVEN = "half_even"


class MissingData(StrEnum):
    """Says what happens when a value cannot be had (D7: the row is refused)."""

    REFUSE = "refuse"


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Names one feature and how it is made.

    Attributes:
        name: The one name of this transform and window, see `feature_name`.
        transform: How the value is made.
        window_bars: Bars that it looks back; None for one read from the snapshot.
    """

    name: str
    transform: FeatureTransform
    window_bars: int | None

    def __post_init__(self) -> None:
        """Refuse a feature that no input provides."""
        if not isinstance(self.transform, FeatureTransform):
            known = ", ".join(FeatureTransform)
            raise InvalidField("transform", self.transform, f"one that an input provides: {known}")
        if self.transform in _CLOSES_BEYOND_WINDOW:
            low = 2 if self.transform is FeatureTransform.CLOSE_ZSCORE else 1
            if self.window_bars is None:
                raise InvalidField("window_bars", None, f"a window for {self.transform}")
            check_int("window_bars", self.window_bars, low, BARS_HELD_MAX)
        elif self.window_bars is not None:
            raise InvalidField("window_bars", self.window_bars, f"none for {self.transform}")
        provided = feature_name(self.transform, self.window_bars)
        if self.name != provided:
            raise InvalidField("name", self.name, f"the name of what is provided, {provided}")

    def bars_needed(self, engine: EngineConfig) -> int:
        """Count the finished bars that one value needs."""
        if self.window_bars is not None:
            return self.window_bars + _CLOSES_BEYOND_WINDOW[self.transform]
        if self.transform in _FROM_ATR:
            return engine.atr_period + 1
        if self.transform in _FROM_RANGE:
            return engine.range_horizon + 1
        return 1


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Fixes what a model is given, in order.

    It has no slots so that the hash, which every row repeats, is computed once.

    Attributes:
        name: Name for people; different sets may share it, their hashes differ.
        features: The features in the order in which the model consumes them.
        engine: How bars become indicators.
        spread_rounding: How the spread is rounded.
        bps_rounding: How every other share is rounded.
        missing_data: What happens when a value cannot be had.
    """

    SCHEMA: ClassVar[str] = "detent.feature_set.v1"

    name: str
    features: tuple[FeatureSpec, ...]
    engine: EngineConfig
    spread_rounding: SpreadRounding = SpreadRounding.TRUNCATE
    bps_rounding: BpsRounding = BpsRounding.HALF_EVEN
    missing_data: MissingData = MissingData.REFUSE

    def __post_init__(self) -> None:
        """Refuse an empty or ambiguous set and one that could never warm up."""
        check_name("name", self.name)
        check_count("features", self.features, 1, FEATURES_MAX)
        check_unique("features", self.feature_names)
        if self.warmup_bars_min > self.engine.max_bars:
            expected = f"at least the {self.warmup_bars_min} bars that the features need"
            raise InvalidField("max_bars", self.engine.max_bars, expected)
        # Both or neither: two sets that give the same inputs have one hash.
        if self.reads_book and self.engine.book is None:
            raise InvalidField("l2_qty_ref", None, "a quantity: a feature reads the book")
        if self.engine.book is not None and not self.reads_book:
            found = self.engine.book.l2_qty_ref
            raise InvalidField("l2_qty_ref", found, "none: no feature reads the book")

    @functools.cached_property
    def canonical_json(self) -> bytes:
        """Give the bytes that `feature_version` is the hash of."""
        return canonical_bytes(self.SCHEMA, to_json(self))

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
    def warmup_bars_min(self) -> int:
        """Count the bars that a symbol needs before it can be served."""
        return max(spec.bars_needed(self.engine) for spec in self.features)


def feature_name(transform: FeatureTransform, window_bars: int | None) -> str:
    """Give the one name of a transform over a window, for example `return_pct_6`."""
    return transform.value if window_bars is None else f"{transform.value}_{window_bars}"


def feature(transform: FeatureTransform, window_bars: int | None = None) -> FeatureSpec:
    """Give the feature of a transform over a window, under its one name."""
    name = feature_name(transform, window_bars)
    return FeatureSpec(name=name, transform=transform, window_bars=window_bars)


def parse_feature_set(text: bytes) -> FeatureSet:
    """Read a feature set from JSON.

    Args:
        text: What `canonical_json` wrote; other spacing or key order is the same set.

    Raises:
        InvalidField: The text is no feature set, or names what no input provides.
    """
    fields = parse_json("feature_set", text)
    if fields.get("schema") != FeatureSet.SCHEMA:
        raise InvalidField("schema", fields.get("schema", "(missing)"), FeatureSet.SCHEMA)
    return from_json(FeatureSet, fields)


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
