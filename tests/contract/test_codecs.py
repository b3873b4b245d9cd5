"""Sends values through both codecs and back: equal values, equal text, typed refusals."""

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import START_MS, emergency, model_binding, plan_of, record_of, row_of
from tests.random_decisions import Course, draw_plan

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.decision import DecisionRecord, DecisionRow
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_canonical, to_json
from detent.contracts.plan import Plan, RiskOverrides, StandDown, StandDownSource
from detent.contracts.signals import (
    BracketProbability,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    MlSignalSnapshot,
    Regime,
    RegimeSignal,
    ToxicitySignal,
)
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.contracts.units import BPS_ONE
from detent.contracts.wire import from_wire, message_class, to_wire

PRICES = st.decimals(min_value="0.00001", max_value=10**7, places=5, allow_nan=False)
COUNTS = st.integers(min_value=0, max_value=2**31 - 1)
SHARES = st.integers(min_value=-BPS_ONE, max_value=BPS_ONE)
FLAGS = st.integers(min_value=0, max_value=1)
WALLS = st.integers(min_value=1_000, max_value=2**31 - 1)
TIMES = st.integers(min_value=10**12, max_value=10**13 - 1)


@st.composite
def feature_snapshots(draw: st.DrawFn) -> FeatureSnapshot:
    quoted = draw(st.booleans())
    return FeatureSnapshot(
        ts=draw(TIMES),
        symbol="BTCUSDT",
        mid_price=draw(PRICES) if quoted else None,
        spread_bps=draw(COUNTS) if quoted else None,
        imbalance_l1_bps=draw(SHARES) if quoted else None,
        thin_l1=draw(PRICES) if quoted else None,
        natr_bps=draw(COUNTS),
        atr=draw(st.none() | PRICES),
        sum_abs_returns_bps=draw(COUNTS),
        net_return_bps=draw(COUNTS),
        range_score=draw(COUNTS),
        warmup_bars=draw(COUNTS),
    )


@st.composite
def book_snapshots(draw: st.DrawFn) -> L2FeatureSnapshot:
    return L2FeatureSnapshot(
        ts_ms=draw(TIMES),
        symbol="BTCUSDT",
        venue="BINANCE",
        depth=draw(COUNTS),
        depth_bid_qty_top_n=draw(PRICES),
        depth_ask_qty_top_n=draw(PRICES),
        depth_imbalance_top_n_bps=draw(SHARES),
        impact_buy_top_n_bps=draw(COUNTS),
        impact_sell_top_n_bps=draw(COUNTS),
        impact_buy_top_n_insufficient_depth=draw(FLAGS),
        impact_sell_top_n_insufficient_depth=draw(FLAGS),
        wall_bid_score_top_n_x1000=draw(WALLS),
        wall_ask_score_top_n_x1000=draw(WALLS),
        qty_ref=draw(PRICES),
    )


def signal_of(**head: Any) -> MlSignalSnapshot:
    return MlSignalSnapshot(
        ts=START_MS,
        symbol="BTCUSDT",
        model_version="v1.0.0",
        model_hash="0123456789abcdef",
        top_features=("natr_bps", "spread_bps", "range_score"),
        top_feature_weights_x1000=(400, 300, 100),
        inference_latency_us=950,
        features_hash="fedcba9876543210",
        **head,
    )


SIGNALS = (
    signal_of(direction=DirectionSignal(p_hat_raw_bps=6_100, p_hat_bps=5_500)),
    signal_of(
        regime=RegimeSignal(
            regime_low_prob_bps=2_500,
            regime_mid_prob_bps=2_500,
            regime_high_prob_bps=5_000,
            predicted_regime=Regime.HIGH,
            regime_confidence_bps=5_000,
            spacing_multiplier_x1000=1_500,
        )
    ),
    signal_of(
        toxicity=ToxicitySignal(
            toxicity_low_prob_bps=8_000,
            toxicity_mid_prob_bps=1_500,
            toxicity_high_prob_bps=500,
            predicted_toxicity=Regime.LOW,
            next_regime=Regime.MID,
        )
    ),
    signal_of(fill=FillSignal(p_fill_bps=0)),
    signal_of(
        brackets=BracketsSignal(
            brackets=(
                BracketProbability(bracket_key="less_70", p_hat_bps=4_000, p_unified_bps=4_500),
                BracketProbability(bracket_key="greater_70", p_hat_bps=5_000, p_unified_bps=5_500),
            )
        )
    ),
)
STOOD_DOWN = RiskOverrides(
    max_weight_ppm=0,
    stand_down=StandDown(until_ts_ms=START_MS, reason="news", source=StandDownSource.OPS),
)
VALUES = (
    *SIGNALS,
    model_binding(),
    PROXY_BINDING,
    plan_of("plan"),
    row_of(exit_intent=emergency(), vol_hat_ppm=None, risk_overrides=STOOD_DOWN),
    record_of(),
)


def through_both(value: Any) -> None:
    """Send a value through the wire's bytes, then through JSON, and expect it back."""
    kind = type(value)
    data = to_wire(value).SerializeToString()
    arrived = from_wire(kind, message_class(kind.__name__).FromString(data))
    read = from_json(kind, parse_json("value", canonical_bytes("test.v1", to_json(arrived))))

    assert arrived == value
    assert read == value


