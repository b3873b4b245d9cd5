"""Proves the values, the hashes and the refusals of model inputs."""

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from msgspec import structs
from tests.unit.core.features.market import (
    MINUTE_MS,
    READY_MADE,
    SYMBOL,
    bar,
    bars_of,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.core.features import rows
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input, features_hash, snapshot_hash
from detent.core.features.offline_rows import iter_model_inputs

DIRECTION = direction_bars_v1(MINUTE_MS)
FEATURES = {
    "feature_version": "a" * 64,
    "symbol": "BTCUSDT",
    "ts_ms": 1_700_000_000_000,
    "snapshot_hashes": ["b" * 64],
    "values": b"\x00\x00\x80\x3f",
}


def history_of(bars: Sequence[Bar], engine: EngineConfig = READY_MADE) -> SymbolHistory:
    history = SymbolHistory(SYMBOL, engine)
    for one in bars:
        history.add_bar(one)
    return history


def set_of(*transforms: FeatureTransform) -> FeatureSet:
    features = tuple(feature(transform) for transform in transforms)
    return FeatureSet(name="some", features=features, engine=READY_MADE)


def built(
    feature_set: FeatureSet,
    history: SymbolHistory,
    as_of_ts_ms: int,
    view: SnapshotView = SnapshotView.FULL,
) -> ModelInput:
    outcome = build_model_input(feature_set, history, as_of_ts_ms=as_of_ts_ms, view=view)
    assert isinstance(outcome, ModelInput)
    return outcome


def refused(feature_set: FeatureSet, history: SymbolHistory, as_of_ts_ms: int) -> object:
    return build_model_input(feature_set, history, as_of_ts_ms=as_of_ts_ms, view=SnapshotView.INPUT)


def hash_of(**changes: object) -> str:
    return features_hash(**{**FEATURES, **changes})  # type: ignore[arg-type]


# An independent reference: exact rationals up to the square root, the bars read anew.
def reference_row(bars: Sequence[Bar]) -> list[float]:
    closes = [Fraction(one.close) for one in bars]

    def past(count: int) -> float:
        return float((closes[-1] / closes[-1 - count] - 1) * 100)

    def deviation(count: int) -> float:
        tail = closes[-1 - count :]
        steps = [tail[n + 1] / tail[n] - 1 for n in range(count)]
        return math.sqrt(sum(step**2 for step in steps) / count) * 100

    tail = closes[-24:]
    mean = sum(tail) / 24
    zscore = float(closes[-1] - mean) / math.sqrt(sum((c - mean) ** 2 for c in tail) / 24)
    last = bars[-15:]
    atr = sum(
        max(Fraction(now.high), Fraction(was.close)) - min(Fraction(now.low), Fraction(was.close))
        for was, now in itertools.pairwise(last)
    ) / Fraction(14)
    path = round(
        sum(abs(closes[n] / closes[n - 1] - 1) for n in range(len(closes) - 14, len(closes)))
        * 10_000
    )
    net = round(abs(closes[-1] / closes[-15] - 1) * 10_000)
    return [
        *(past(count) for count in (1, 3, 6, 12, 24)),
        deviation(12),
        deviation(24),
        zscore,
        round(atr / closes[-1] * 10_000) / 100,
        path / 100,
        min(path // (net + 1), 100) / 100,
    ]


@pytest.mark.proves("R83")
def test_shipped_features_agree_with_an_exact_reference() -> None:
    bars = wave(60)
    rows = list(iter_model_inputs(DIRECTION, bars))

    for index in range(24, 60):
        row = rows[index]
        assert isinstance(row, ModelInput)
        values = struct.unpack("<11f", row.values)
        expected = reference_row(bars[: index + 1])
        assert values == pytest.approx(expected, rel=2e-7, abs=1e-9)


@pytest.mark.proves("R83")
def test_values_are_float32_in_the_order_of_the_set() -> None:
    history = history_of(bars_of(["100", "101"] * 20))
    there = set_of(FeatureTransform.SUM_ABS_RETURNS_PCT, FeatureTransform.NET_RETURN_PCT)
    back = set_of(FeatureTransform.NET_RETURN_PCT, FeatureTransform.SUM_ABS_RETURNS_PCT)

    assert built(there, history, close_ms(39)).values == struct.pack("<ff", 13.93, 0.0)
    assert built(back, history, close_ms(39)).values == struct.pack("<ff", 0.0, 13.93)


def test_quote_features_come_from_the_last_quote_before_the_instant() -> None:
    history = SymbolHistory(SYMBOL, READY_MADE)
    history.add_quote(quote(close_ms(0) - 1, "99.95", "100.05", bid_qty="3", ask_qty="1"))
    history.add_quote(quote(close_ms(0), "1", "3"))
    history.add_bar(bar(0, "100"))

    row = built(
        set_of(FeatureTransform.SPREAD_PCT, FeatureTransform.IMBALANCE_L1), history, close_ms(0)
    )

    assert struct.unpack("<ff", row.values) == pytest.approx((0.1, 0.5))
    assert row.snapshot is not None
    assert row.snapshot.mid_price == Decimal(100)


def test_flat_market_is_a_row_of_zeros() -> None:
    history = history_of(bars_of(["1.07"] * 30))

    assert built(DIRECTION, history, close_ms(29)).values == bytes(44)


@pytest.mark.proves("R26")
def test_features_hash_is_the_published_recipe() -> None:
    """Written out with nothing of ours, as a reader in another language would."""
    text = json.dumps(
        {
            "feature_version": "a" * 64,
            "input_sha256": hashlib.sha256(struct.pack("<f", 1.0)).hexdigest(),
            "schema": "detent.features.v1",
            "snapshot_hashes": ["b" * 64],
            "symbol": "BTCUSDT",
            "ts_ms": 1_700_000_000_000,
        },
        separators=(",", ":"),
    )

    assert hash_of() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.proves("R26")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("feature_version", "c" * 64),
        ("symbol", "ETHUSDT"),
        ("ts_ms", 1_700_000_000_001),
        ("snapshot_hashes", ["c" * 64]),
        ("snapshot_hashes", ["b" * 64, "b" * 64]),
        ("values", b"\x00\x00\x80\xbf"),
    ],
)
def test_any_field_changes_the_features_hash(field: str, value: object) -> None:
    assert hash_of(**{field: value}) != hash_of()


