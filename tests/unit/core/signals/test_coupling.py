"""Coupling: what sums to 1 stays, odds ratios stay, and the reference agrees."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.core.signals.test_quantise import softmax

from detent.contracts.reasons import Reason
from detent.core.signals.coupling import couple_odds_ratio

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "coupling.json"


def logit(p: float) -> float:
    """Give the logarithm of the odds."""
    return math.log(p) - math.log1p(-p)


def references() -> list[Any]:
    """Read the reference groups, or skip with a reason."""
    if not REFERENCE.exists():
        return []
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    return [fixture for fixture in fixtures if fixture["topic"] == "ovr_coupling"]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared references are not here")
@pytest.mark.parametrize("fixture", references(), ids=lambda fixture: fixture["id"])
def test_coupling_agrees_with_the_reference(fixture: Any) -> None:
    found = couple_odds_ratio(fixture["inputs"]["p"])

    assert found == pytest.approx(fixture["expected"]["odds_ratio"], abs=1e-9)
    # The control: the seed's own formula gives something else.
    assert found != pytest.approx(fixture["expected"]["softmax_logit_tau1.0"], abs=1e-3)


@given(logits=st.lists(st.floats(-12.0, 12.0), min_size=2, max_size=12))
@example(logits=[0.0] * 6)
def test_a_distribution_stays_as_it_is(logits: list[float]) -> None:
    shares = softmax(logits)
    found = couple_odds_ratio(shares)

    if max(shares) < 1 - 1e-6:
        assert found == pytest.approx(tuple(shares), abs=1e-12)


@given(p=st.lists(st.floats(1e-5, 1 - 1e-5), min_size=2, max_size=100))
def test_coupled_shares_sum_to_one_and_keep_odds_ratios(p: list[float]) -> None:
    found = couple_odds_ratio(p)

    assert isinstance(found, tuple)
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)
    assert min(found) >= 0.0
    for first, second in zip(range(len(p)), range(1, len(p)), strict=False):
        if min(found[first], found[second]) > 1e-9 and max(found) < 1 - 1e-9:
            before = logit(p[first]) - logit(p[second])
            assert logit(found[first]) - logit(found[second]) == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("p", [[1.0, 1.0, 0.0], [0.0, 0.0], [1.0 - 1e-9, 0.2, 1.0]])
def test_a_contradiction_is_a_reason_and_not_half_and_half(p: list[float]) -> None:
    assert couple_odds_ratio(p) is Reason.BRACKETS_CONTRADICT


def test_one_certain_outcome_takes_all() -> None:
    found = couple_odds_ratio([0.0, 1.0, 0.2, 0.3])

    assert isinstance(found, tuple)
    assert found[1] > 0.999
