"""Map a distribution over the classes of a head to a calibrated one.

As in `core/signals/binary_maps.py` a row is mapped by scalar arithmetic, alone or in a batch.

Source: Guo et al. 2017; Kull et al. 2019; decision D17.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from detent.contracts.calibration import (
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    DirichletSpec,
    TemperatureSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

# The smallest normal float32: a class that a float32 softmax gives 0 is as unlikely as that.
SHARE_MIN = 2.0**-126


class ClassMap(Protocol):
    """Maps a distribution to another one in the same order."""

    def shares(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Map the probabilities of one row: each in [0, 1], one of them above 0."""


class IdentityShares(msgspec.Struct, frozen=True, kw_only=True):
    """Leaves a distribution as it is."""

    def shares(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Give the same distribution."""
        return tuple(probabilities)


class Temperature(msgspec.Struct, frozen=True, kw_only=True):
    """Applies one temperature: q = softmax(log p / T); the argmax stays where it was."""

    inverse: float

    @classmethod
    def of(cls, temperature: Decimal) -> "Temperature":
        """Build the map."""
        return cls(inverse=1.0 / float(temperature))

    def shares(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Map a distribution to a flatter or sharper one.

        Args:
            probabilities: Each in [0, 1], one of them above 0.

        Returns:
            A distribution in the same order.
        """
        return _softmax([self.inverse * log for log in _logs(probabilities)])


class Dirichlet(msgspec.Struct, frozen=True, kw_only=True):
    """Applies one Dirichlet map: q = softmax(W ln p + b)."""

    weights: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]

    @classmethod
    def of(cls, spec: DirichletSpec) -> "Dirichlet":
        """Build the map."""
        return cls(
            weights=tuple(tuple(float(weight) for weight in row.weights) for row in spec.rows),
            offsets=tuple(float(row.offset) for row in spec.rows),
        )

    def shares(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Map a distribution to another one.

        Args:
            probabilities: As many as there are classes, each in [0, 1].

        Returns:
            A distribution in the same order; the argmax may move.
        """
        logs = _logs(probabilities)
        return _softmax(
            [
                math.fsum(weight * log for weight, log in zip(row, logs, strict=True)) + offset
                for row, offset in zip(self.weights, self.offsets, strict=True)
            ]
        )


def class_map(spec: Calibration, *, class_count: int) -> ClassMap:
    """Build the map that a specification describes.

    Args:
        spec: The calibration.
        class_count: Classes of the head.

    Raises:
        ArtifactInvalid: The specification is one of another form or of another number of
            classes, or an identity that won no choice.
    """
    match spec:
        case CalibrationSpec(method=CalibrationMethod.IDENTITY) if spec.may_serve:
            return IdentityShares()
        case TemperatureSpec():
            return Temperature.of(spec.temperature)
        case DirichletSpec() if len(spec.rows) == class_count:
            return Dirichlet.of(spec)
    raise ArtifactInvalid(
        f"calibration: found {spec.method}, expected a calibrator of {class_count} classes",
        gate_reason=Reason.CALIBRATION_MISSING,
        found=spec.method,
        expected=f"a calibrator of {class_count} classes",
    )


def _logs(probabilities: Sequence[float]) -> list[float]:
    return [math.log(max(probability, SHARE_MIN)) for probability in probabilities]


def _softmax(scores: Sequence[float]) -> tuple[float, ...]:
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
