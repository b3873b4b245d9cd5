"""Builds fills and outcomes, so that a test states only what it is about."""

from decimal import Decimal
from typing import Any

from msgspec import structs
from tests.builders import HOUR_MS, START_MS, SYMBOL, plan_of

from detent.contracts.learning import LearningBook, LearningConditions, LearningTags
from detent.contracts.plan import Plan
from detent.contracts.trades import Fill, Outcome, OutcomeLabel, Side

TAGS = LearningTags(experiment_id="wider-stops", experiment_variant="b")
LEARNING_BOOK = "learning/lab"


def fill_of(
    fill_id: str,
    side: Side = Side.BUY,
    quantity: Decimal | str = "1",
    price: Decimal | str = "100",
    *,
    bar: int = 0,
    fee: Decimal | str = "0",
    **changes: Any,
) -> Fill:
    """Give a fill of the plan `plan` at the close of a bar."""
    fill = Fill(
        fill_id=fill_id,
        plan_id="plan",
        book="book-plan",
        symbol=SYMBOL,
        ts_ms=START_MS + bar * HOUR_MS,
        sequence=0,
        side=side,
        quantity=Decimal(quantity),
        price=Decimal(price),
        fee=Decimal(fee),
    )
    return structs.replace(fill, **changes)


def outcome_of(
    bar: int = 0, label: OutcomeLabel | None = OutcomeLabel.UP, **changes: Any
) -> Outcome:
    """Give the outcome of a bar of the plan `plan`, four bars later."""
    outcome = Outcome(
        plan_id="plan",
        symbol=SYMBOL,
        ts_ms=START_MS + bar * HOUR_MS,
        known_ts_ms=START_MS + (bar + 4) * HOUR_MS,
        horizon_bars=4,
        label=OutcomeLabel.UP,
    )
    return structs.replace(outcome, label=label, **changes)


def learning_plan(plan_id: str = "plan", **changes: Any) -> Plan:
    """Give a learning plan in a learning book."""
    book = LearningBook(tags=TAGS)
    return plan_of(plan_id, **({"book": LEARNING_BOOK, "learning": book} | changes))


def calm(**changes: Any) -> LearningConditions:
    """Give conditions under which every gate is open and nothing of the budget is used."""
    return structs.replace(
        LearningConditions(
            volatility_ratio_bps=10_000,
            volume_ratio_bps=10_000,
            spread_bps=1,
            feed_latency_ms=0,
            slippage_bps=0,
            scheduled_event_count=0,
            exchange_error_count=0,
            data_gap_count=0,
            data_anomaly_count=0,
            daily_loss_ppm=0,
            experiment_loss_ppm=0,
            losses_in_a_row=0,
            trades_today=0,
            exposure_elsewhere_ppm=0,
        ),
        **changes,
    )
