"""Planted candidates under the judge: the bad go back in time, the good stay, and controls."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.rollout.candidates import BAD, Kind, bars_of, draw_run
from benchmarks.rollout.market import CHAMPION_BRIER, stretch_of
from benchmarks.rollout.planted import BARS, GOOD_SHARE_MAX, SYMBOLS, counted, judge_run, plant
from msgspec import structs

from detent.core.rollout.judge import JudgeRules
from detent.core.rollout.tripwires import TripwireLimits

GOOD = 200
# Limits that nothing breaks.
NO_TRIPWIRES = TripwireLimits(window_bars=10**6, bars_min=10**6, invalid_rows=10**6)
WITHOUT_TRIPWIRES = JudgeRules(limits=NO_TRIPWIRES)


@pytest.mark.long
@pytest.mark.proves("R118")
def test_every_bad_candidate_goes_back_in_time_and_few_good_ones_do() -> None:
    kinds = [BAD[place % len(BAD)] for place in range(50)] + [Kind.GOOD] * GOOD
    found = {one.kind: one for one in counted(plant(kinds))}

    for kind in BAD:
        assert found[kind].stopped == found[kind].runs == 10
        last_bar = found[kind].last_bar
        assert last_bar is not None
        assert last_bar <= BARS
    assert found[Kind.GOOD].stopped <= GOOD_SHARE_MAX * GOOD


@pytest.mark.proves("R118")
def test_one_of_each_bad_kind_goes_back_and_some_good_ones_do_not() -> None:
    bad, good = plant(BAD, bars=1_100), plant([Kind.GOOD] * 3, bars=700)

    assert all(one.bar is not None for one in bad)
    assert [one.bar for one in good] == [None] * 3


@pytest.mark.parametrize("kind", [Kind.SLOW, Kind.NAN])
def test_without_tripwires_the_slow_and_the_broken_stay(kind: Kind) -> None:
    """The control: no outcome tells of them."""
    (missed,) = plant([kind], bars=1_100, rules=WITHOUT_TRIPWIRES)
    (caught,) = plant([kind], bars=1_100)

    assert missed.bar is None
    assert caught.bar is not None


def test_without_outcomes_the_flipped_stays() -> None:
    """The control: the same bars, of which nobody learns how they turned out."""
    run = draw_run(Kind.SIGN_FLIPPED, SYMBOLS, 400, np.random.default_rng(6))
    bars = list(bars_of(run))
    unknown = [
        structs.replace(bar, rows=tuple(structs.replace(row, label=None) for row in bar.rows))
        for bar in bars
    ]

    assert judge_run(unknown, WITHOUT_TRIPWIRES) is None
    assert judge_run(bars, WITHOUT_TRIPWIRES) is not None


def test_the_planted_are_what_they_are_called() -> None:
    chance = np.random.default_rng(4)
    runs = {kind: draw_run(kind, 20, 4_000, chance) for kind in Kind}
    brier = {
        kind: [np.mean((p / 10_000 - run.up) ** 2) for p in (run.stable_bps, run.candidate_bps)]
        for kind, run in runs.items()
    }
    growth = {kind: worse / before - 1.0 for kind, (before, worse) in brier.items()}

    assert brier[Kind.WORSE][0] == pytest.approx(CHAMPION_BRIER, abs=0.002)
    assert abs(growth[Kind.GOOD]) < 0.005
    assert 0.02 < growth[Kind.SIGN_FLIPPED] < 0.07
    assert 0.04 < growth[Kind.WORSE] < 0.25
    assert growth[Kind.CHURNY] < 0.03
    assert stretch_of(0.05) > 3.0
    assert np.mean(runs[Kind.NAN].invalid) < 0.1
    assert np.quantile(runs[Kind.SLOW].candidate_us, 0.9) > 10_000
    assert np.quantile(runs[Kind.GOOD].candidate_us, 0.99) < 4_000