@pytest.mark.proves("R1", "R17")
@given(snapshot=feature_snapshots())
def test_a_feature_snapshot_comes_back_equal(snapshot: FeatureSnapshot) -> None:
    through_both(snapshot)


@pytest.mark.proves("R10", "R17")
@given(snapshot=book_snapshots())
def test_a_book_snapshot_comes_back_equal(snapshot: L2FeatureSnapshot) -> None:
    through_both(snapshot)


@pytest.mark.proves("R20", "R212")
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_equal(value: Any) -> None:
    through_both(value)


@pytest.mark.parametrize(
    "value",
    [one for one in VALUES if hasattr(one, "SCHEMA")],
    ids=lambda value: type(value).__name__,
)
def test_a_value_has_one_canonical_text(value: Any) -> None:
    assert to_canonical(value) == canonical_bytes(value.SCHEMA, to_json(value))


@given(snapshot=feature_snapshots() | book_snapshots())
def test_a_snapshot_has_one_canonical_text(snapshot: FeatureSnapshot | L2FeatureSnapshot) -> None:
    assert to_canonical(snapshot) == canonical_bytes(snapshot.SCHEMA, to_json(snapshot))


@pytest.mark.parametrize("seed", range(20))
def test_a_record_has_one_canonical_text(seed: int) -> None:
    """Records with everything that a row, a plan or a ledger may add to the plainest."""
    chance = random.Random(seed)
    course = Course(chance, draw_plan(chance, "plan"))
    for _ in range(8):
        for written in course.bar():
            expected = canonical_bytes(DecisionRecord.SCHEMA, to_json(written.record))

            assert written.canonical == expected


@pytest.mark.proves("R17")
@given(value=PRICES, zeros=st.integers(min_value=0, max_value=6))
def test_equal_decimals_have_equal_text(value: Decimal, zeros: int) -> None:
    """1.0 and 1.00 are one price: they hash alike."""
    padded = value.quantize(Decimal(1).scaleb(-5 - zeros))
    first, second = (to_json(row_of(close=price)) for price in (value, padded))

    assert first == second


def test_absent_is_not_zero() -> None:
    """A missing ATR is null and comes back missing; an ATR of 0 is another snapshot."""
    warm = FeatureSnapshot(
        ts=START_MS,
        symbol="X",
        mid_price=None,
        spread_bps=None,
        imbalance_l1_bps=None,
        thin_l1=None,
        natr_bps=0,
        atr=None,
        sum_abs_returns_bps=0,
        net_return_bps=0,
        range_score=0,
        warmup_bars=3,
    )
    zero = structs.replace(warm, atr=Decimal(0))

    assert to_json(warm)["atr"] is None
    assert to_json(zero)["atr"] == "0"
    assert from_wire(FeatureSnapshot, to_wire(warm)).atr is None
    assert from_wire(FeatureSnapshot, to_wire(zero)).atr == 0


@pytest.mark.parametrize(
    ("kind", "value", "change", "field"),
    [
        pytest.param(DecisionRow, row_of(), {"bar_close": 1.5}, "bar_close", id="float"),
        pytest.param(DecisionRow, row_of(), {"bar_close": "1e3"}, "bar_close", id="exponent"),
        pytest.param(DecisionRow, row_of(), {"bar_close": "NaN"}, "bar_close", id="nan"),
        pytest.param(DecisionRow, row_of(), {"side": "buy"}, "side", id="unknown"),
        pytest.param(DecisionRow, row_of(), {"symbol": None}, "symbol", id="null"),
        pytest.param(DecisionRow, row_of(), {"vol_hat_ppm": True}, "vol_hat_ppm", id="boolean"),
        pytest.param(DecisionRow, row_of(), {"trigger_state": "maybe"}, "trigger_state", id="enum"),
        pytest.param(Plan, plan_of("plan"), {"symbols": "EURUSD"}, "symbols", id="list"),
        pytest.param(
            ModelBinding, model_binding(), {"training_window": 3}, "training_window", id="object"
        ),
    ],
)
def test_json_that_is_not_the_types_own_is_refused_by_name(
    kind: type, value: Any, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        from_json(kind, to_json(value) | change)

    assert refused.value.field == field


def test_a_missing_key_is_refused_by_name() -> None:
    fields = to_json(record_of())
    del fields["outcome"]["order_style"]  # type: ignore[union-attr, index, call-overload]

    with pytest.raises(InvalidField) as refused:
        from_json(DecisionRecord, fields)
    assert refused.value.field == "outcome.order_style"


def test_json_with_a_float_or_a_key_twice_is_refused() -> None:
    for text in (b'{"a":1.0}', b'{"a":NaN}', b'{"a":1,"a":2}', b"[1]", b"{", b"9" * 5_000):
        with pytest.raises(InvalidField):
            parse_json("text", text)


def test_an_enum_that_nobody_set_is_refused() -> None:
    message = to_wire(row_of())
    message.trigger_state = 0

    with pytest.raises(InvalidField, match="trigger_state: found '\\(unspecified\\)'"):
        from_wire(DecisionRow, message)
