"""Hold what an artifact answers: one message, five heads, no side and no timing."""

import functools
import re
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_hash16,
    check_int,
    check_name,
    check_symbol,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE, INT32_MAX, INT64_MAX

SPACING_X1000_MIN = 500
SPACING_X1000_MAX = 2000
BRACKETS_MAX = 100
TOP_FEATURES_COUNT = 3
_VERSION = re.compile(r"v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


class Regime(StrEnum):
    """Names a regime or a level, in declared order."""

    LOW = "LOW"
    MID = "MID"
    HIGH = "HIGH"


# As `detent.api.v1.Regime` numbers them on the wire, for columns.
REGIME_NUMBERS = {regime: number for number, regime in enumerate(Regime, start=1)}


def most_probable(low_bps: int, mid_bps: int, high_bps: int) -> Regime:
    """Name the most probable class; the first in declared order on a tie."""
    shares = {Regime.LOW: low_bps, Regime.MID: mid_bps, Regime.HIGH: high_bps}
    return max(shares, key=lambda regime: shares[regime])


def check_three_shares(prefix: str, low_bps: int, mid_bps: int, high_bps: int) -> None:
    """Refuse three probabilities that do not sum to exactly 10000."""
    for name, share_bps in (("low", low_bps), ("mid", mid_bps), ("high", high_bps)):
        check_int(f"{prefix}_{name}_prob_bps", share_bps, 0, BPS_ONE)
    total_bps = low_bps + mid_bps + high_bps
    if total_bps != BPS_ONE:
        raise InvalidField(f"{prefix}_prob_bps", f"a sum of {total_bps}", f"a sum of {BPS_ONE}")


class DirectionSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(up over the horizon), uncalibrated and calibrated, in basis points."""

    p_hat_raw_bps: int
    p_hat_bps: int

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        check_int("p_hat_raw_bps", self.p_hat_raw_bps, 0, BPS_ONE)
        check_int("p_hat_bps", self.p_hat_bps, 0, BPS_ONE)


class RegimeSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Answers the volatility regime and a spacing multiplier.

    Source: seed 003, section 12.2.2.
    """

    regime_low_prob_bps: int
    regime_mid_prob_bps: int
    regime_high_prob_bps: int
    predicted_regime: Regime
    regime_confidence_bps: int
    spacing_multiplier_x1000: int

    def __post_init__(self) -> None:
        """Refuse shares, a regime or a confidence that contradict each other."""
        shares = (self.regime_low_prob_bps, self.regime_mid_prob_bps, self.regime_high_prob_bps)
        check_three_shares("regime", *shares)
        expected = most_probable(*shares)
        if self.predicted_regime is not expected:
            raise InvalidField("predicted_regime", self.predicted_regime, f"argmax {expected}")
        if self.regime_confidence_bps != max(shares):
            raise InvalidField(
                "regime_confidence_bps", self.regime_confidence_bps, str(max(shares))
            )
        check_int(
            "spacing_multiplier_x1000",
            self.spacing_multiplier_x1000,
            SPACING_X1000_MIN,
            SPACING_X1000_MAX,
        )


class ToxicitySignal(msgspec.Struct, frozen=True, kw_only=True):
    """Answers the toxicity of the flow and the regime expected next."""

    toxicity_low_prob_bps: int
    toxicity_mid_prob_bps: int
    toxicity_high_prob_bps: int
    predicted_toxicity: Regime
    next_regime: Regime

    def __post_init__(self) -> None:
        """Refuse shares or a level that contradict each other."""
        shares = (
            self.toxicity_low_prob_bps,
            self.toxicity_mid_prob_bps,
            self.toxicity_high_prob_bps,
        )
        check_three_shares("toxicity", *shares)
        expected = most_probable(*shares)
        if self.predicted_toxicity is not expected:
            raise InvalidField("predicted_toxicity", self.predicted_toxicity, f"argmax {expected}")


class FillSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Answers P(fill within the horizon) in basis points."""

    p_fill_bps: int

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        check_int("p_fill_bps", self.p_fill_bps, 0, BPS_ONE)


class BracketProbability(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one outcome's probability before and, if the group was whole, after coupling."""

    bracket_key: str
    p_hat_bps: int
    p_unified_bps: int | None

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        check_name("bracket_key", self.bracket_key)
        check_int("p_hat_bps", self.p_hat_bps, 0, BPS_ONE)
        if self.p_unified_bps is not None:
            check_int("p_unified_bps", self.p_unified_bps, 0, BPS_ONE)


class BracketsSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Answers k exclusive outcomes, coupled all or not at all.

    Attributes:
        brackets: The outcomes that have a probability, in declared order. A group that lacks
            one is never coupled (decision D16).
        coupling_refusal: Why the group is not coupled; None when it is.
    """

    brackets: tuple[BracketProbability, ...]
    coupling_refusal: Reason | None = None

    def __post_init__(self) -> None:
        """Refuse a group that is coupled in part or does not sum to exactly 10000."""
        check_count("brackets", self.brackets, 1, BRACKETS_MAX)
        check_unique("brackets", [bracket.bracket_key for bracket in self.brackets])
        coupled = [
            bracket.p_unified_bps for bracket in self.brackets if bracket.p_unified_bps is not None
        ]
        if not coupled:
            return
        alone = len(coupled) == 1
        if alone or len(coupled) != len(self.brackets) or sum(coupled) != BPS_ONE:
            raise InvalidField("p_unified_bps", coupled, f"all or none, summing to {BPS_ONE}")
        if self.coupling_refusal is not None:
            raise InvalidField("coupling_refusal", self.coupling_refusal, "absent: it is coupled")


HeadSignal = DirectionSignal | RegimeSignal | ToxicitySignal | FillSignal | BracketsSignal
_HEADS: dict[type, str] = {
    DirectionSignal: "direction",
    RegimeSignal: "regime",
    ToxicitySignal: "toxicity",
    FillSignal: "fill",
    BracketsSignal: "brackets",
}


def head_name(signal: HeadSignal) -> str:
    """Name the head that gave an answer."""
    return _HEADS[type(signal)]


def by_head(signal: HeadSignal) -> dict[str, Any]:
    """Give an answer under the name of its head, as the messages that hold one take it."""
    return {head_name(signal): signal}


@functools.lru_cache(maxsize=256)
def check_model(model_version: str, model_hash: str) -> None:
    """Refuse odd names of a model, once for all rows that it answers."""
    if not _VERSION.fullmatch(model_version):
        raise InvalidField("model_version", model_version, "v<major>.<minor>.<patch>")
    check_hash16("model_hash", model_hash)


class MlSignalSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Carries what a pinned artifact answered for one symbol at one instant.

    Its JSON form is flat: the fields of the head that answered stand beside the common
    ones, so that a regime answer reads exactly as seed 003, section 12.2.3 has it.

    Attributes:
        ts: Event time of the features, Unix milliseconds UTC (the seed's name).
        symbol: Instrument.
        model_version: Semantic version, `v1.0.0`.
        model_hash: First 16 hex of SHA-256(model.onnx).
        top_features: The three heaviest features; empty unless asked for, in a fallback,
            and where the model gives no number without some feature.
        top_feature_weights_x1000: Their shares of all weight, not ascending.
        inference_latency_us: Time inside inference; outside every digest.
        features_hash: First 16 hex of the features hash.
        direction: The answer of the direction head; likewise the four others.
    """

    SCHEMA: ClassVar[str] = "detent.ml_signal_snapshot.v1"
    JSON_FLAT: ClassVar[tuple[str, ...]] = (
        "direction",
        "regime",
        "toxicity",
        "fill",
        "brackets",
    )

    ts: int
    symbol: str
    model_version: str
    model_hash: str
    top_features: tuple[str, ...]
    top_feature_weights_x1000: tuple[int, ...]
    inference_latency_us: int
    features_hash: str
    direction: DirectionSignal | None = None
    regime: RegimeSignal | None = None
    toxicity: ToxicitySignal | None = None
    fill: FillSignal | None = None
    brackets: BracketsSignal | None = None

    def __post_init__(self) -> None:
        """Refuse an answer of no head or of several, and odd provenance."""
        check_ts_ms("ts", self.ts)
        check_symbol("symbol", self.symbol)
        check_model(self.model_version, self.model_hash)
        check_hash16("features_hash", self.features_hash)
        check_int("inference_latency_us", self.inference_latency_us, 0, INT64_MAX)
        self._check_attributions()
        answers = (self.direction, self.regime, self.toxicity, self.fill, self.brackets)
        if sum(answer is not None for answer in answers) != 1:
            check_exactly_one("answer", **dict(zip(self.JSON_FLAT, answers, strict=True)))

    @property
    def answer(self) -> HeadSignal:
        """Give the answer, whichever head gave it."""
        found = self.direction or self.regime or self.toxicity or self.fill or self.brackets
        assert found is not None, "a signal is valid by construction"
        return found

    def _check_attributions(self) -> None:
        if not self.top_features and not self.top_feature_weights_x1000:
            return
        check_count("top_features", self.top_features, TOP_FEATURES_COUNT, TOP_FEATURES_COUNT)
        check_unique("top_features", self.top_features)
        for name in self.top_features:
            check_name("top_features", name)
        weights = self.top_feature_weights_x1000
        check_count("top_feature_weights_x1000", weights, TOP_FEATURES_COUNT, TOP_FEATURES_COUNT)
        for weight in weights:
            check_int("top_feature_weights_x1000", weight, 0, INT32_MAX)
        if list(weights) != sorted(weights, reverse=True):
            raise InvalidField("top_feature_weights_x1000", weights, "heaviest first")
