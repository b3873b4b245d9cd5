"""Hold what is asked for a bar, what is answered, and the record of both."""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec
from msgspec import structs

from detent.contracts.binding import SignalSource
from detent.contracts.caller_feature import CallerFeature, check_caller_features
from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import (
    check_count,
    check_int,
    check_name,
    check_symbol,
    check_ts_ms,
    check_unique,
)
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_canonical
from detent.contracts.learning import LearningConditions, LearningTags
from detent.contracts.plan import (
    TRIGGERS_MAX,
    ExitIntent,
    OrderStyle,
    PolicyState,
    PositionState,
    RiskOverrides,
    StandDown,
    TriggerState,
    VolUnit,
)
from detent.contracts.reasons import Reason
from detent.contracts.replanning import CarriedState
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.contracts.units import INT64_MAX

GENESIS_HASH = "0" * 64
FURTHER_EXITS_MAX = 16


class DecisionKind(StrEnum):
    """Separates a bar's regular decision from its emergency."""

    BAR = "bar"
    EMERGENCY = "emergency"


# The records of a bar are kept by the thousand until shadows were asked about them. They are
# trees of values without a cycle: not for the collector to walk (gc=False) while others are made.
# So is everything else that there is one of per row, here and in a caller's process.
class DecisionRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """States one symbol's bar as the strategist sees it.

    Attributes:
        symbol: Instrument.
        bar_close: Close of the bar, above 0.
        trigger_state: What the trigger engine permits.
        active_trigger_ids: Triggers that are active.
        exit_intent: An exit that is asked for, or None.
        position: What is held.
        vol_hat_ppm: Volatility forecast; None or not positive means unknown.
        vol_unit: What it is measured over.
        risk_overrides: Tighter limits for this bar, or None.
        caller_features: What only the strategist knows and the model is given, at most
            `CALLER_FEATURES_MAX`, each name once; kept by name, in whatever order they came.
        learning: What was measured for a learning plan, or None.
        l2_snapshot: The order book at the close of the bar, for the plan's `l2_limits`.
        further_exit_intents: Further exits asked for on the bar, at most `FURTHER_EXITS_MAX`.
    """

    JSON_GROWN: ClassVar[frozenset[str]] = frozenset(
        {"caller_features", "l2_snapshot", "further_exit_intents", "learning"}
    )

    symbol: str
    bar_close: Decimal
    trigger_state: TriggerState
    active_trigger_ids: tuple[str, ...]
    exit_intent: ExitIntent | None
    position: PositionState
    vol_hat_ppm: int | None
    vol_unit: VolUnit
    risk_overrides: RiskOverrides | None
    caller_features: tuple[CallerFeature, ...] = ()
    learning: LearningConditions | None = None
    l2_snapshot: L2FeatureSnapshot | None = None
    further_exit_intents: tuple[ExitIntent, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a row that is not a bar of one symbol."""
        check_symbol("symbol", self.symbol)
        check_decimal("bar_close", self.bar_close, above_zero=True)
        check_count("active_trigger_ids", self.active_trigger_ids, 0, TRIGGERS_MAX)
        check_unique("active_trigger_ids", self.active_trigger_ids)
        for trigger_id in self.active_trigger_ids:
            check_name("active_trigger_ids", trigger_id)
        if self.vol_hat_ppm is not None:
            check_int("vol_hat_ppm", self.vol_hat_ppm, -INT64_MAX, INT64_MAX)
        if self.caller_features != ():
            check_caller_features("caller_features", self.caller_features, low=1)
            # One question has one text, whatever order it was asked in.
            by_name = tuple(sorted(self.caller_features, key=lambda one: one.name))
            structs.force_setattr(self, "caller_features", by_name)
        if self.l2_snapshot is not None and self.l2_snapshot.symbol != self.symbol:
            raise InvalidField("l2_snapshot.symbol", self.l2_snapshot.symbol, self.symbol)
        if self.further_exit_intents != ():
            check_count("further_exit_intents", self.further_exit_intents, 1, FURTHER_EXITS_MAX)
            if self.exit_intent is None:
                raise InvalidField("exit_intent", "(missing)", "the first of the exits")


class SignalRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Says which signal answered a bar, with the provenance of both.

    Attributes:
        signal_source: Which source gave `p_hat_bps`.
        fallback_reason: Why the proxy answered for a bound model.
        model_id: Bound model; None for a proxy plan, like the three hashes below.
        model_version_hash: Bound manifest.
        feature_version: Bound feature set.
        calibration_version: Bound calibration.
        features_hash: Hash of what the model was given; None when nothing was built.
        p_hat_raw_bps: Uncalibrated answer of the model.
        p_hat_calibrated_bps: Calibrated answer of the model.
        proxy_version: Hash of the proxy's parameters.
        proxy_p_hat_bps: The proxy's answer, computed on every bar.
        proxy_reason: Why the proxy answered 5000.
        p_hat_bps: The probability that was used.
        signal_strength_bps: The only number that crosses into policy.
    """

    signal_source: SignalSource
    fallback_reason: Reason | None
    model_id: str | None
    model_version_hash: str | None
    feature_version: str | None
    calibration_version: str | None
    features_hash: str | None
    p_hat_raw_bps: int | None
    p_hat_calibrated_bps: int | None
    proxy_version: str
    proxy_p_hat_bps: int
    proxy_reason: Reason | None
    p_hat_bps: int
    signal_strength_bps: int


class PolicyOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Says how a signal became a weight; all weights are signed parts per million.

    Attributes:
        signal_deadbanded_ppm: Signal strength after the dead band.
        vol_scale_ppm: Volatility scale, [0, 1000000].
        target_weight_raw_ppm: What signal and volatility ask for.
        target_weight_policy_ppm: After smoothing or decay.
        target_weight_capped_ppm: After the risk limits.
        target_weight_final_ppm: After every override.
        delta_weight_ppm: Final minus current.
        order_style: How to work the delta; NONE when this bar does not rebalance.
        reasons: Every rule that changed the weight or withheld the trade, in order.
        precedence_tier: 1 emergency, 2 stand-down, 3 risk cap, 4 policy.
        cooldown_recommendation_bars: Bars without an entry after an emergency, or None.
    """

    signal_deadbanded_ppm: int
    vol_scale_ppm: int
    target_weight_raw_ppm: int
    target_weight_policy_ppm: int
    target_weight_capped_ppm: int
    target_weight_final_ppm: int
    delta_weight_ppm: int
    order_style: OrderStyle
    reasons: tuple[Reason, ...]
    precedence_tier: int
    cooldown_recommendation_bars: int | None


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Accounts for one bar of one symbol of one plan, completely.

    It holds no wall clock and no latency, so that a replay gives the same bytes. The field
    `record_hash` is derived: it is the SHA-256 of the canonical JSON of the others. `learning`
    holds the tags of the plan's experiment; None is for profit. `stand_down` holds the one in
    force that ends last, of those that stand and the row's own. `carried` holds where the symbol
    stood under the plan that this one replaced; only a first record has it.
    """

    SCHEMA: ClassVar[str] = "detent.decision_record.v1"
    DERIVED: ClassVar[frozenset[str]] = frozenset({"record_hash"})
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"learning", "stand_down", "carried"})

    binding_hash: str
    plan_id: str
    book: str
    ts_ms: int
    kind: DecisionKind
    sequence: int
    previous_hash: str
    policy_config_hash: str
    trade_set_id: str
    row: DecisionRow
    signal: SignalRecord
    outcome: PolicyOutcome
    state_after: PolicyState
    valid_until_ts_ms: int
    learning: LearningTags | None = None
    stand_down: StandDown | None = None
    carried: CarriedState | None = None

    @property
    def canonical(self) -> bytes:
        """Give the bytes that the ledger stores and the chain hashes."""
        return to_canonical(self)

    @property
    def record_hash(self) -> str:
        """Hash the canonical bytes to 64 hex."""
        return sha256_hex(self.canonical)


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Carries the part of a record that a strategist acts on.

    `record_hash` is empty when the client answered by itself and nothing is durable yet. Every
    order and fill of the decision carries `learning`.
    """

    symbol: str
    ts_ms: int
    kind: DecisionKind
    target_weight_final_ppm: int
    target_weight_raw_ppm: int
    delta_weight_ppm: int
    order_style: OrderStyle
    signal_source: SignalSource
    fallback_reason: Reason | None
    reasons: tuple[Reason, ...]
    signal_strength_bps: int
    p_hat_bps: int
    valid_until_ts_ms: int
    trade_set_id: str
    record_hash: str
    learning: LearningTags | None = None


def decision_of(record: DecisionRecord, record_hash: str) -> Decision:
    """Give the part of a record that a strategist acts on."""
    outcome = record.outcome
    return Decision(
        symbol=record.row.symbol,
        ts_ms=record.ts_ms,
        kind=record.kind,
        target_weight_final_ppm=outcome.target_weight_final_ppm,
        target_weight_raw_ppm=outcome.target_weight_raw_ppm,
        delta_weight_ppm=outcome.delta_weight_ppm,
        order_style=outcome.order_style,
        signal_source=record.signal.signal_source,
        fallback_reason=record.signal.fallback_reason,
        reasons=outcome.reasons,
        signal_strength_bps=record.signal.signal_strength_bps,
        p_hat_bps=record.signal.p_hat_bps,
        valid_until_ts_ms=record.valid_until_ts_ms,
        trade_set_id=record.trade_set_id,
        record_hash=record_hash,
        learning=record.learning,
    )


class LocalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an answer that the client gave by itself while no service was reachable."""

    ts_ms: int
    kind: DecisionKind
    row: DecisionRow
    target_weight_final_ppm: int
    reason: Reason

    def __post_init__(self) -> None:
        """Refuse an answer of no bar, and one that raised exposure: a client may hold or reduce."""
        check_ts_ms("ts_ms", self.ts_ms)
        held_ppm, final_ppm = self.row.position.current_weight_ppm, self.target_weight_final_ppm
        if abs(final_ppm) > abs(held_ppm) or final_ppm * held_ppm < 0:
            expected = f"at most {abs(held_ppm)}, on the side of {held_ppm}"
            raise InvalidField("target_weight_final_ppm", final_ppm, expected)
