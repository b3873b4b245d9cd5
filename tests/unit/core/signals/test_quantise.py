"""Basis points: they sum to exactly 10000, whatever the model said."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detent.contracts.reasons import Reason
from detent.core.signals.quantise import shares_bps


def softmax(logits: list[float]) -> list[float]:
    """Give a distribution."""
    largest = max(logits)
    weights = [math.exp(value - largest) for value in logits]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.proves("R21")
@given(logits=st.lists(st.floats(-700.0, 700.0), min_size=1, max_size=12))
@example(logits=[0.0, 0.0, 0.0])
@example(logits=[0.0] * 6)
@example(logits=[0.0, math.log(1e-9), math.log(1e-9)])
def test_shares_sum_to_ten_thousand_for_every_softmax(logits: list[float]) -> None:
    probabilities = softmax(logits)
    shares = shares_bps(probabilities)

    assert isinstance(shares, tuple)
    assert sum(shares) == 10_000
    assert len(shares) == len(probabilities)
    for share, probability in zip(shares, probabilities, strict=True):
        assert share >= 0
        assert abs(share - probability * 10_000) < 1.0 + 1e-6


@pytest.mark.proves("R21")
@given(logits=st.lists(st.floats(-5.0, 5.0), min_size=2, max_size=8))
def test_shares_keep_the_order_of_the_probabilities(logits: list[float]) -> None:
    probabilities = softmax(logits)
    shares = shares_bps(probabilities)

    assert isinstance(shares, tuple)
    for first in range(len(shares)):
        for second in range(len(shares)):
            if probabilities[first] > probabilities[second]:
                assert shares[first] >= shares[second]


@pytest.mark.proves("R21")
@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3], (3334, 3333, 3333)),
        ([1 / 6] * 6, (1667, 1667, 1667, 1667, 1666, 1666)),
        ([0.6987478001293037, 0.03374539254262003, 0.26750680732807625], (6988, 337, 2675)),
        ([0.1075556921886279, 0.45096771547420955, 0.4414765923371626], (1075, 4510, 4415)),
        ([1.0, 0.0, 0.0], (10_000, 0, 0)),
        ([1e-9, 1.0 - 2e-9, 1e-9], (0, 10_000, 0)),
        ([0.5, 0.5], (5000, 5000)),
        ([1.0], (10_000,)),
    ],
)
def test_shares_give_the_rest_to_the_largest_remainders(
    probabilities: list[float], expected: tuple[int, ...]
) -> None:
    """Ties go to the first class in declared order."""
    assert shares_bps(probabilities) == expected


@pytest.mark.parametrize(
    "probabilities",
    [
        [],
        [0.2, 0.2],
        [0.6, 0.6],
        [-0.1, 1.1],
        [math.nan, 1.0],
        [math.inf, 0.0],
        [0.0, 0.0],
        [1.0001, -0.0001],
    ],
)
def test_shares_of_what_is_no_distribution_are_a_reason(probabilities: list[float]) -> None:
    assert shares_bps(probabilities) is Reason.OUTPUT_INVALID


@given(probabilities=st.lists(st.floats(), max_size=5))
def test_shares_answer_integers_or_a_reason_for_every_input(probabilities: list[float]) -> None:
    shares = shares_bps(probabilities)

    if isinstance(shares, tuple):
        assert sum(shares) == 10_000
    else:
        assert shares is Reason.OUTPUT_INVALID
