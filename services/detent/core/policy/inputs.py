"""Hold everything that policy sees of one bar; what is not here cannot influence a weight."""

from decimal import Decimal

import msgspec

from detent.contracts.plan import (
    ExitIntent,
    PolicyConfig,
    PolicyState,
    RiskLimits,
    RiskOverrides,
    StandDown,
    TriggerState,
)
from detent.contracts.reasons import Reason
from detent.core.policy.learning import LearningTerms


class PolicyInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one bar of one symbol as policy sees it.

    Attributes:
        symbol: Instrument.
        ts_ms: Close time of the bar.
        bar_interval_ms: Length of the bar.
        trigger_state: Permission and direction.
        triggers_known: Whether every active trigger is one of the plan's, and at least one
            is active where a direction is allowed.
        signal_strength_bps: Magnitude, [0, 10000]; None when nobody had a usable answer.
        vol_hat_ppm: Volatility in the plan's unit; None or not positive means unknown.
        current_weight_ppm: What is held, signed.
        equity: Account currency, above 0.
        exit_intent: An exit that is asked for, or None.
        emergency_only: Whether this decision may do nothing but an emergency exit.
        overrides: Tighter limits for this bar, or None.
        config: How a signal becomes a weight.
        limits: What bounds every weight.
        state: What policy remembers.
        learning: What the learning book permits; None is for profit.
        further_exit_intents: Further exits that are asked for on the bar.
        stand_down: The one in force, beside that of `overrides`, or None.
        no_new_long: Why no long exposure may be added; empty when it may.
        no_new_short: Why no short exposure may be added; empty when it may.
    """

    symbol: str
    ts_ms: int
    bar_interval_ms: int
    trigger_state: TriggerState
    triggers_known: bool
    signal_strength_bps: int | None
    vol_hat_ppm: int | None
    current_weight_ppm: int
    equity: Decimal
    exit_intent: ExitIntent | None
    emergency_only: bool
    overrides: RiskOverrides | None
    config: PolicyConfig
    limits: RiskLimits
    state: PolicyState
    learning: LearningTerms | None = None
    further_exit_intents: tuple[ExitIntent, ...] = ()
    stand_down: StandDown | None = None
    no_new_long: tuple[Reason, ...] = ()
    no_new_short: tuple[Reason, ...] = ()

    def bars_since(self, ts_ms: int) -> int:
        """Count the bars from an earlier instant to this bar, on data time."""
        return (self.ts_ms - ts_ms) // self.bar_interval_ms
