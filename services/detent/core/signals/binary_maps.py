"""Map one probability to a calibrated one: a class per form of map.

Each maps a single value by scalar arithmetic, so that a row gives the same integer alone and
in any batch, and whole arrays by the same steps in numpy. The two may differ in the last bit
where exp and log take part, and nowhere else.

Source: decision D17; QUANT section A1.
"""

import math
from bisect import bisect_left, bisect_right
from decimal import Decimal
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.calibration import (
    BetaSpec,
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    IsotonicSpec,
    TemperatureSpec,
    VennAbersSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

Floats = NDArray[np.float64]

# A float32 model can say exactly 0 or 1; half of its last place keeps the logit finite.
PROBABILITY_MIN = 2.0**-25
PROBABILITY_MAX = 1.0 - PROBABILITY_MIN


class BinaryMap(Protocol):
    """Maps probabilities in [0, 1] to calibrated ones in [0, 1], none of two inverted."""

    def one(self, p: float) -> float:
        """Map a single probability."""

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""


class IdentityMap(msgspec.Struct, frozen=True, kw_only=True):
    """Leaves a probability as it is: q = p."""

    def one(self, p: float) -> float:
        """Map a single probability."""
        return p

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""
        return p


class LogisticMap(msgspec.Struct, frozen=True, kw_only=True):
    """Maps on the logit: q = 1 / (1 + exp(a * logit(p) + b)); Platt, and a temperature."""

    a: float
    b: float

    def one(self, p: float) -> float:
        """Map a single probability."""
        return sigmoid(-(self.a * logit(p) + self.b))

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""
        p = clipped(p)
        return _sigmoids(-(self.a * (np.log(p) - np.log1p(-p)) + self.b))


class BetaMap(msgspec.Struct, frozen=True, kw_only=True):
    """Maps q = 1 / (1 + exp(-(a ln p - b ln(1 - p) + c)))."""

    a: float
    b: float
    c: float

    def one(self, p: float) -> float:
        """Map a single probability."""
        p = _clipped_one(p)
        return sigmoid(self.a * math.log(p) - self.b * math.log1p(-p) + self.c)

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""
        p = clipped(p)
        return _sigmoids(self.a * np.log(p) - self.b * np.log1p(-p) + self.c)


class LineMap(msgspec.Struct, frozen=True, kw_only=True):
    """Maps along straight lines between at least two knots, constant beyond them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def one(self, p: float) -> float:
        """Map a single probability."""
        p = min(max(_clipped_one(p), self.x[0]), self.x[-1])
        knot = min(bisect_right(self.x, p) - 1, len(self.x) - 2)
        share = (p - self.x[knot]) / (self.x[knot + 1] - self.x[knot])
        low, high = self.y[knot], self.y[knot + 1]
        # The sum may round to above the knot that it leads to.
        return min(low + (high - low) * share, high)

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""
        x, y = np.array(self.x), np.array(self.y)
        p = np.minimum(np.maximum(clipped(p), x[0]), x[-1])
        knot = np.minimum(np.searchsorted(x, p, side="right") - 1, len(x) - 2)
        share = (p - x[knot]) / (x[knot + 1] - x[knot])
        low, high = y[knot], y[knot + 1]
        mapped: Floats = np.minimum(low + (high - low) * share, high)
        return mapped


class StepMap(msgspec.Struct, frozen=True, kw_only=True):
    """Maps to a constant at each of some places, and to another between each two."""

    x: tuple[float, ...]
    at: tuple[float, ...]
    between: tuple[float, ...]

    def one(self, p: float) -> float:
        """Map a single probability."""
        p = _clipped_one(p)
        place = bisect_left(self.x, p)
        if place < len(self.x) and self.x[place] == p:
            return self.at[place]
        return self.between[place]

    def many(self, p: Floats) -> Floats:
        """Map an array, of any shape."""
        x, p = np.array(self.x), clipped(p)
        place = np.searchsorted(x, p, side="left")
        inner = np.minimum(place, len(x) - 1)
        return np.where(x[inner] == p, np.array(self.at)[inner], np.array(self.between)[place])


def binary_map(spec: Calibration) -> BinaryMap:
    """Build the map that a specification describes; of the identity too.

    Raises:
        ArtifactInvalid: The specification is one of several classes.
    """
    match spec:
        case CalibrationSpec(method=CalibrationMethod.IDENTITY):
            return IdentityMap()
        case CalibrationSpec(a=a, b=b) if a is not None and b is not None:
            return LogisticMap(a=float(a), b=float(b))
        case TemperatureSpec():
            return LogisticMap(a=-1.0 / float(spec.temperature), b=0.0)
        case BetaSpec():
            return BetaMap(a=float(spec.a), b=float(spec.b), c=float(spec.c))
        case IsotonicSpec():
            return LineMap(x=_floats(spec.x), y=_floats(spec.y))
        case VennAbersSpec():
            return StepMap(x=_floats(spec.x), at=_floats(spec.at), between=_floats(spec.between))
    raise ArtifactInvalid(
        f"calibration: found {spec.method}, expected a calibrator of one probability",
        gate_reason=Reason.CALIBRATION_MISSING,
        found=spec.method,
        expected="a calibrator of one probability",
    )


def logit(probability: float) -> float:
    """Give ln(p / (1 - p)), finite for every p in [0, 1]."""
    inside = _clipped_one(probability)
    return math.log(inside) - math.log1p(-inside)


def sigmoid(value: float) -> float:
    """Give 1 / (1 + exp(-value)) without an overflow."""
    decay = math.exp(-abs(value))
    return (1.0 if value >= 0.0 else decay) / (1.0 + decay)


def clipped(p: Floats) -> Floats:
    """Move what is exactly 0 or 1, or next to it, to where a logit is finite."""
    return np.minimum(np.maximum(p, PROBABILITY_MIN), PROBABILITY_MAX)


def _clipped_one(p: float) -> float:
    return min(max(p, PROBABILITY_MIN), PROBABILITY_MAX)


def _sigmoids(values: Floats) -> Floats:
    decay = np.exp(-np.abs(values))
    return np.where(values >= 0.0, 1.0, decay) / (1.0 + decay)


def _floats(values: tuple[Decimal, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
