"""Planted candidates: every bad one is refused, a good one lacks nothing but evidence."""

from __future__ import annotations

import pytest
from msgspec import structs
from tests.unit.core.evaluation.promotion_cases import blocking
from tests.unit.offline.planted_models import (
    BARS,
    FAULTS,
    HOUR_MS,
    THIN_BARS,
    chance_outcomes,
    good,
    measured,
)

from detent.core.evaluation.gates import Verdict, is_promotable
from detent.core.evaluation.profiles import SEED, STANDARD
from detent.core.evaluation.promotion import judge

COUNT = 50


def refused(fault: str, seed: int) -> None:
    plant, gate = FAULTS[fault]
    found = judge(STANDARD, measured(plant(good(seed))))

    assert not is_promotable(found)
    assert gate in blocking(found), blocking(found)


def accepted(seed: int) -> None:
    measures = measured(good(seed))

    assert blocking(judge(STANDARD, measures)) == {}
    assert blocking(judge(SEED, measures)) == {}


def only_unknown(seed: int) -> None:
    """Thin data refuse a good candidate, and nothing calls it bad."""
    thin = structs.replace(good(seed, bars=THIN_BARS), data_span_ms=THIN_BARS * HOUR_MS)
    found = judge(STANDARD, measured(thin))

    assert not is_promotable(found)
    assert {gate.verdict for gate in found} == {Verdict.PASSED, Verdict.INSUFFICIENT}


@pytest.mark.proves("R129")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_bad_model_is_refused_by_the_gate_for_it(fault: str) -> None:
    refused(fault, seed=1)


@pytest.mark.parametrize("seed", range(2))
def test_a_planted_good_model_passes(seed: int) -> None:
    accepted(seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_good_model_with_thin_data_lacks_only_evidence(seed: int) -> None:
    only_unknown(seed)


@pytest.mark.long
def test_fifty_bad_models_are_refused() -> None:
    faults = sorted(FAULTS)
    for number in range(COUNT):
        refused(faults[number % len(faults)], seed=100 + number)


@pytest.mark.long
def test_fifty_good_models_pass_and_lack_only_evidence_where_data_are_thin() -> None:
    for seed in range(100, 100 + COUNT):
        accepted(seed)
        only_unknown(seed)


@pytest.mark.long
def test_by_chance_a_good_model_is_refused_as_often_as_the_band_says() -> None:
    """Outcomes as they fall: a perfect model leaves its own null band once in twenty."""
    found = [
        blocking(judge(STANDARD, measured(good(seed, outcomes=chance_outcomes))))
        for seed in range(500, 560)
    ]

    assert {name for gates in found for name in gates} <= {"ece_null_band"}
    assert sum(bool(gates) for gates in found) <= 7


def test_the_planted_sample_is_large_enough_to_judge() -> None:
    measures = measured(good(3), resamples=20)

    assert measures.sample is not None
    assert measures.sample.row_count == BARS
    assert measures.sample.rarer_count > 1_000
