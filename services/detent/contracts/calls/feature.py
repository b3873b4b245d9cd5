"""Hold the requests and responses of `FeatureService`."""

from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.caller_feature import CallerFeature, check_caller_features
from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_hash64,
    check_int,
    check_symbol,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.market import INTERVAL_MS_MAX, Bar, Book, Quote
from detent.contracts.reasons import ErrorReason, Reason
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.contracts.units import ROWS_MAX

INPUT_BYTES_MAX = 4 * 65_536
# An event is one of three things.
ABSENT_OF_EVENT = 2


class SnapshotView(StrEnum):
    """Says how much of each symbol is wanted."""

    INPUT = "input"
    FULL = "full"


class MarketEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Carries one item of market data."""

    bar: Bar | None = None
    quote: Quote | None = None
    book: Book | None = None

    def __post_init__(self) -> None:
        """Refuse an item that is nothing or two things."""
        # Counted before it is told which: every item of every feed comes through here.
        if (self.bar is None) + (self.quote is None) + (self.book is None) != ABSENT_OF_EVENT:
            check_exactly_one("event", bar=self.bar, quote=self.quote, book=self.book)


class IngestMarketDataRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Carries some market data, oldest first.

    Attributes:
        events: The items; where one was malformed, the error that it is stands in its place.
    """

    events: tuple[MarketEvent | InvalidField, ...]

    def __post_init__(self) -> None:
        """Refuse more than one message should carry."""
        check_count("events", self.events, 0, ROWS_MAX)


class MarketRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Reports an item that was refused, as it was found.

    Attributes:
        symbol: Instrument; empty when none was there.
        ts_ms: Event time; 0 when none was there.
        reason: Why.
        message: What was found and what was expected.
        index: Place of the item in the stream, from 0 over all messages.
    """

    symbol: str
    ts_ms: int
    reason: ErrorReason
    message: str
    index: int


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the refused items of one stream that have one reason."""

    reason: ErrorReason
    count: int


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """Says how far the data of one symbol reach; 0 before the first bar."""

    symbol: str
    ts_ms: int


class IngestMarketDataResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Acknowledges market data.

    Attributes:
        accepted_count: Items that changed the state.
        known_count: Items that repeated what was known.
        refused_count: Items that were refused.
        refusals: The first of them.
        watermarks: How far the data of each symbol touched reach.
        refusal_counts: All of them, by reason.
    """

    accepted_count: int
    known_count: int
    refused_count: int
    refusals: tuple[MarketRefusal, ...]
    watermarks: tuple[Watermark, ...]
    refusal_counts: tuple[RefusalCount, ...]


class CallerFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Carries what only the caller knows of one symbol at the instant, in any order."""

    symbol: str
    features: tuple[CallerFeature, ...]

    def __post_init__(self) -> None:
        """Refuse an entry that says nothing, or one thing twice."""
        check_symbol("symbol", self.symbol)
        check_caller_features("features", self.features, low=1)


class GetFeatureSnapshotsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the model inputs of many symbols as of one instant.

    Attributes:
        binding_hash: The binding whose feature set is meant.
        as_of_ts_ms: The instant, Unix milliseconds UTC.
        symbols: 1 to 5,000 of them.
        view: How much of each is wanted.
        max_age_ms: How old the newest bar, and the newest quote where there is one, may be at
            the instant, in data time; None asks for no more than the feature set does.
    """

    binding_hash: str
    as_of_ts_ms: int
    symbols: tuple[str, ...]
    view: SnapshotView
    caller_features: tuple[CallerFeatures, ...] = ()
    max_age_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse an instant that is none, symbols named twice, and words on others."""
        check_ts_ms("as_of_ts_ms", self.as_of_ts_ms)
        if self.max_age_ms is not None:
            check_int("max_age_ms", self.max_age_ms, 0, INTERVAL_MS_MAX)
        check_count("symbols", self.symbols, 1, ROWS_MAX)
        check_unique("symbols", self.symbols)
        for symbol in self.symbols:
            check_symbol("symbols", symbol)
        if not self.caller_features:
            return
        check_count("caller_features", self.caller_features, 0, ROWS_MAX)
        said_of = [said.symbol for said in self.caller_features]
        check_unique("caller_features", said_of)
        asked = set(self.symbols)
        for index, symbol in enumerate(said_of):
            if symbol not in asked:
                raise InvalidField(f"caller_features[{index}].symbol", symbol, "a symbol asked for")


class ModelInput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds what a model is given for one symbol.

    Attributes:
        ts_ms: Instant, Unix milliseconds UTC.
        values: Little-endian float32 in the order of the feature set.
        snapshot_hashes: Hashes of the snapshots that the values were read from.
        features_hash: See `core/features/model_input.py`.
        snapshot: L1 snapshot, in the full view.
        l2_snapshot: Book snapshot, in the full view and where there is one.
    """

    ts_ms: int
    values: bytes
    snapshot_hashes: tuple[str, ...]
    features_hash: str
    snapshot: FeatureSnapshot | None = None
    l2_snapshot: L2FeatureSnapshot | None = None

    def __post_init__(self) -> None:
        """Refuse bytes that are no float32 row and malformed hashes."""
        check_ts_ms("ts_ms", self.ts_ms)
        size = len(self.values)
        if size == 0 or size % 4 != 0 or size > INPUT_BYTES_MAX:
            raise InvalidField(
                "values", f"{size} bytes", f"a multiple of 4 in [4, {INPUT_BYTES_MAX}]"
            )
        check_count("snapshot_hashes", self.snapshot_hashes, 1, 2)
        for snapshot_hash in self.snapshot_hashes:
            check_hash64("snapshot_hashes", snapshot_hash)
        check_hash64("features_hash", self.features_hash)


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Gives one symbol's model input, or the reason why there is none.

    It has no slots so that a row that many calls are answered with is written once.
    """

    symbol: str
    model_input: ModelInput | None = None
    refusal: Reason | None = None

    def __post_init__(self) -> None:
        """Refuse a row that says nothing or both."""
        if (self.model_input is None) is (self.refusal is None):
            check_exactly_one("outcome", model_input=self.model_input, refusal=self.refusal)


class GetFeatureSnapshotsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives the model inputs in the order in which they were asked for."""

    WRITTEN_ONCE: ClassVar[str] = "rows"

    binding_hash: str
    feature_version: str
    rows: tuple[FeatureRow, ...]


class DescribeFeatureSetRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the feature set that a binding names."""

    binding_hash: str


class DescribeFeatureSetResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a feature set."""

    binding_hash: str
    feature_version: str
    feature_names: tuple[str, ...]
    warmup_bars_min: int
    feature_set_json: str