@pytest.mark.proves("R26")
def test_snapshot_hash_changes_with_every_field() -> None:
    history = history_of(wave(30))
    history.add_quote(quote(close_ms(29)))
    history.add_bar(bar(30, "100"))
    snapshot = built(DIRECTION, history, close_ms(30)).snapshot
    assert snapshot is not None

    hashes = {snapshot_hash(snapshot)}
    for name in snapshot.__struct_fields__:
        value = getattr(snapshot, name)
        changes: dict[str, Any] = {name: "ETHUSDT" if isinstance(value, str) else value + 1}
        hashes.add(snapshot_hash(structs.replace(snapshot, **changes)))

    assert len(hashes) == 13


@pytest.mark.proves("R26")
def test_equal_decimals_hash_equally_however_they_are_written() -> None:
    plain = [*bars_of(["1", "2"] * 15)]
    padded = [*bars_of(["1.00", "2.000"] * 15)]

    assert list(iter_model_inputs(DIRECTION, plain)) == list(iter_model_inputs(DIRECTION, padded))


def test_view_decides_on_the_snapshot_and_on_nothing_else() -> None:
    history = history_of(wave(30))
    full = built(DIRECTION, history, close_ms(29))
    bare = built(DIRECTION, history, close_ms(29), SnapshotView.INPUT)

    assert full.snapshot is not None
    assert full.snapshot.warmup_bars == 30
    assert full.snapshot_hashes == (snapshot_hash(full.snapshot),)
    assert bare == structs.replace(full, snapshot=None)


@pytest.mark.proves("R19")
def test_too_few_bars_are_a_warm_up() -> None:
    history = history_of(wave(25))

    assert refused(DIRECTION, history, close_ms(23)) is Reason.FEATURES_WARMING_UP
    assert isinstance(refused(DIRECTION, history, close_ms(24)), ModelInput)


@pytest.mark.proves("R19")
def test_data_that_end_a_whole_bar_earlier_are_stale() -> None:
    history = history_of(wave(30))

    assert isinstance(refused(DIRECTION, history, close_ms(30) - 1), ModelInput)
    assert refused(DIRECTION, history, close_ms(30)) is Reason.FEATURES_STALE


@pytest.mark.proves("R19")
def test_gap_in_front_of_the_instant_is_stale() -> None:
    history = history_of([*wave(30), bar(35, "100")])

    assert refused(DIRECTION, history, close_ms(33)) is Reason.FEATURES_STALE
    assert isinstance(refused(DIRECTION, history, close_ms(35)), ModelInput)


@pytest.mark.proves("R19")
@pytest.mark.parametrize(
    ("feature_set", "bars"),
    [
        pytest.param(set_of(FeatureTransform.SPREAD_PCT), wave(30), id="no quotes"),
        pytest.param(DIRECTION, [*wave(29), bar(29, "9" * 39)], id="indicator beyond its range"),
        pytest.param(
            FeatureSet(
                name="far", features=(feature(FeatureTransform.RETURN_PCT, 20),), engine=READY_MADE
            ),
            [bar(0, "0." + "0" * 30 + "1"), *bars_of(["100"] * 30)[1:10]]
            + [bar(n, "9" * 12) for n in range(10, 21)],
            id="beyond float32",
        ),
    ],
)
def test_value_that_cannot_be_had_is_missing(feature_set: FeatureSet, bars: list[Bar]) -> None:
    """Never a silent zero: the row as a whole is refused."""
    history = history_of(bars)

    assert refused(feature_set, history, bars[-1].ts_ms) is Reason.FEATURES_MISSING


@pytest.mark.proves("R19")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.5e38])
def test_value_that_is_no_float32_is_missing(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transform yields one from prices that the contract admits; a later one might."""
    monkeypatch.setattr(rows, "feature_value", lambda *_: value)

    assert refused(DIRECTION, history_of(wave(30)), close_ms(29)) is Reason.FEATURES_MISSING


@pytest.mark.proves("R19")
def test_past_that_is_no_longer_held_is_missing() -> None:
    engine = structs.replace(READY_MADE, max_bars=30)
    feature_set = structs.replace(DIRECTION, engine=engine)
    history = history_of(wave(60), engine)

    assert isinstance(refused(feature_set, history, close_ms(54)), ModelInput)
    assert refused(feature_set, history, close_ms(53)) is Reason.FEATURES_MISSING
    assert refused(feature_set, history, close_ms(3)) is Reason.FEATURES_MISSING
