"""Say which gates of a learning book are closed on a bar.

Source: FORMULAS 2.5; row R351; ADR 0032.
"""

from detent.contracts.learning import (
    LEARNING_GATES,
    LearningBook,
    LearningConditions,
    OverrideEffect,
)
from detent.contracts.reasons import Reason


def closed_gates(
    book: LearningBook, conditions: LearningConditions | None, *, ts_ms: int
) -> tuple[Reason, ...]:
    """Give every gate that is closed, in the order in which they are asked.

    Args:
        book: Thresholds and budget.
        conditions: What was measured; None closes the book, because nothing was.
        ts_ms: Close of the bar; an override holds by data time.
    """
    if conditions is None:
        return (Reason.DATA_GAP,)
    gates, budget, found = book.gates, book.budget, conditions
    override = found.override
    if override is not None and not override.holds(ts_ms):
        override = None
    closed = {
        Reason.MANUAL_OVERRIDE_OFF: override is not None and override.effect is OverrideEffect.OFF,
        Reason.DATA_GAP: found.data_gap_count > 0,
        Reason.DATA_QUALITY_ANOMALY: found.data_anomaly_count > 0,
        Reason.EXCHANGE_ERROR: found.exchange_error_count > 0,
        Reason.FEED_LATENCY: found.feed_latency_ms >= gates.feed_latency_ms,
        Reason.SCHEDULED_EVENT_WINDOW: found.scheduled_event_count > 0,
        Reason.VOLATILITY_SPIKE: found.volatility_ratio_bps >= gates.volatility_ratio_bps,
        Reason.LIQUIDITY_THIN: found.volume_ratio_bps <= gates.volume_ratio_bps,
        Reason.SPREAD_WIDE: found.spread_bps >= gates.spread_bps,
        Reason.SLIPPAGE_ANOMALY: found.slippage_bps >= gates.slippage_bps,
        Reason.DAILY_LOSS_LIMIT: found.daily_loss_ppm >= budget.daily_loss_ppm,
        Reason.EXPERIMENT_LOSS_LIMIT: found.experiment_loss_ppm >= budget.experiment_loss_ppm,
        Reason.CONSECUTIVE_LOSS_LIMIT: found.losses_in_a_row >= budget.losses_in_a_row,
    }
    opened = override.gates if override is not None else ()
    return tuple(gate for gate in LEARNING_GATES if closed[gate] and gate not in opened)
