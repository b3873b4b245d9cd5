"""Map what a graph answers for one row to the signal of its head, in integers.

One class per head: it calibrates, quantises, and gives a reason for whatever is no answer.
Nothing here knows a side or a time: no head answers either (R252).

Source: DESIGN section 5; decisions D1 and D6; rows R20 to R24 and R148.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from detent.contracts.binding import Head
from detent.contracts.calibration import (
    BracketsSpec,
    Calibration,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    SPACING_X1000_MAX,
    SPACING_X1000_MIN,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    Regime,
    RegimeSignal,
    ToxicitySignal,
    most_probable,
)
from detent.contracts.units import BPS_ONE
from detent.core.signals.calibration import Calibrator
from detent.core.signals.calibration_brackets import BracketsCalibrator
from detent.core.signals.class_maps import ClassMap, class_map
from detent.core.signals.quantise import is_distribution, shares_bps

# The multiplier of a model that has no output for it (R148).
SPACING_X1000_NONE = 1000

# What one row gave: one list of floats per output of the graph, in the manifest's order.
Outputs = Sequence[Sequence[float]]


class HeadMap(Protocol):
    """Maps the outputs of one row to the signal of a head."""

    def answer(self, outputs: Outputs) -> HeadSignal | Reason:
        """Give the signal, or the reason why the outputs are none."""


class DirectionHead(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(up over the horizon)."""

    calibrator: Calibrator

    def answer(self, outputs: Outputs) -> DirectionSignal | Reason:
        """Calibrate the last of (down, up)."""
        if not is_distribution(outputs[0]):
            return Reason.OUTPUT_INVALID
        return self.calibrator.direction(outputs[0][-1])


class FillHead(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(fill within the horizon)."""

    calibrator: Calibrator

    def answer(self, outputs: Outputs) -> FillSignal | Reason:
        """Calibrate the last of (not_filled, filled)."""
        if not is_distribution(outputs[0]):
            return Reason.OUTPUT_INVALID
        p_fill = self.calibrator.probability(outputs[0][-1])
        if not 0.0 <= p_fill <= 1.0:
            return Reason.CALIBRATION_FAILED
        return FillSignal(p_fill_bps=round(p_fill * BPS_ONE))


class RegimeHead(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(LOW, MID, HIGH) and, where the graph has one, a spacing multiplier."""

    class_map: ClassMap

    def answer(self, outputs: Outputs) -> RegimeSignal | Reason:
        """Calibrate the classes; refuse a spacing out of range instead of clamping it."""
        shares = _calibrated_bps(self.class_map, outputs[0])
        spacing_x1000 = _spacing_x1000(outputs[1][0]) if len(outputs) > 1 else SPACING_X1000_NONE
        if isinstance(shares, Reason):
            return shares
        if isinstance(spacing_x1000, Reason):
            return spacing_x1000
        return regime_signal(shares, spacing_x1000=spacing_x1000)


class ToxicityHead(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(LOW, MID, HIGH) of toxicity, and the regime expected next."""

    class_map: ClassMap

    def answer(self, outputs: Outputs) -> ToxicitySignal | Reason:
        """Calibrate the classes; of the next regime only the most probable is answered."""
        shares = _calibrated_bps(self.class_map, outputs[0])
        following = shares_bps(outputs[1])
        if isinstance(shares, Reason):
            return shares
        if isinstance(following, Reason):
            return following
        return toxicity_signal(shares, next_regime=_most_probable(following))


class BracketsHead(msgspec.Struct, frozen=True, kw_only=True):
    """Answers k exclusive outcomes."""

    calibrator: BracketsCalibrator

    def answer(self, outputs: Outputs) -> BracketsSignal | Reason:
        """Calibrate each outcome and couple the group, if it is whole."""
        return self.calibrator.brackets(outputs[0])


def head_map(manifest: Manifest, calibration: Calibration) -> HeadMap:
    """Build the map of an artifact's head.

    Raises:
        ArtifactInvalid: The calibration is not one of this head, or an identity that won no choice.
    """
    class_count = len(manifest.output_classes)
    match manifest.head, calibration:
        case Head.DIRECTION, _:
            return DirectionHead(calibrator=Calibrator.of(calibration))
        case Head.FILL, _:
            return FillHead(calibrator=Calibrator.of(calibration))
        case Head.REGIME, _:
            return RegimeHead(class_map=class_map(calibration, class_count=class_count))
        case Head.TOXICITY, _:
            return ToxicityHead(class_map=class_map(calibration, class_count=class_count))
        case Head.BRACKETS, BracketsSpec():
            keys = tuple(bracket.bracket_key for bracket in calibration.brackets)
            if keys != manifest.output_classes:
                raise _unfit(f"brackets {keys}", f"brackets {manifest.output_classes}")
            return BracketsHead(calibrator=BracketsCalibrator.of(calibration))
    raise _unfit(calibration.method, f"a calibration of the head {manifest.head}")


def regime_signal(shares: tuple[int, ...], *, spacing_x1000: int) -> RegimeSignal:
    """Build the regime's answer from shares that sum to 10000."""
    low, mid, high = shares
    return RegimeSignal(
        regime_low_prob_bps=low,
        regime_mid_prob_bps=mid,
        regime_high_prob_bps=high,
        predicted_regime=_most_probable(shares),
        regime_confidence_bps=max(shares),
        spacing_multiplier_x1000=spacing_x1000,
    )


def toxicity_signal(shares: tuple[int, ...], *, next_regime: Regime) -> ToxicitySignal:
    """Build the toxicity's answer from shares that sum to 10000."""
    low, mid, high = shares
    return ToxicitySignal(
        toxicity_low_prob_bps=low,
        toxicity_mid_prob_bps=mid,
        toxicity_high_prob_bps=high,
        predicted_toxicity=_most_probable(shares),
        next_regime=next_regime,
    )


def _calibrated_bps(classes: ClassMap, probabilities: Sequence[float]) -> tuple[int, ...] | Reason:
    if not is_distribution(probabilities):
        return Reason.OUTPUT_INVALID
    shares = shares_bps(classes.shares(probabilities))
    return Reason.CALIBRATION_FAILED if isinstance(shares, Reason) else shares


def _spacing_x1000(multiplier: float) -> int | Reason:
    # Judged as the integer that would be answered; a NaN has none.
    if not math.isfinite(multiplier):
        return Reason.OUTPUT_INVALID
    spacing_x1000 = round(multiplier * 1000)
    inside = SPACING_X1000_MIN <= spacing_x1000 <= SPACING_X1000_MAX
    return spacing_x1000 if inside else Reason.OUTPUT_INVALID


def _most_probable(shares: tuple[int, ...]) -> Regime:
    low, mid, high = shares
    return most_probable(low, mid, high)


def _unfit(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_MISSING,
        found=found,
        expected=expected,
    )
