"""The heads: integers that sum, a reason for whatever is no answer, and no side anywhere."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.core.signals.test_quantise import softmax
from tests.unit.head_artifacts import KEYS, calibration_of, manifest_of_head

from detent.contracts.binding import Head
from detent.contracts.calibration import (
    BracketPlatt,
    BracketsSpec,
    CalibrationMethod,
    CalibrationSpec,
    TemperatureSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    Regime,
    RegimeSignal,
    ToxicitySignal,
    by_head,
)
from detent.core.signals.heads import HeadMap, head_map

THREE = st.lists(st.floats(-700.0, 700.0), min_size=3, max_size=3)
EVEN = [1 / 3, 1 / 3, 1 / 3]


def map_of(head: Head) -> HeadMap:
    """Give the map of a head under its usual calibration."""
    return head_map(manifest_of_head(head), calibration_of(head))


def regime(probabilities: list[float], *further: float) -> RegimeSignal | Reason:
    """Ask the regime head."""
    outputs = [probabilities, list(further)] if further else [probabilities]
    answer = map_of(Head.REGIME).answer(outputs)
    assert isinstance(answer, RegimeSignal | Reason)
    return answer


@pytest.mark.proves("R21", "R22", "R23")
@given(logits=THREE)
@example(logits=[0.0, 0.0, 0.0])
@example(logits=[0.0, 0.0, -1.0])
@example(logits=[-1.0, 0.0, 0.0])
@example(logits=[0.0, math.log(1e-9), math.log(1e-9)])
def test_any_softmax_makes_a_regime_that_sums_and_names_its_largest(logits: list[float]) -> None:
    answer = regime(softmax(logits), 1.0)

    assert isinstance(answer, RegimeSignal)
    shares = (
        answer.regime_low_prob_bps,
        answer.regime_mid_prob_bps,
        answer.regime_high_prob_bps,
    )
    assert sum(shares) == 10_000
    assert min(shares) >= 0
    assert answer.regime_confidence_bps == max(shares)
    assert list(Regime).index(answer.predicted_regime) == shares.index(max(shares))


@pytest.mark.proves("R21", "R22")
@given(logits=THREE, following=THREE)
def test_any_two_softmaxes_make_a_toxicity(logits: list[float], following: list[float]) -> None:
    answer = map_of(Head.TOXICITY).answer([softmax(logits), softmax(following)])

    assert isinstance(answer, ToxicitySignal)
    shares = (
        answer.toxicity_low_prob_bps,
        answer.toxicity_mid_prob_bps,
        answer.toxicity_high_prob_bps,
    )
    assert sum(shares) == 10_000
    assert min(shares) >= 0
    assert list(Regime).index(answer.predicted_toxicity) == shares.index(max(shares))


@pytest.mark.proves("R21", "R22")
@pytest.mark.parametrize(
    ("probabilities", "shares", "predicted"),
    [
        (EVEN, (3_334, 3_333, 3_333), Regime.LOW),
        ([0.4, 0.4, 0.2], None, Regime.LOW),
        ([0.2, 0.4, 0.4], None, Regime.MID),
        ([1.0, 0.0, 0.0], (10_000, 0, 0), Regime.LOW),
        ([0.0, 0.0, 1.0], (0, 0, 10_000), Regime.HIGH),
    ],
)
def test_a_tie_goes_to_the_first_class(
    probabilities: list[float], shares: tuple[int, int, int] | None, predicted: Regime
) -> None:
    answer = regime(probabilities, 1.0)

    assert isinstance(answer, RegimeSignal)
    assert answer.predicted_regime is predicted
    found = (answer.regime_low_prob_bps, answer.regime_mid_prob_bps, answer.regime_high_prob_bps)
    assert shares is None or found == shares


@pytest.mark.proves("R24", "R33", "R148")
@pytest.mark.parametrize(
    ("multiplier", "expected"),
    [
        (0.5, 500),
        (1.25, 1_250),
        (2.0, 2_000),
        (0.499, Reason.OUTPUT_INVALID),
        (2.001, Reason.OUTPUT_INVALID),
        (3.0, Reason.OUTPUT_INVALID),
        (0.0, Reason.OUTPUT_INVALID),
        (-1.0, Reason.OUTPUT_INVALID),
        (math.nan, Reason.OUTPUT_INVALID),
        (math.inf, Reason.OUTPUT_INVALID),
        (None, 1_000),
        # Exactly between two integers: to the even one.
        (0.5625, 562),
        (0.6875, 688),
        (1.0625, 1_062),
    ],
)
def test_spacing_is_refused_out_of_range_and_never_clamped(
    multiplier: float | None, expected: int | Reason
) -> None:
    answer = regime(EVEN) if multiplier is None else regime(EVEN, multiplier)

    found = answer.spacing_multiplier_x1000 if isinstance(answer, RegimeSignal) else answer
    assert found == expected


@pytest.mark.proves("R21")
@pytest.mark.parametrize("head", [Head.DIRECTION, Head.FILL, Head.REGIME, Head.TOXICITY])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(math.nan, id="nan"),
        pytest.param(math.inf, id="infinite"),
        pytest.param(-math.inf, id="minus-infinite"),
        pytest.param(-1e-9, id="negative"),
        pytest.param(1.5, id="above-one"),
        pytest.param(0.9, id="sum"),
    ],
)
def test_what_is_no_distribution_is_a_reason(head: Head, spoil: float) -> None:
    classes = len(manifest_of_head(head).output_classes)
    sound = [1.0 / classes] * classes
    further = {Head.REGIME: [[1.0]], Head.TOXICITY: [EVEN]}.get(head, [])

    assert not isinstance(map_of(head).answer([sound, *further]), Reason)
    for place in range(classes):
        spoilt = [spoil if index == place else share for index, share in enumerate(sound)]
        assert map_of(head).answer([spoilt, *further]) is Reason.OUTPUT_INVALID


@pytest.mark.parametrize("following", [[math.nan] * 3, [0.5, 0.5, 0.5], [1.0, 0.1, -0.1]])
def test_a_next_regime_that_is_no_distribution_is_a_reason(following: list[float]) -> None:
    assert map_of(Head.TOXICITY).answer([EVEN, following]) is Reason.OUTPUT_INVALID


def test_the_next_regime_is_the_most_probable_one_and_not_todays() -> None:
    answer = map_of(Head.TOXICITY).answer([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])

    assert isinstance(answer, ToxicitySignal)
    assert answer.predicted_toxicity is Regime.LOW
    assert answer.next_regime is Regime.HIGH


@given(p=st.floats(0.0, 1.0))
def test_fill_answers_a_probability_and_rises_with_the_models(p: float) -> None:
    lower, higher = (map_of(Head.FILL).answer([[1.0 - value, value]]) for value in (p / 2, p))

    assert isinstance(lower, FillSignal)
    assert isinstance(higher, FillSignal)
    assert 0 <= lower.p_fill_bps <= higher.p_fill_bps <= 10_000


@given(raw=st.lists(st.floats(0.0, 0.999), min_size=4, max_size=4))
@example(raw=[0.25, 0.25, 0.25, 0.25])
@example(raw=[1e-9, 1e-9, 1e-9, 1e-9])
def test_a_whole_group_is_coupled_to_ten_thousand(raw: list[float]) -> None:
    answer = map_of(Head.BRACKETS).answer([raw])

    assert isinstance(answer, BracketsSignal)
    unified = [bracket.p_unified_bps for bracket in answer.brackets]
    assert [bracket.bracket_key for bracket in answer.brackets] == list(KEYS)
    if answer.coupling_refusal is None:
        assert sum(share for share in unified if share is not None) == 10_000
        assert all(share is not None and share >= 0 for share in unified)
    else:
        assert answer.coupling_refusal is Reason.BRACKETS_CONTRADICT
        assert max(raw) < 1e-5


@pytest.mark.parametrize("missing", [(0,), (3,), (1, 2), (0, 1, 2)])
def test_a_group_that_lacks_an_outcome_is_never_coupled(missing: tuple[int, ...]) -> None:
    raw = [math.nan if index in missing else 0.3 for index in range(len(KEYS))]
    answer = map_of(Head.BRACKETS).answer([raw])

    assert isinstance(answer, BracketsSignal)
    assert answer.coupling_refusal is Reason.BRACKETS_INCOMPLETE
    assert [bracket.p_unified_bps for bracket in answer.brackets] == [None] * (4 - len(missing))
    there = [key for index, key in enumerate(KEYS) if index not in missing]
    assert [bracket.bracket_key for bracket in answer.brackets] == there


@pytest.mark.parametrize(
    "raw", [[math.nan] * 4, [0.1, 0.2, math.inf, 0.3], [0.1, 0.2, 1.1, 0.3], [0.1, -0.1, 0.2, 0.3]]
)
def test_brackets_of_no_probability_are_a_reason(raw: list[float]) -> None:
    assert map_of(Head.BRACKETS).answer([raw]) is Reason.OUTPUT_INVALID


@pytest.mark.parametrize("raw", [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
def test_outcomes_that_contradict_one_another_are_not_coupled(raw: list[float]) -> None:
    # A slope of one, so that what the model is certain of stays certain.
    spec = BracketsSpec(
        brackets=tuple(BracketPlatt(bracket_key=key, a=Decimal(-1), b=Decimal(0)) for key in KEYS),
        temperature=Decimal(1),
    )
    answer = head_map(manifest_of_head(Head.BRACKETS), spec).answer([raw])

    assert isinstance(answer, BracketsSignal)
    assert answer.coupling_refusal is Reason.BRACKETS_CONTRADICT
    assert {bracket.p_unified_bps for bracket in answer.brackets} == {None}


@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("other", Head)
def test_a_calibration_of_another_head_is_refused(head: Head, other: Head) -> None:
    # A temperature of several classes is one of two as well.
    two = {Head.DIRECTION, Head.FILL}
    fits = calibration_of(head).method is calibration_of(other).method or (
        head in two and other in {Head.REGIME, Head.TOXICITY}
    )
    if fits:
        assert head_map(manifest_of_head(head), calibration_of(other)) is not None
        return
    with pytest.raises(ArtifactInvalid) as caught:
        head_map(manifest_of_head(head), calibration_of(other))

    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


@pytest.mark.parametrize("head", Head)
def test_the_identity_serves_no_head(head: Head) -> None:
    identity = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)

    with pytest.raises(ArtifactInvalid) as caught:
        head_map(manifest_of_head(head), identity)

    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING


def test_brackets_calibrated_in_another_order_are_refused() -> None:
    spec = calibration_of(Head.BRACKETS)
    assert isinstance(spec, BracketsSpec)
    turned = BracketsSpec(brackets=spec.brackets[::-1], temperature=spec.temperature)

    with pytest.raises(ArtifactInvalid, match="brackets"):
        head_map(manifest_of_head(Head.BRACKETS), turned)


def test_a_temperature_of_one_leaves_a_distribution_as_it_is() -> None:
    head = head_map(manifest_of_head(Head.REGIME), TemperatureSpec(temperature=Decimal(1)))
    answer = head.answer([[0.2, 0.5, 0.3]])

    assert isinstance(answer, RegimeSignal)
    assert list(by_head(answer)) == ["regime"]
    found = (answer.regime_low_prob_bps, answer.regime_mid_prob_bps, answer.regime_high_prob_bps)
    assert found == (2_000, 5_000, 3_000)


@pytest.mark.proves("R33")
@pytest.mark.parametrize(
    ("p_up", "expected_bps"),
    [
        # A float whose ten-thousandfold is exactly a half goes to the even neighbour.
        (2.0**-5, 312),
        (3 * 2.0**-5, 938),
        (5 * 2.0**-5, 1_562),
        (0.5, 5_000),
        (0.0, 0),
        (1.0, 10_000),
    ],
)
def test_exact_halves_are_rounded_to_even(p_up: float, expected_bps: int) -> None:
    assert (p_up * 10_000) % 1 in {0.0, 0.5}

    answer = map_of(Head.DIRECTION).answer([[1.0 - p_up, p_up]])

    assert isinstance(answer, DirectionSignal)
    assert answer.p_hat_raw_bps == expected_bps


@pytest.mark.proves("R33")
def test_a_share_that_is_exactly_a_half_is_rounded_by_its_remainder() -> None:
    answer = regime([2.0**-5, 2.0**-5, 1.0 - 2.0**-4])

    assert isinstance(answer, RegimeSignal)
    shares = (answer.regime_low_prob_bps, answer.regime_mid_prob_bps, answer.regime_high_prob_bps)
    assert sum(shares) == 10_000
    assert shares[0] - shares[1] in {0, 1}
