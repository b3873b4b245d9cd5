"""Fit and apply the calibration of exclusive outcomes: Platt each, couple, then temper.

Source: decisions D15 and D16.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from detent.contracts.calibration import (
    BracketPlatt,
    BracketsSpec,
    CalibrationMethod,
    CalibrationSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import BracketProbability, BracketsSignal
from detent.contracts.units import BPS_ONE
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration import Calibrator, fit_calibration
from detent.core.signals.calibration_temperature import Classes, fit_temperature
from detent.core.signals.class_maps import Temperature
from detent.core.signals.coupling import couple_odds_ratio
from detent.core.signals.quantise import shares_bps


class BracketsCalibrator(msgspec.Struct, frozen=True, kw_only=True):
    """Applies one calibration of a group; built once per artifact."""

    keys: tuple[str, ...]
    calibrators: tuple[Calibrator, ...]
    temperature: Temperature

    @classmethod
    def of(cls, spec: BracketsSpec) -> "BracketsCalibrator":
        """Build the map that a specification describes."""
        return cls(
            keys=tuple(bracket.bracket_key for bracket in spec.brackets),
            calibrators=tuple(_calibrator(bracket) for bracket in spec.brackets),
            temperature=Temperature.of(spec.temperature),
        )

    def distribution(self, p_hat: Sequence[float]) -> tuple[float, ...] | Reason:
        """Couple calibrated probabilities and temper what comes of it."""
        coupled = couple_odds_ratio(p_hat)
        return coupled if isinstance(coupled, Reason) else self.temperature.shares(coupled)

    def brackets(self, p_hat_raw: Sequence[float]) -> BracketsSignal | Reason:
        """Answer the brackets head for one row.

        Args:
            p_hat_raw: What the model said per outcome, whatever that is; a NaN is an
                outcome that it said nothing about.

        Returns:
            The outcomes that have a probability; coupled when that is all of them and they
            do not contradict one another, otherwise with the reason why not. Or the reason
            why the model's answer is none.
        """
        said = [not math.isnan(probability) for probability in p_hat_raw]
        present = [p for p, there in zip(p_hat_raw, said, strict=True) if there]
        if not present or not all(0.0 <= probability <= 1.0 for probability in present):
            return Reason.OUTPUT_INVALID
        p_hat = [
            calibrator.probability(p)
            for calibrator, p, there in zip(self.calibrators, p_hat_raw, said, strict=True)
            if there
        ]
        keys = [key for key, there in zip(self.keys, said, strict=True) if there]
        if not all(said):
            return _signal(keys, p_hat, Reason.BRACKETS_INCOMPLETE)
        coupled = self.distribution(p_hat)
        if isinstance(coupled, Reason):
            return _signal(keys, p_hat, coupled)
        unified = shares_bps(coupled)
        if isinstance(unified, Reason):
            return Reason.CALIBRATION_FAILED
        return _signal(keys, p_hat, unified)


def _signal(
    keys: Sequence[str], p_hat: Sequence[float], unified: tuple[int, ...] | Reason
) -> BracketsSignal:
    refusal = unified if isinstance(unified, Reason) else None
    shares = [None] * len(keys) if isinstance(unified, Reason) else unified
    return BracketsSignal(
        brackets=tuple(
            BracketProbability(
                bracket_key=key, p_hat_bps=round(probability * BPS_ONE), p_unified_bps=share
            )
            for key, probability, share in zip(keys, p_hat, shares, strict=True)
        ),
        coupling_refusal=refusal,
    )


def fit_brackets(
    keys: Sequence[str],
    p_hat_raw: Floats,
    outcomes: Classes,
    *,
    p_hat_raw_later: Floats,
    outcomes_later: Classes,
) -> BracketsSpec:
    """Fit one Platt map per outcome, then the temperature of the coupled group on later rows.

    The temperature sees what the maps give on rows that they were not fitted on: on their
    own rows it would look better than it is.

    Args:
        keys: Names of the outcomes, in order.
        p_hat_raw: Shape (n, k), float64, the model's probabilities, in [0, 1].
        outcomes: Shape (n,), int64, the outcome that came true, in [0, k).
        p_hat_raw_later: Shape (m, k), likewise, of later rows.
        outcomes_later: Shape (m,), likewise.

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything; see `fit_calibration` and
            `fit_temperature`.
    """
    brackets = []
    for index, key in enumerate(keys):
        spec = fit_calibration(p_hat_raw[:, index], outcomes == index)
        assert spec.a is not None
        assert spec.b is not None
        brackets.append(BracketPlatt(bracket_key=key, a=spec.a, b=spec.b))
    calibrators = [_calibrator(bracket) for bracket in brackets]
    coupled = [
        _coupled([c.probability(p) for c, p in zip(calibrators, row, strict=True)])
        for row in p_hat_raw_later.tolist()
    ]
    fitted = fit_temperature(np.array(coupled, dtype=np.float64), outcomes_later)
    return BracketsSpec(brackets=tuple(brackets), temperature=fitted.temperature)


def _coupled(p_hat: Sequence[float]) -> tuple[float, ...]:
    coupled = couple_odds_ratio(p_hat)
    if isinstance(coupled, Reason):
        raise ArtifactInvalid(
            f"calibration: found a group that cannot be coupled ({coupled})",
            gate_reason=Reason.CALIBRATION_FAILED,
            found=coupled,
            expected="brackets that do not contradict one another",
        )
    return coupled


def _calibrator(bracket: BracketPlatt) -> Calibrator:
    return Calibrator.of(CalibrationSpec(method=CalibrationMethod.PLATT, a=bracket.a, b=bracket.b))
