"""The choice of a calibration: on rows held out, recorded, and the identity only by winning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec import structs

from detent.contracts.calibration import (
    CalibrationMethod,
    CalibrationSpec,
    HeldOutChoice,
    MethodScore,
    calibration_bytes,
    parse_calibration,
)
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration import Calibrator, Labels
from detent.core.signals.calibration_choice import choose_calibration
from detent.core.signals.forward_folds import forward_folds

IDENTITY = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)


def rows(count: int, *, stretch: float = 1.0, shift: float = 0.0, seed: int = 0) -> Any:
    """Draw what a model says that stretches the logits of the truth and shifts them."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(0.0, 0.8, count)
    labels = chance.random(count) < 1.0 / (1.0 + np.exp(-truth))
    said: Floats = 1.0 / (1.0 + np.exp(-(stretch * truth + shift)))
    return said, labels


def score(method: CalibrationMethod, log_loss_ppm: int) -> MethodScore:
    return MethodScore(method=method, log_loss_ppm=log_loss_ppm, brier_ppm=1)


def test_a_calibrated_model_keeps_what_it_says_and_may_serve_it() -> None:
    said, labels = rows(3_000)
    found = choose_calibration(said, labels)

    assert found.spec.method is CalibrationMethod.IDENTITY
    assert Calibrator.of(found.spec).probability(0.3) == 0.3
    assert found.spec.choice is not None
    assert found.spec.choice.row_count == 2_500
    assert found.scores == found.spec.choice.tried


@pytest.mark.parametrize(
    ("stretch", "shift", "method"),
    [(3.0, 0.0, CalibrationMethod.TEMPERATURE), (1.0, 1.0, CalibrationMethod.PLATT)],
)
def test_a_model_that_is_off_gets_the_map_that_mends_it(
    stretch: float, shift: float, method: CalibrationMethod
) -> None:
    simple = (CalibrationMethod.IDENTITY, CalibrationMethod.TEMPERATURE, CalibrationMethod.PLATT)
    found = choose_calibration(*rows(3_000, stretch=stretch, shift=shift), methods=simple)

    assert found.spec.method is method


def test_a_choice_is_the_same_again_and_comes_back_from_its_text() -> None:
    said, labels = rows(900, stretch=2.0)
    spec = choose_calibration(said, labels).spec

    assert choose_calibration(said.copy(), labels.copy()).spec == spec
    assert parse_calibration(calibration_bytes(spec)) == spec


def test_every_scored_row_is_later_than_what_it_is_scored_by() -> None:
    folds = forward_folds(103, fold_count=5, purge_rows=4)

    assert [block.start for _, block in folds] == [end + 4 for end, _ in folds]
    assert [row for _, block in folds for row in range(block.start, block.stop)] == list(
        range(folds[0][1].start, 103)
    )


def test_the_scores_are_of_rows_held_out() -> None:
    """The control: what is fitted on the scored rows themselves scores better."""
    said, labels = rows(60, stretch=2.0, seed=3)
    held_out = choose_calibration(said, labels, methods=(CalibrationMethod.PLATT,)).scores[0]
    q = Calibrator.of(choose_calibration(said, labels).spec).map.many(said)
    seen = -np.mean(np.where(labels, np.log(q), np.log1p(-q)))

    assert held_out.log_loss_ppm > seen * 1e6


@pytest.mark.parametrize(
    "given",
    [
        pytest.param((np.array([]), np.array([], bool)), id="no rows"),
        pytest.param((np.linspace(0.1, 0.9, 4), np.arange(4) % 3 > 0), id="few rows"),
        pytest.param((np.linspace(0.1, 0.9, 60), np.arange(60) < 30), id="inverted"),
    ],
)
def test_rows_that_cannot_choose_are_refused(given: tuple[Floats, Labels]) -> None:
    with pytest.raises(ArtifactInvalid):
        choose_calibration(*given)


def test_the_identity_alone_is_no_choice() -> None:
    with pytest.raises(ArtifactInvalid, match="the identity alone"):
        choose_calibration(*rows(300), methods=(CalibrationMethod.IDENTITY,))


def test_of_two_that_score_alike_the_first_is_chosen() -> None:
    tried = (score(CalibrationMethod.IDENTITY, 7), score(CalibrationMethod.PLATT, 7))

    assert HeldOutChoice(fold_count=1, row_count=9, tried=tried).chosen is tried[0].method
    better = (tried[0], score(CalibrationMethod.PLATT, 6))
    assert HeldOutChoice(fold_count=1, row_count=9, tried=better).chosen is tried[1].method


def test_a_calibration_that_lost_its_choice_cannot_be_written() -> None:
    tried = (score(CalibrationMethod.IDENTITY, 8), score(CalibrationMethod.PLATT, 7))
    with pytest.raises(InvalidField) as caught:
        structs.replace(IDENTITY, choice=HeldOutChoice(fold_count=1, row_count=9, tried=tried))

    assert caught.value.field == "choice"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tried": ()}, "tried"),
        ({"fold_count": 0}, "fold_count"),
        ({"row_count": 4}, "row_count"),
        (
            {"tried": (score(CalibrationMethod.PLATT, 1), score(CalibrationMethod.PLATT, 2))},
            "tried",
        ),
        (
            {"tried": (score(CalibrationMethod.PLATT, 1), score(CalibrationMethod.IDENTITY, 2))},
            "tried",
        ),
    ],
)
def test_evidence_that_is_none_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    sound: dict[str, Any] = {
        "fold_count": 5,
        "row_count": 50,
        "tried": (score(CalibrationMethod.IDENTITY, 7), score(CalibrationMethod.PLATT, 7)),
    }
    assert HeldOutChoice(**sound).chosen is CalibrationMethod.IDENTITY
    with pytest.raises(InvalidField) as caught:
        HeldOutChoice(**{**sound, **changes})

    assert caught.value.field == field
