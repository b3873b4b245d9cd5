"""Columns of answers: the integers of the map of one row, whatever the values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.signals import DirectionSignal
from detent.core.signals import columns
from detent.core.signals.binary_maps import LogisticMap
from detent.core.signals.calibration import Calibrator
from detent.core.signals.heads import DirectionHead

PROBABILITIES = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=200)
PARAMETERS = st.floats(-20.0, -1e-3), st.floats(-20.0, 20.0)


@given(PROBABILITIES, *PARAMETERS)
def test_columns_are_what_row_by_row_gives(values: list[float], a: float, b: float) -> None:
    calibrator = Calibrator(map=LogisticMap(a=a, b=b))
    p_hat_raw = np.array(values, dtype=np.float32)

    raw = columns.raw_bps(p_hat_raw).tolist()
    calibrated = columns.calibrated_bps(calibrator, p_hat_raw).tolist()

    for place, value in enumerate(p_hat_raw.tolist()):
        expected = calibrator.direction(value)
        assert isinstance(expected, DirectionSignal)
        assert (raw[place], calibrated[place]) == (expected.p_hat_raw_bps, expected.p_hat_bps)


def test_neighbours_of_a_middle_are_decided_row_by_row() -> None:
    """Where an array cannot know, it asks: values that lie on a middle as nearly as floats can."""
    calibrator = Calibrator(map=LogisticMap(a=-1.0, b=0.0))
    middles = np.nextafter(((np.arange(10_000) + 0.5) / 10_000).astype(np.float32), np.float32(1))
    p_hat_raw = np.concatenate([middles, np.nextafter(middles, np.float32(0))])

    found = columns.calibrated_bps(calibrator, p_hat_raw).tolist()

    assert found == [round(calibrator.probability(p) * 10_000) for p in p_hat_raw.tolist()]


def test_an_array_that_decided_alone_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a map of one row that says otherwise, undecided values say otherwise."""
    monkeypatch.setattr(columns, "UNDECIDED_BPS", 0.5)
    calibrator = Calibrator(map=LogisticMap(a=-1.0, b=0.0))
    monkeypatch.setattr(Calibrator, "probability", lambda _self, _p: 0.0)

    assert columns.calibrated_bps(calibrator, np.array([0.3, 0.7], np.float32)).tolist() == [0, 0]


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=50), *PARAMETERS)
def test_columns_of_a_head_are_its_answers(values: list[float], a: float, b: float) -> None:
    head = DirectionHead(calibrator=Calibrator(map=LogisticMap(a=a, b=b)))
    up = np.array(values, dtype=np.float32)
    shares = np.stack([1.0 - up, up], axis=1)

    found = columns.columns_of(head, (shares,))

    assert found is not None
    answers = [head.answer([row]) for row in shares.tolist()]
    for name, column in found.items():
        assert column.tolist() == [getattr(answer, name) for answer in answers]


@pytest.mark.parametrize(
    "row", [[np.nan, 0.5], [0.5, 0.6], [-0.1, 1.1], [np.inf, 0.5], [0.5, 0.500_1]]
)
def test_a_row_that_may_have_no_answer_is_left_to_the_map_of_one_row(row: list[float]) -> None:
    head = DirectionHead(calibrator=Calibrator(map=LogisticMap(a=-1.0, b=0.0)))
    shares = np.array([[0.25, 0.75], row], dtype=np.float32)

    assert columns.columns_of(head, (shares,)) is None
