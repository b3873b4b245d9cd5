"""Hold what a model said of a bar that it did not decide, beside what decided it."""

from typing import ClassVar

import msgspec

from detent.contracts.binding import SignalSource
from detent.contracts.checks import (
    check_exactly_one,
    check_hash64,
    check_int,
    check_name,
    check_symbol,
    check_ts_ms,
)
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout
from detent.contracts.units import BPS_ONE, INT32_MAX, INT64_MAX


class ShadowSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs the unused answer of one binding to a bar with the answer that was used.

    The key is that of the decision and the shadow's own binding; the record that it stands
    beside is named by its hash, which does not depend on it.

    Attributes:
        binding_hash: Of the binding that was asked and did not decide.
        plan_id: Plan that decided the bar.
        symbol: Instrument.
        ts_ms: Close of the bar.
        kind: Kind of the decision.
        record_hash: The decision.
        used_source: Which source decided.
        used_p_hat_bps: The probability that was used.
        used_reason: Why the proxy answered for the plan's model; None where it did not.
        model_id: The model that was asked; None for the proxy.
        horizon_bars: How far ahead the shadow's label looks; 0 for the proxy.
        features_hash: What the shadow was given; None when nothing was built.
        p_hat_raw_bps: Its uncalibrated answer; the proxy's is its answer; None without one.
        p_hat_bps: Its calibrated answer, or None with a reason.
        reason: Why it has no answer, or None with one.
        latency_us: From asking for features to the answer, microseconds.
        rollout: Which arm of which rollout decided; None for a plan of its own.
    """

    SCHEMA: ClassVar[str] = "detent.shadow_signal.v1"
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"rollout"})

    binding_hash: str
    plan_id: str
    symbol: str
    ts_ms: int
    kind: DecisionKind
    record_hash: str
    used_source: SignalSource
    used_p_hat_bps: int
    used_reason: Reason | None
    model_id: str | None
    horizon_bars: int
    features_hash: str | None
    p_hat_raw_bps: int | None
    p_hat_bps: int | None
    reason: Reason | None
    latency_us: int
    rollout: PlanRollout | None = None

    def __post_init__(self) -> None:
        """Refuse an answer with a reason why there is none, and neither of the two."""
        for field in ("binding_hash", "record_hash"):
            check_hash64(field, getattr(self, field))
        check_name("plan_id", self.plan_id)
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("used_p_hat_bps", self.used_p_hat_bps, 0, BPS_ONE)
        if self.model_id is not None:
            check_name("model_id", self.model_id)
        check_int("horizon_bars", self.horizon_bars, 0, INT32_MAX)
        if self.features_hash is not None:
            check_hash64("features_hash", self.features_hash)
        check_exactly_one("shadow", p_hat_bps=self.p_hat_bps, reason=self.reason)
        for field in ("p_hat_raw_bps", "p_hat_bps"):
            value = getattr(self, field)
            if value is not None:
                check_int(field, value, 0, BPS_ONE)
        if (self.p_hat_bps is None) != (self.p_hat_raw_bps is None):
            raise InvalidField("p_hat_raw_bps", self.p_hat_raw_bps, "there where p_hat_bps is")
        check_int("latency_us", self.latency_us, 0, INT64_MAX)
