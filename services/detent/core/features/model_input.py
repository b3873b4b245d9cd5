"""Builds what a model is given for one symbol and instant, and hashes it before inference.

`features_hash` covers the feature version, the symbol, the instant, the snapshots and the bytes
of the input (D4), so that a record says what a model saw even when the model then failed.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.canonical import encode_canonical, sha256_hex
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_canonical
from detent.contracts.reasons import Reason
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.core.features.book_values import is_stale
from detent.core.features.feature_set import FeatureSet
from detent.core.features.history import SymbolHistory
from detent.core.features.past_rows import PastRows
from detent.core.features.rows import RowReader
from detent.core.features.snapshot import build_feature_snapshot

FEATURES_SCHEMA = "detent.features.v1"
NOTHING_SAID: Mapping[str, Decimal] = {}


def snapshot_hash(snapshot: FeatureSnapshot | L2FeatureSnapshot) -> str:
    """Hash a snapshot, in canonical form, to 64 hex."""
    return sha256_hex(to_canonical(snapshot))


def input_canonical(
    feature_version: str,
    *,
    symbol: str,
    ts_ms: int,
    snapshot_hashes: Sequence[str],
    values: bytes,
) -> bytes:
    """Give the canonical bytes of what a model is given; their hash is `features_hash`.

    Args:
        feature_version: Hash of the feature set.
        symbol: Instrument.
        ts_ms: The instant, Unix milliseconds UTC.
        snapshot_hashes: Hashes of the snapshots used, L1 before L2.
        values: The input as little-endian float32.
    """
    # In the order of the text: the encoder finds nothing to sort, on every row of every bar.
    return encode_canonical(
        {
            "feature_version": feature_version,
            "input_sha256": sha256_hex(values),
            "schema": FEATURES_SCHEMA,
            "snapshot_hashes": snapshot_hashes,
            "symbol": symbol,
            "ts_ms": ts_ms,
        }
    )


def features_hash(
    feature_version: str,
    *,
    symbol: str,
    ts_ms: int,
    snapshot_hashes: Sequence[str],
    values: bytes,
) -> str:
    """Hash what a model is given, in canonical form, to 64 hex; see `input_canonical`."""
    return sha256_hex(
        input_canonical(
            feature_version,
            symbol=symbol,
            ts_ms=ts_ms,
            snapshot_hashes=snapshot_hashes,
            values=values,
        )
    )


def build_model_input(
    feature_set: FeatureSet,
    history: SymbolHistory,
    *,
    as_of_ts_ms: int,
    view: SnapshotView,
    caller_values: Mapping[str, Decimal] = NOTHING_SAID,
    past: PastRows | None = None,
) -> ModelInput | Reason:
    """Build the model input of one symbol as of an instant, or say why there is none.

    A pure reading of the history: live serving, backfill and training all come through here.

    Args:
        feature_set: What the model is given.
        history: Data of the symbol, under the engine of the feature set.
        as_of_ts_ms: The instant, as a rule the close of a bar.
        view: Whether the snapshot comes along.
        caller_values: What the strategist said of the instant, by the name of the feature.
        past: Rows that earlier readings of the same history left, and to which this one adds;
            it changes what a reading costs and never what it gives.

    Returns:
        The input; `FEATURES_WARMING_UP` while too few bars have closed; `FEATURES_STALE` when
        the last bar closed a whole interval or more before the instant, or the last book is
        older than that; `FEATURES_MISSING` when there is no book that a feature reads,
        when a value cannot be had, or what it needs is no longer held.
    """
    engine = feature_set.engine
    assert history.engine == engine, "a history serves the feature sets of its own engine"

    bars_wanted = max(feature_set.warmup_bars_min, engine.snapshot_bars)
    window = history.window(as_of_ts_ms, bars_wanted=bars_wanted)
    if not window.complete:
        return Reason.FEATURES_MISSING
    if window.bar_count < feature_set.warmup_bars_min:
        return Reason.FEATURES_WARMING_UP
    if as_of_ts_ms - window.bars[-1].ts_ms >= engine.bar_interval_ms:
        return Reason.FEATURES_STALE
    book = window.l2_snapshot if feature_set.reads_book else None
    if feature_set.reads_book and (book is None or is_stale(book, as_of_ts_ms, engine)):
        return Reason.FEATURES_MISSING if book is None else Reason.FEATURES_STALE
    try:
        snapshot = build_feature_snapshot(
            engine,
            symbol=history.symbol,
            ts_ms=as_of_ts_ms,
            bars=window.bars,
            warmup_bars=window.bar_count,
            quote=window.quote,
        )
    except InvalidField:
        # Prices so far apart that an indicator leaves its range.
        return Reason.FEATURES_MISSING
    if window.ordinal > history.ordinal:
        # The newest bar is finished as of the instant only: a quote may still change it.
        past = None
    reader = RowReader(feature_set, window, snapshot, caller_values=caller_values, past=past)
    values = reader.packed()
    if values is None:
        return Reason.FEATURES_MISSING
    return _hashed(feature_set, snapshot, book, values=values, view=view)


def _hashed(
    feature_set: FeatureSet,
    snapshot: FeatureSnapshot,
    book: L2FeatureSnapshot | None,
    *,
    values: bytes,
    view: SnapshotView,
) -> ModelInput:
    hashes = tuple(snapshot_hash(used) for used in (snapshot, book) if used is not None)
    return ModelInput(
        ts_ms=snapshot.ts,
        values=values,
        snapshot_hashes=hashes,
        features_hash=features_hash(
            feature_set.feature_version,
            symbol=snapshot.symbol,
            ts_ms=snapshot.ts,
            snapshot_hashes=hashes,
            values=values,
        ),
        snapshot=snapshot if view is SnapshotView.FULL else None,
        l2_snapshot=book if view is SnapshotView.FULL else None,
    )
