"""Holds the signal to seed 003's contract: its flat JSON form and every invariant of it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    BracketProbability,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    MlSignalSnapshot,
    Regime,
    RegimeSignal,
    ToxicitySignal,
    by_head,
    most_probable,
)
from detent.core.signals.quantise import shares_bps

GOLDEN = Path(__file__).parents[1] / "data" / "ml_signal_snapshot.json"


@pytest.fixture(name="signal")
def _signal() -> MlSignalSnapshot:
    return from_json(MlSignalSnapshot, json.loads(GOLDEN.read_text()))


def regime_of(signal: MlSignalSnapshot) -> RegimeSignal:
    assert signal.regime is not None
    return signal.regime


@pytest.mark.proves("R20", "R30", "R29")
def test_the_json_form_is_the_documented_one_field_for_field(signal: MlSignalSnapshot) -> None:
    documented = json.loads(GOLDEN.read_text())

    assert to_json(signal) == documented
    assert list(documented) == [
        "ts",
        "symbol",
        "model_version",
        "model_hash",
        "regime_low_prob_bps",
        "regime_mid_prob_bps",
        "regime_high_prob_bps",
        "predicted_regime",
        "regime_confidence_bps",
        "spacing_multiplier_x1000",
        "top_features",
        "top_feature_weights_x1000",
        "inference_latency_us",
        "features_hash",
    ]


@pytest.mark.proves("R21", "R22", "R23", "R24", "R29")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"regime_low_prob_bps": 2_001}, "regime_prob_bps"),
        ({"regime_low_prob_bps": -1, "regime_mid_prob_bps": 7_001}, "regime_low_prob_bps"),
        ({"regime_low_prob_bps": 10_001}, "regime_low_prob_bps"),
        ({"predicted_regime": Regime.LOW}, "predicted_regime"),
        ({"regime_confidence_bps": 4_999}, "regime_confidence_bps"),
        ({"spacing_multiplier_x1000": 499}, "spacing_multiplier_x1000"),
        ({"spacing_multiplier_x1000": 2_001}, "spacing_multiplier_x1000"),
    ],
)
def test_a_regime_that_breaks_its_contract_is_refused(
    signal: MlSignalSnapshot, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(regime_of(signal), **change)

    assert refused.value.field == field


@pytest.mark.proves("R24")
@pytest.mark.parametrize("spacing_x1000", [500, 1_000, 2_000])
def test_spacing_at_its_bounds_is_accepted(signal: MlSignalSnapshot, spacing_x1000: int) -> None:
    structs.replace(regime_of(signal), spacing_multiplier_x1000=spacing_x1000)


@pytest.mark.proves("R18", "R26", "R27", "R29")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ts": 1_700_000_000}, "ts"),
        ({"ts": -1}, "ts"),
        ({"symbol": ""}, "symbol"),
        ({"model_version": "1.0.0"}, "model_version"),
        ({"model_version": "v1.0"}, "model_version"),
        ({"model_hash": "A1B2C3D4E5F67890"}, "model_hash"),
        ({"features_hash": "f0e1"}, "features_hash"),
        ({"inference_latency_us": -1}, "inference_latency_us"),
        ({"top_features": ("a", "a", "b")}, "top_features"),
        ({"top_features": ("a", "b")}, "top_features"),
        ({"top_feature_weights_x1000": (100, 200, 50)}, "top_feature_weights_x1000"),
        ({"regime": None}, "answer"),
    ],
)
def test_a_signal_that_breaks_its_contract_is_refused(
    signal: MlSignalSnapshot, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(signal, **change)

    assert refused.value.field == field


@pytest.mark.proves("R29")
@pytest.mark.parametrize("key", sorted(json.loads(GOLDEN.read_text())))
def test_a_field_that_lacks_is_refused_by_name(key: str) -> None:
    fields = json.loads(GOLDEN.read_text())
    del fields[key]

    with pytest.raises(InvalidField) as refused:
        from_json(MlSignalSnapshot, fields)
    assert refused.value.field == key


@pytest.mark.proves("R29", "R45")
def test_a_field_that_nobody_knows_is_refused_by_name() -> None:
    fields = json.loads(GOLDEN.read_text()) | {"side": "BUY"}

    with pytest.raises(InvalidField) as refused:
        from_json(MlSignalSnapshot, fields)
    assert refused.value.field == "side"


@pytest.mark.proves("R21", "R22")
@given(shares=st.lists(st.floats(min_value=1e-9, max_value=1.0), min_size=3, max_size=3))
def test_quantised_shares_always_make_a_valid_regime(shares: list[float]) -> None:
    total = math.fsum(shares)
    quantised = shares_bps([share / total for share in shares])
    assert not isinstance(quantised, Reason)
    low, mid, high = quantised
    regime = most_probable(low, mid, high)

    RegimeSignal(
        regime_low_prob_bps=low,
        regime_mid_prob_bps=mid,
        regime_high_prob_bps=high,
        predicted_regime=regime,
        regime_confidence_bps=max(low, mid, high),
        spacing_multiplier_x1000=1_000,
    )


@pytest.mark.proves("R22")
def test_the_first_class_in_declared_order_wins_a_tie() -> None:
    assert most_probable(5_000, 5_000, 0) is Regime.LOW
    assert most_probable(0, 5_000, 5_000) is Regime.MID


def test_a_bracket_group_is_coupled_whole_or_not_at_all() -> None:
    def group(*unified: int | None) -> BracketsSignal:
        return BracketsSignal(
            brackets=tuple(
                BracketProbability(bracket_key=f"b{n}", p_hat_bps=5_000, p_unified_bps=share)
                for n, share in enumerate(unified)
            )
        )

    group(4_000, 6_000)
    group(None, None)
    for unified in ((4_000, None), (4_000, 6_001), (10_001, 0)):
        with pytest.raises(InvalidField):
            group(*unified)


COMMON = {
    "ts": 1_700_002_800_000,
    "symbol": "BTCUSDT",
    "model_version": "v2.1.0",
    "model_hash": "0123456789abcdef",
    "top_features": [],
    "top_feature_weights_x1000": [],
    "inference_latency_us": 730,
    "features_hash": "fedcba9876543210",
}
# The documented form of each head but the regime's, whose form is the seed's own.
DOCUMENTED: list[tuple[HeadSignal, dict[str, Any]]] = [
    (
        DirectionSignal(p_hat_raw_bps=6_100, p_hat_bps=5_500),
        {"p_hat_raw_bps": 6_100, "p_hat_bps": 5_500},
    ),
    (
        ToxicitySignal(
            toxicity_low_prob_bps=7_000,
            toxicity_mid_prob_bps=2_000,
            toxicity_high_prob_bps=1_000,
            predicted_toxicity=Regime.LOW,
            next_regime=Regime.HIGH,
        ),
        {
            "toxicity_low_prob_bps": 7_000,
            "toxicity_mid_prob_bps": 2_000,
            "toxicity_high_prob_bps": 1_000,
            "predicted_toxicity": "LOW",
            "next_regime": "HIGH",
        },
    ),
    (FillSignal(p_fill_bps=6_500), {"p_fill_bps": 6_500}),
    (
        BracketsSignal(
            brackets=(
                BracketProbability(bracket_key="less_70", p_hat_bps=4_000, p_unified_bps=4_500),
                BracketProbability(bracket_key="greater_70", p_hat_bps=5_000, p_unified_bps=5_500),
            )
        ),
        {
            "brackets": [
                {"bracket_key": "less_70", "p_hat_bps": 4_000, "p_unified_bps": 4_500},
                {"bracket_key": "greater_70", "p_hat_bps": 5_000, "p_unified_bps": 5_500},
            ],
            "coupling_refusal": None,
        },
    ),
    (
        BracketsSignal(
            brackets=(
                BracketProbability(bracket_key="less_70", p_hat_bps=4_000, p_unified_bps=None),
            ),
            coupling_refusal=Reason.BRACKETS_INCOMPLETE,
        ),
        {
            "brackets": [{"bracket_key": "less_70", "p_hat_bps": 4_000, "p_unified_bps": None}],
            "coupling_refusal": "BRACKETS_INCOMPLETE",
        },
    ),
]


@pytest.mark.proves("R20", "R30")
@pytest.mark.parametrize(("answer", "own"), DOCUMENTED)
def test_each_head_lies_flat_beside_the_common_fields(
    answer: HeadSignal, own: dict[str, Any]
) -> None:
    signal = MlSignalSnapshot(
        **COMMON | {"top_features": (), "top_feature_weights_x1000": ()} | by_head(answer)
    )

    assert to_json(signal) == COMMON | own
    assert from_json(MlSignalSnapshot, COMMON | own) == signal
    assert signal.answer == answer


def test_a_coupled_group_gives_no_reason_against_it_and_is_more_than_one() -> None:
    whole = BracketProbability(bracket_key="less_70", p_hat_bps=4_000, p_unified_bps=10_000)
    other = structs.replace(whole, bracket_key="greater_70", p_unified_bps=0)

    assert BracketsSignal(brackets=(whole, other)).coupling_refusal is None
    with pytest.raises(InvalidField, match="p_unified_bps"):
        BracketsSignal(brackets=(whole,))
    with pytest.raises(InvalidField, match="coupling_refusal"):
        BracketsSignal(brackets=(whole, other), coupling_refusal=Reason.BRACKETS_INCOMPLETE)
