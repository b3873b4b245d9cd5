"""The brackets' calibration: better on rows that it never saw than the seed's formula."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detent.contracts.calibration import Coupling
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration_brackets import BracketsCalibrator, fit_brackets
from detent.core.signals.calibration_temperature import Classes
from detent.core.signals.coupling import couple_odds_ratio

KEYS = tuple(f"b{index}" for index in range(6))
REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "coupling.json"


def panel(count: int, *, seed: int = 11) -> tuple[Floats, Classes]:
    """Draw six ordered outcomes, and heads that are each too sure of themselves."""
    chance = np.random.default_rng(seed)
    centre = chance.normal(2.5, 1.2, (count, 1))
    logits = -0.7 * (np.arange(6) - centre) ** 2
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outcomes = np.array([chance.choice(6, p=row) for row in truth], dtype=np.int64)
    said = 1.6 * np.log(truth / (1.0 - truth)) + chance.normal(0.0, 0.2, 6)
    return 1.0 / (1.0 + np.exp(-said)), outcomes


def log_loss(shares: list[tuple[float, ...]], outcomes: Classes) -> float:
    """Give the mean of minus the logarithm of what came true."""
    chosen = [row[outcome] for row, outcome in zip(shares, outcomes.tolist(), strict=True)]
    return -math.fsum(math.log(share) for share in chosen) / len(chosen)


def coupled(p_hat: list[float]) -> tuple[float, ...]:
    """Couple a group that can be."""
    found = couple_odds_ratio(p_hat)
    assert isinstance(found, tuple)
    return found


def seeds_softmax(p_hat: list[float]) -> tuple[float, ...]:
    """Couple by the seed's formula at tau 1."""
    odds = [p / (1.0 - p) for p in p_hat]
    return tuple(value / sum(odds) for value in odds)


def test_the_fit_beats_what_was_never_calibrated_on_rows_that_it_never_saw() -> None:
    raw, outcomes = panel(3_000)
    spec = fit_brackets(
        KEYS,
        raw[:1_000],
        outcomes[:1_000],
        p_hat_raw_later=raw[1_000:2_000],
        outcomes_later=outcomes[1_000:2_000],
    )
    again = fit_brackets(
        KEYS,
        raw[:1_000],
        outcomes[:1_000],
        p_hat_raw_later=raw[1_000:2_000],
        outcomes_later=outcomes[1_000:2_000],
    )
    calibrator = BracketsCalibrator.of(spec)
    unseen = raw[2_000:].tolist()
    calibrated = [
        calibrator.distribution(
            [c.probability(p) for c, p in zip(calibrator.calibrators, row, strict=True)]
        )
        for row in unseen
    ]
    assert not any(isinstance(row, Reason) for row in calibrated)
    ours = log_loss([row for row in calibrated if isinstance(row, tuple)], outcomes[2_000:])

    assert spec == again
    assert spec.calibration_version == again.calibration_version
    assert spec.coupling is Coupling.ODDS_RATIO
    assert ours < log_loss([coupled(row) for row in unseen], outcomes[2_000:])
    assert ours < log_loss([seeds_softmax(row) for row in unseen], outcomes[2_000:])


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared references are not here")
def test_coupling_has_the_reference_panels_log_loss() -> None:
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    fixture: Any = next(f for f in fixtures if f["id"] == "bracket_panel_tau_fit")
    start = fixture["inputs"]["n_fit"]
    rows, outcomes = fixture["inputs"]["P"][start:], np.array(fixture["inputs"]["y"][start:])
    expected = fixture["expected"]["test"]["odds_ratio"]["log_loss"]

    assert log_loss([coupled(row) for row in rows], outcomes) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda p, y: (p, np.where(y == 3, 2, y)), id="an outcome that never came"),
        pytest.param(lambda p, y: (1.0 - p, y), id="scores that point the wrong way"),
        pytest.param(lambda p, y: (p * np.nan, y), id="nan"),
    ],
)
def test_rows_that_calibrate_nothing_are_refused(spoil: Any) -> None:
    raw, outcomes = spoil(*panel(400))

    with pytest.raises(ArtifactInvalid) as caught:
        fit_brackets(KEYS, raw, outcomes, p_hat_raw_later=raw[:200], outcomes_later=outcomes[:200])

    assert caught.value.gate_reason is Reason.CALIBRATION_FAILED
