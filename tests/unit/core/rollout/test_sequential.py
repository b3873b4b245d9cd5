"""Sequential tests: reference values, validity at any time, and controls that are not valid."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.core.rollout.confidence_sequence import bernstein_bounds, hoeffding_bounds
from detent.core.rollout.sequential import (
    ALPHA,
    STAKES,
    BettingProcess,
    bernoulli_sprt,
    e_values,
    paired_loss,
    sprt_bounds,
)

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "drift_sequential.json"
PROBABILITY = st.floats(0.0, 1.0)


def fixture(name: str) -> Any:
    if not REFERENCE.exists():
        pytest.skip("the reference values lie beside the repository")
    found = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    return next(one for one in found if one["id"] == name)


def fair_losses(runs: int, bars: int, *, seed: int = 5) -> np.ndarray[Any, Any]:
    """Draw losses of a candidate that does exactly as well, of uneven size."""
    chance = np.random.default_rng(seed)
    up = chance.uniform(0.05, 0.95, (runs, bars))
    # A two-sided bet whose mean is 0: the win is the odds of the loss, scaled into the range.
    won = chance.random((runs, bars)) < up
    return np.where(won, 1.0 - up, -up)


def test_sprt_agrees_with_the_reference() -> None:
    given_ = fixture("sprt_bernoulli")
    inputs, expected = given_["inputs"], given_["expected"]
    errors = {"alpha": inputs["alpha"], "beta": inputs["beta"]}
    rates = (inputs["p0"], inputs["p1"])
    found = bernoulli_sprt(inputs["x"], rates=rates, **errors)
    ratios = [
        bernoulli_sprt(inputs["x"][:count], rates=rates, **errors).log_ratio
        for count in range(1, 51)
    ]

    assert sprt_bounds(**errors) == pytest.approx((expected["lower"], expected["upper"]), abs=1e-10)
    assert found.row_count == expected["stop_index"] + 1
    assert found.rejects_first is (expected["decision"] == "reject_H0")
    assert ratios == pytest.approx(expected["llr_first50"], abs=1e-10)


def test_sprt_stays_undecided_while_rows_do_not_suffice() -> None:
    assert bernoulli_sprt([True, False], rates=(0.25, 0.3)).rejects_first is None
    assert bernoulli_sprt([False] * 60, rates=(0.25, 0.3)).rejects_first is False


def test_confidence_sequences_agree_with_the_reference() -> None:
    given_ = fixture("confseq_bounded_mean")
    values, expected = given_["inputs"]["x"], given_["expected"]
    bernstein = bernstein_bounds(values, alpha=given_["inputs"]["alpha"])
    hoeffding = hoeffding_bounds(values, alpha=given_["inputs"]["alpha"])

    assert bernstein.low == pytest.approx(expected["eb_lower"], abs=given_["tol"])
    assert bernstein.high == pytest.approx(expected["eb_upper"], abs=given_["tol"])
    assert hoeffding.low == pytest.approx(expected["hoeffding_lower"], abs=given_["tol"])
    assert hoeffding.high == pytest.approx(expected["hoeffding_upper"], abs=given_["tol"])


def test_bounds_miss_the_mean_seldom_at_any_row() -> None:
    chance = np.random.default_rng(3)
    runs = [chance.beta(2.0, 6.0, 400).tolist() for _ in range(200)]
    missed = sum(
        any(not low <= 0.25 <= high for low, high in zip(found.low, found.high, strict=True))
        for found in (bernstein_bounds(run, alpha=ALPHA) for run in runs)
    )

    assert missed <= 200 * ALPHA


@pytest.mark.parametrize("values", [[], [0.5, 1.1], [float("nan")]])
def test_bounds_refuse_what_has_no_such_mean(values: list[float]) -> None:
    for bounds in (bernstein_bounds, hoeffding_bounds):
        with pytest.raises(InvalidField):
            bounds(values, alpha=ALPHA)


@given(
    rows=st.lists(st.tuples(PROBABILITY, PROBABILITY, st.booleans()), min_size=1, max_size=20),
)
def test_a_paired_loss_stays_in_its_range_and_turns_with_the_models(
    rows: list[tuple[float, float, bool]],
) -> None:
    candidate, champion = (np.array([row[place] for row in rows]) for place in (0, 1))
    labels = np.array([row[2] for row in rows])
    loss = paired_loss(candidate, champion, labels)

    assert -1.0 <= loss <= 1.0
    assert paired_loss(champion, candidate, labels) == pytest.approx(-loss, abs=1e-12)
    assert paired_loss(candidate, candidate, labels) == 0.0


def test_a_paired_loss_is_the_difference_in_brier_score_over_its_range() -> None:
    """(.9 - 1)^2 - (.6 - 1)^2 = -.15; at most |.9^2 - .6^2| = .45 could have been lost."""
    loss = paired_loss(np.array([0.9]), np.array([0.6]), np.array([True]))

    assert loss == pytest.approx(-0.15 / 0.45, abs=1e-12)


@pytest.mark.parametrize(
    ("candidate", "champion"), [([], []), ([0.5], [0.5, 0.5]), ([1.2], [0.5]), ([math.nan], [0.5])]
)
def test_a_loss_of_no_probabilities_is_refused(
    candidate: list[float], champion: list[float]
) -> None:
    labels = np.zeros(len(candidate), dtype=np.bool_)
    with pytest.raises(InvalidField):
        paired_loss(np.array(candidate), np.array(champion), labels)


@pytest.mark.parametrize("horizon_bars", [1, 3])
def test_columns_give_what_one_process_gives(horizon_bars: int) -> None:
    losses = fair_losses(1, 60)
    process = BettingProcess.start(horizon_bars=horizon_bars)
    found = []
    for loss in losses[0]:
        process = process.after(float(loss))
        found.append(process.e_value)

    assert found == pytest.approx(e_values(losses, horizon_bars=horizon_bars)[0], rel=1e-10)
    assert process.does_worse() is (found[-1] >= 20.0)


def test_evidence_is_the_mean_over_the_stakes() -> None:
    process = BettingProcess.start().after(0.5).after(-0.25)
    by_hand = np.mean((1.0 + 0.5 * STAKES) * (1.0 - 0.25 * STAKES))

    assert process.e_value == pytest.approx(by_hand, rel=1e-12)


def test_a_fair_candidate_is_seldom_stopped_however_often_one_looks() -> None:
    losses = fair_losses(400, 1_000)
    stopped = np.mean(np.max(e_values(losses), axis=1) >= 1.0 / ALPHA)
    # The control: the usual test at 5%, looked at every 24 bars, stops many of the same runs.
    places = np.arange(24, 1_000, 24)
    means = np.cumsum(losses, axis=1)[:, places] / places
    squares = np.cumsum(losses**2, axis=1)[:, places] / places
    z = means / np.sqrt((squares - means**2) / places)
    peeked = np.mean(np.max(z, axis=1) > 1.645)

    assert stopped <= ALPHA
    assert peeked > 0.2


def test_a_worse_candidate_is_stopped() -> None:
    losses = np.clip(fair_losses(100, 1_000) + 0.12, -1.0, 1.0)

    assert np.mean(np.max(e_values(losses), axis=1) >= 1.0 / ALPHA) > 0.9


def test_overlapping_outcomes_do_not_stop_a_fair_candidate() -> None:
    """With a horizon of 8 the loss of a bar repeats in its neighbours; one process alone fails."""
    shared = fair_losses(300, 100, seed=9)
    losses = np.repeat(shared, 8, axis=1)
    alone = np.mean(np.max(e_values(losses), axis=1) >= 1.0 / ALPHA)
    interleaved = np.mean(np.max(e_values(losses, horizon_bars=8), axis=1) >= 1.0 / ALPHA)

    assert interleaved <= ALPHA
    assert alone > 2 * ALPHA


def test_evidence_does_not_overflow() -> None:
    process = BettingProcess.start()
    for _ in range(2_000):
        process = process.after(1.0)

    assert math.isfinite(process.e_value)
    assert process.does_worse()


@pytest.mark.parametrize("loss", [1.5, -1.5, math.nan])
def test_a_loss_out_of_range_is_refused(loss: float) -> None:
    with pytest.raises(InvalidField):
        BettingProcess.start().after(loss)
