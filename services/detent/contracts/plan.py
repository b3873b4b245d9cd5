"""Hold the strategist's immutable intent and what bounds it."""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_hash
from detent.contracts.checks import (
    check_count,
    check_hash64,
    check_int,
    check_name,
    check_symbol,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.learning import LearningBook, check_learning_book
from detent.contracts.market import INTERVAL_MS_MAX
from detent.contracts.units import BPS_ONE, INT32_MAX, INT64_MAX, PPM_ONE, ROWS_MAX

ALPHA_DEFAULT_PPM = 300_000
TRIGGERS_MAX = 256


class TriggerState(StrEnum):
    """Says what the trigger engine permits on a bar."""

    INACTIVE = "inactive"
    LONG_ALLOWED = "long_allowed"
    SHORT_ALLOWED = "short_allowed"
    EXIT_ONLY = "exit_only"


class VolUnit(StrEnum):
    """Says what a volatility is measured over."""

    ANNUALISED = "annualised"
    PER_BAR = "per_bar"


class StandDownSource(StrEnum):
    """Says who asked for a stand-down."""

    JUDGE = "judge"
    OPS = "ops"
    RISK_ENGINE = "risk_engine"


class ExitKind(StrEnum):
    """Says how urgent an exit is, strongest first."""

    EMERGENCY = "emergency"
    RISK_OFF = "risk_off"
    RISK_REDUCE = "risk_reduce"


class MissingL2(StrEnum):
    """Says what a row without an order book means for new exposure."""

    ALLOW = "allow"
    BLOCK = "block"


class OrderStyle(StrEnum):
    """Says how a delta is to be worked; NONE trades nothing."""

    NONE = "none"
    POST_ONLY = "post_only"
    TAKER = "taker"


class PlanStatus(StrEnum):
    """Says whether a plan decides."""

    OPEN = "open"
    CLOSED = "closed"


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """Identifies one trigger by name and by the hash of its parameters."""

    trigger_id: str
    parameters_hash: str

    def __post_init__(self) -> None:
        """Refuse a trigger that cannot be told apart."""
        check_name("trigger_id", self.trigger_id)
        check_hash64("parameters_hash", self.parameters_hash)


class HorizonAlpha(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the smoothing factor of one horizon, (0, 1000000] parts per million."""

    horizon_id: str
    alpha_ppm: int

    def __post_init__(self) -> None:
        """Refuse a factor that never moves; a decay would never end."""
        check_name("horizon_id", self.horizon_id)
        check_int("alpha_ppm", self.alpha_ppm, 1, PPM_ONE)


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a signal becomes a weight; immutable for the life of a plan.

    Attributes:
        horizon_id: Name of the horizon; a model binding must name the same.
        tau_bps: Dead band on signal strength, [0, 10000).
        vol_target_ppm: Volatility target, above 0, in `vol_unit`.
        vol_unit: What volatilities are measured over.
        w_min_ppm: Least magnitude of a weight that is not 0.
        w_max_ppm: Largest magnitude; w_min <= w_max <= 1000000.
        alpha_by_horizon: Smoothing per horizon; 300000 for one that is not listed.
        epsilon_w_ppm: Rebalance band.
        min_trade_notional: Least notional worth trading, account currency.
        rebalance_cooldown_bars: Bars between two rebalances.
        min_hold_bars: Bars that an emergency exit waits after an entry.
        symbol_allowlist: Symbols that may hold a position; empty allows all of the plan.

    Source: seed 002, phase 1; defaults of FORMULAS 2.1.
    """

    SCHEMA: ClassVar[str] = "detent.policy_config.v1"

    horizon_id: str
    tau_bps: int = 1_000
    vol_target_ppm: int = 150_000
    vol_unit: VolUnit = VolUnit.ANNUALISED
    w_min_ppm: int = 20_000
    w_max_ppm: int = 250_000
    alpha_by_horizon: tuple[HorizonAlpha, ...] = ()
    epsilon_w_ppm: int = 5_000
    min_trade_notional: Decimal = Decimal(10)
    rebalance_cooldown_bars: int = 2
    min_hold_bars: int = 4
    symbol_allowlist: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        check_name("horizon_id", self.horizon_id)
        check_int("tau_bps", self.tau_bps, 0, BPS_ONE - 1)
        check_int("vol_target_ppm", self.vol_target_ppm, 1, INT64_MAX)
        check_int("w_max_ppm", self.w_max_ppm, 0, PPM_ONE)
        check_int("w_min_ppm", self.w_min_ppm, 0, self.w_max_ppm)
        check_count("alpha_by_horizon", self.alpha_by_horizon, 0, TRIGGERS_MAX)
        check_unique("alpha_by_horizon", [alpha.horizon_id for alpha in self.alpha_by_horizon])
        check_int("epsilon_w_ppm", self.epsilon_w_ppm, 0, PPM_ONE)
        check_decimal("min_trade_notional", self.min_trade_notional, above_zero=False)
        check_int("rebalance_cooldown_bars", self.rebalance_cooldown_bars, 0, INT32_MAX)
        check_int("min_hold_bars", self.min_hold_bars, 0, INT32_MAX)
        check_count("symbol_allowlist", self.symbol_allowlist, 0, ROWS_MAX)
        check_unique("symbol_allowlist", self.symbol_allowlist)
        for symbol in self.symbol_allowlist:
            check_symbol("symbol_allowlist", symbol)

    @property
    def alpha_ppm(self) -> int:
        """Give the smoothing factor of this config's own horizon."""
        for alpha in self.alpha_by_horizon:
            if alpha.horizon_id == self.horizon_id:
                return alpha.alpha_ppm
        return ALPHA_DEFAULT_PPM

    @property
    def policy_config_hash(self) -> str:
        """Hash the config, in canonical form, to 64 hex."""
        return canonical_hash(self.SCHEMA, to_json(self))


class SymbolCap(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds the weight of one symbol, in parts per million."""

    symbol: str
    max_weight_ppm: int

    def __post_init__(self) -> None:
        """Refuse a bound outside [0, 1]."""
        check_symbol("symbol", self.symbol)
        check_int("max_weight_ppm", self.max_weight_ppm, 0, PPM_ONE)


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds every weight of a plan, in parts per million."""

    max_weight_ppm: int = PPM_ONE
    symbol_caps: tuple[SymbolCap, ...] = ()

    def __post_init__(self) -> None:
        """Refuse bounds outside [0, 1] and two bounds for one symbol."""
        check_int("max_weight_ppm", self.max_weight_ppm, 0, PPM_ONE)
        check_count("symbol_caps", self.symbol_caps, 0, ROWS_MAX)
        check_unique("symbol_caps", [cap.symbol for cap in self.symbol_caps])

    def symbol_cap_ppm(self, symbol: str) -> int | None:
        """Give the bound of one symbol, or None when it has none of its own."""
        for cap in self.symbol_caps:
            if cap.symbol == symbol:
                return cap.max_weight_ppm
        return None


class StandDown(msgspec.Struct, frozen=True, kw_only=True):
    """Keeps a symbol flat until an instant; a state with a cause, not a boolean."""

    until_ts_ms: int
    reason: str
    source: StandDownSource

    def __post_init__(self) -> None:
        """Refuse a stand-down without an end or a cause."""
        check_ts_ms("until_ts_ms", self.until_ts_ms)
        check_text("reason", self.reason)


class RiskOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """Tightens the plan's limits for one bar; it can never loosen them."""

    max_weight_ppm: int | None = None
    stand_down: StandDown | None = None

    def __post_init__(self) -> None:
        """Refuse a bound outside [0, 1]."""
        if self.max_weight_ppm is not None:
            check_int("max_weight_ppm", self.max_weight_ppm, 0, PPM_ONE)


class ExitIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for an exit.

    Attributes:
        kind: How urgent it is.
        exit_rule_id: The rule that fired; an emergency with a blank one is vetoed.
        reduce_ppm: Share of what is held that a RISK_REDUCE gives up, [1, 999999]; None for
            every other kind.
    """

    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"reduce_ppm"})

    kind: ExitKind
    exit_rule_id: str
    reduce_ppm: int | None = None

    def __post_init__(self) -> None:
        """Refuse a rule name that is no text, and a share where none belongs or none is."""
        if self.exit_rule_id.strip(" "):
            check_text("exit_rule_id", self.exit_rule_id)
        if self.kind is ExitKind.RISK_REDUCE:
            if self.reduce_ppm is None:
                raise InvalidField("reduce_ppm", "(missing)", "the share that is given up")
            check_int("reduce_ppm", self.reduce_ppm, 1, PPM_ONE - 1)
        elif self.reduce_ppm is not None:
            raise InvalidField("reduce_ppm", self.reduce_ppm, f"no share for {self.kind}")


class PositionState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """States what the strategist holds: signed weight in ppm of equity, and equity."""

    current_weight_ppm: int
    equity: Decimal

    def __post_init__(self) -> None:
        """Refuse a weight that no arithmetic could hold and equity that is not positive."""
        # A drifted or levered book may exceed 1; a hundred times equity is a unit error.
        check_int("current_weight_ppm", self.current_weight_ppm, -100 * PPM_ONE, 100 * PPM_ONE)
        check_decimal("equity", self.equity, above_zero=True)


class PolicyState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds what policy remembers of one symbol of a plan; a fold over its records.

    Attributes:
        last_target_weight_ppm: Final weight of the last record.
        last_rebalance_ts_ms: Bar of the last decided rebalance.
        entry_ts_ms: Bar on which the position was entered; None when flat.
        trade_set_count: Trade sets begun, flat to flat.
        latched_ts_ms: Bar of the risk-off exit that still keeps new exposure out, or None.
        reversing_from_ppm: Weight that the last rebalance was to turn around; None once the
            position is seen on the other side, flat, or rebalanced again. Until then entry and
            trade set are those of this weight.
    """

    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"latched_ts_ms", "reversing_from_ppm"})

    last_target_weight_ppm: int
    last_rebalance_ts_ms: int | None
    entry_ts_ms: int | None
    trade_set_count: int
    latched_ts_ms: int | None = None
    reversing_from_ppm: int | None = None


STATE_INITIAL = PolicyState(
    last_target_weight_ppm=0, last_rebalance_ts_ms=None, entry_ts_ms=None, trade_set_count=0
)


class L2Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the order book must offer before a bar may add exposure; exits always pass.

    Attributes:
        entry_impact_bps: Impact from which new exposure is blocked, at least 0.
        exec_impact_bps: Impact from which its execution is blocked, at least 0.
        exec_max_age_ms: How old the book may be at the close of the bar, in data time.
        missing_l2: What a row without a book means; it has to be said.

    Source: FORMULAS 1.2 (ADR-057 and ADR-062 of that system); rows R327 and R328.
    """

    missing_l2: MissingL2
    entry_impact_bps: int = 200
    exec_impact_bps: int = 50
    exec_max_age_ms: int = 1_500

    def __post_init__(self) -> None:
        """Refuse thresholds out of range."""
        check_int("entry_impact_bps", self.entry_impact_bps, 0, INT32_MAX)
        check_int("exec_impact_bps", self.exec_impact_bps, 0, INT32_MAX)
        check_int("exec_max_age_ms", self.exec_max_age_ms, 0, INTERVAL_MS_MAX)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """States the strategist's immutable intent.

    Attributes:
        plan_id: Chosen by the strategist, never used twice.
        book: At most one open plan per book and symbol.
        symbols: 1 to 5000, without repeats.
        bar_interval_ms: Length of a bar.
        triggers: What may grant permission.
        policy_config: How a signal becomes a weight.
        risk_limits: What bounds every weight.
        max_feature_age_ms: How old the newest bar and quote may be for a model's answer, in
            data time, 0 to 366 days; None asks for no more than the feature set does. It
            stands here and not in the policy config, because policy sees no feature (P5).
        learning: Makes it a learning plan, whose book is named so; None is for profit (D24).
        l2_limits: What the order book must offer before there is new exposure; None asks
            nothing of it. It stands here for the same reason as `max_feature_age_ms`.
    """

    SCHEMA: ClassVar[str] = "detent.plan.v1"
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset(
        {"max_feature_age_ms", "learning", "l2_limits"}
    )

    plan_id: str
    book: str
    symbols: tuple[str, ...]
    bar_interval_ms: int
    triggers: tuple[Trigger, ...]
    policy_config: PolicyConfig
    risk_limits: RiskLimits = RiskLimits()
    max_feature_age_ms: int | None = None
    learning: LearningBook | None = None
    l2_limits: L2Limits | None = None

    def __post_init__(self) -> None:
        """Refuse a plan without symbols or triggers, and names used twice."""
        check_name("plan_id", self.plan_id)
        check_name("book", self.book)
        check_learning_book(self.book, learns=self.learning is not None)
        check_count("symbols", self.symbols, 1, ROWS_MAX)
        check_unique("symbols", self.symbols)
        for symbol in self.symbols:
            check_symbol("symbols", symbol)
        check_int("bar_interval_ms", self.bar_interval_ms, 1, INTERVAL_MS_MAX)
        check_count("triggers", self.triggers, 1, TRIGGERS_MAX)
        check_unique("triggers", [trigger.trigger_id for trigger in self.triggers])
        if self.max_feature_age_ms is not None:
            check_int("max_feature_age_ms", self.max_feature_age_ms, 0, INTERVAL_MS_MAX)
        strangers = set(self.policy_config.symbol_allowlist) - set(self.symbols)
        if strangers:
            raise InvalidField("symbol_allowlist", sorted(strangers), "symbols of the plan")
