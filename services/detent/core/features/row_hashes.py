"""Hashes the rows of one symbol from texts that are prepared once.

The canonical text of a snapshot differs from row to row in seven places only. It is written
once by the code that writes it live, with marks in those places; each row fills them in.
"""

import hashlib
from collections.abc import Sequence
from decimal import Decimal

from detent.contracts.canonical import JsonValue, canonical_bytes
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
        ts_ms: Sequence[int],
        atrs: Sequence[str],
        natr_bps: Sequence[int],
        path_bps: Sequence[int],
        net_bps: Sequence[int],
        scores: Sequence[int],
        warmup_bars: Sequence[int],
        values: Sequence[bytes],
    ) -> tuple[list[str], list[str]]:
        """Hash many rows, one item of each argument for each.

        Args:
            ts_ms: The instants, Unix milliseconds UTC.
            atrs: Simple means of true ranges, price units, in canonical form.
            natr_bps: ATR over the last close, basis points.
            path_bps: Sums of absolute bar returns, basis points.
            net_bps: Absolute returns over the horizon, basis points.
            scores: Range scores.
            warmup_bars: Finished bars held.
            values: The inputs as little-endian float32.

        Returns:
            The `snapshot_hash` and the `features_hash` of each, 64 hex.
        """
        # Local names, and no function called in between: this loop is most of what a row costs.
        sha256, snapshot, row = hashlib.sha256, self._snapshot, self._row
        places = zip(atrs, natr_bps, net_bps, scores, path_bps, ts_ms, warmup_bars, strict=True)
        snapshot_hashes = [sha256((snapshot % place).encode()).hexdigest() for place in places]
        rows = zip(values, snapshot_hashes, ts_ms, strict=True)
        features_hashes = [
            sha256((row % (sha256(one).hexdigest(), held, instant)).encode()).hexdigest()
            for one, held, instant in rows
        ]
        return snapshot_hashes, features_hashes


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
