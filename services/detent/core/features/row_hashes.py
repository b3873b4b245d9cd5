"""Hashes the rows of one symbol from texts that are prepared once.

The canonical text of a snapshot differs from row to row in seven places only. It is written
once by the code that writes it live, with marks in those places; each row fills them in.
"""

from decimal import Decimal

from detent.contracts.canonical import JsonValue, canonical_bytes, sha256_hex
from detent.contracts.decimals import format_decimal
from detent.contracts.json_codec import to_json
from detent.contracts.snapshots import FeatureSnapshot
from detent.core.features.model_input import FEATURES_SCHEMA

# Values that occur nowhere else in a text, in the order of the keys that they stand for.
_MARK_ATR = Decimal("0.123456789012345678")
_MARK_NATR, _MARK_NET, _MARK_SCORE, _MARK_PATH = 1_000_000_001, 1_000_000_003, 1_000_000_005, 7**11
_MARK_TS, _MARK_WARMUP = 1_234_567_890_123, 1_000_000_009
_MARK_INPUT, _MARK_SNAPSHOT = "(input)", "(snapshot)"


class RowHasher:
    """Hashes rows of one symbol under one feature set, for bars without quotes."""

    def __init__(self, feature_version: str, symbol: str) -> None:
        """Write the two texts with their marks.

        Args:
            feature_version: Hash of the feature set.
            symbol: Instrument.
        """
        marked = FeatureSnapshot(
            ts=_MARK_TS,
            symbol=symbol,
            mid_price=None,
            spread_bps=None,
            imbalance_l1_bps=None,
            thin_l1=None,
            natr_bps=_MARK_NATR,
            atr=_MARK_ATR,
            sum_abs_returns_bps=_MARK_PATH,
            net_return_bps=_MARK_NET,
            range_score=_MARK_SCORE,
            warmup_bars=_MARK_WARMUP,
        )
        self._snapshot = _form(
            canonical_bytes(FeatureSnapshot.SCHEMA, to_json(marked)),
            (_MARK_ATR, _MARK_NATR, _MARK_NET, _MARK_SCORE, _MARK_PATH, _MARK_TS, _MARK_WARMUP),
        )
        row: dict[str, JsonValue] = {
            "feature_version": feature_version,
            "symbol": symbol,
            "ts_ms": _MARK_TS,
            "snapshot_hashes": [_MARK_SNAPSHOT],
            "input_sha256": _MARK_INPUT,
        }
        self._row = _form(
            canonical_bytes(FEATURES_SCHEMA, row), (_MARK_INPUT, _MARK_SNAPSHOT, _MARK_TS)
        )

    def hashes(
        self,
        *,
        ts_ms: int,
        atr: Decimal,
        natr_bps: int,
        path_bps: int,
        net_bps: int,
        warmup_bars: int,
        values: bytes,
    ) -> tuple[str, str]:
        """Hash one row.

        Args:
            ts_ms: The instant, Unix milliseconds UTC.
            atr: Simple mean of true ranges, price units.
            natr_bps: ATR over the last close, basis points.
            path_bps: Sum of absolute bar returns, basis points.
            net_bps: Absolute return over the horizon, basis points.
            warmup_bars: Finished bars held.
            values: The row as little-endian float32.

        Returns:
            `snapshot_hash` and `features_hash`, 64 hex each.
        """
        score = path_bps // (net_bps + 1)
        text = format_decimal(atr)
        snapshot = self._snapshot % (text, natr_bps, net_bps, score, path_bps, ts_ms, warmup_bars)
        snapshot_hash = sha256_hex(snapshot.encode("ascii"))
        row = self._row % (sha256_hex(values), snapshot_hash, ts_ms)
        return snapshot_hash, sha256_hex(row.encode("ascii"))


def _form(marked: bytes, marks: tuple[object, ...]) -> str:
    """Turn a marked text into one that takes its values, in order, by the `%` operator."""
    text = marked.decode("ascii").replace("%", "%%")
    at = -1
    for mark in map(str, marks):
        assert text.count(mark) == 1, "a mark stands in one place"
        assert text.index(mark) > at, "keys are sorted"
        at = text.index(mark)
        text = text.replace(mark, "%s")
    return text
