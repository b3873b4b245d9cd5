"""Hold what keeps learning apart from profit: tags, a budget of its own, gates, overrides.

Source: FORMULAS 2.5; decision D24; rows R250, R351 and R352; ADR 0032.
"""

from enum import StrEnum

import msgspec

from detent.contracts.checks import (
    check_count,
    check_int,
    check_name,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.units import INT32_MAX, INT64_MAX, PPM_ONE

# A book is for learning, or for profit, for ever: its name says which.
LEARNING_BOOK_PREFIX = "learning/"
OVERRIDE_TTL_MS_MAX = 24 * 3_600_000

# The gates of the seeds' forerunner, in the order in which they are asked.
LEARNING_GATES = (
    Reason.MANUAL_OVERRIDE_OFF,
    Reason.DATA_GAP,
    Reason.DATA_QUALITY_ANOMALY,
    Reason.EXCHANGE_ERROR,
    Reason.FEED_LATENCY,
    Reason.SCHEDULED_EVENT_WINDOW,
    Reason.VOLATILITY_SPIKE,
    Reason.LIQUIDITY_THIN,
    Reason.SPREAD_WIDE,
    Reason.SLIPPAGE_ANOMALY,
    Reason.DAILY_LOSS_LIMIT,
    Reason.EXPERIMENT_LOSS_LIMIT,
    Reason.CONSECUTIVE_LOSS_LIMIT,
)
# A person may judge the market to be fit for learning; nobody may raise a loss limit, nor
# call data good that are not there.
OPENABLE_GATES = frozenset(
    {
        Reason.FEED_LATENCY,
        Reason.SCHEDULED_EVENT_WINDOW,
        Reason.VOLATILITY_SPIKE,
        Reason.LIQUIDITY_THIN,
        Reason.SPREAD_WIDE,
        Reason.SLIPPAGE_ANOMALY,
    }
)


class LearningShorts(StrEnum):
    """Says whether a learning book may be short."""

    FORBIDDEN = "forbidden"
    ALLOWED = "allowed"


class OverrideEffect(StrEnum):
    """Says what an override does to the gates."""

    OPEN = "open"
    OFF = "off"


class LearningTags(msgspec.Struct, frozen=True, kw_only=True):
    """Marks a trade as learning, from the signal to the report.

    Attributes:
        experiment_id: Which experiment it belongs to.
        experiment_variant: Which arm of it, or None when it has one only.
    """

    experiment_id: str
    experiment_variant: str | None = None

    def __post_init__(self) -> None:
        """Refuse a mark that names no experiment."""
        check_name("experiment_id", self.experiment_id)
        if self.experiment_variant is not None:
            check_name("experiment_variant", self.experiment_variant)


class LearningBudget(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds what learning may cost; shares are parts per million of equity.

    Attributes:
        daily_loss_ppm: Loss of a day from which on nothing new is begun, above 0.
        experiment_loss_ppm: The same over the life of the experiment.
        position_ppm: Largest weight of one position.
        exposure_ppm: Largest sum of the magnitudes of all positions of the experiment.
        trades_per_day: Entries per day.
        losses_in_a_row: Losing trades in a row from which on nothing new is begun, above 0.
        hold_ms: How long a position may be held.
        shorts: Whether a weight may be below 0.

    Source: the documented example of FORMULAS 2.5; 3 losses in a row as the code there has it.
    """

    daily_loss_ppm: int = 5_000
    experiment_loss_ppm: int = 20_000
    position_ppm: int = 2_500
    exposure_ppm: int = 20_000
    trades_per_day: int = 12
    losses_in_a_row: int = 3
    hold_ms: int = 3_600_000
    shorts: LearningShorts = LearningShorts.FORBIDDEN

    def __post_init__(self) -> None:
        """Refuse bounds outside [0, 1], and loss limits that would hold before any loss."""
        check_int("daily_loss_ppm", self.daily_loss_ppm, 1, PPM_ONE)
        check_int("experiment_loss_ppm", self.experiment_loss_ppm, 1, PPM_ONE)
        check_int("position_ppm", self.position_ppm, 0, PPM_ONE)
        check_int("exposure_ppm", self.exposure_ppm, 0, PPM_ONE)
        check_int("trades_per_day", self.trades_per_day, 0, INT32_MAX)
        check_int("losses_in_a_row", self.losses_in_a_row, 1, INT32_MAX)
        check_int("hold_ms", self.hold_ms, 1, INT64_MAX)


class LearningGates(msgspec.Struct, frozen=True, kw_only=True):
    """Says from where on a condition closes the learning book.

    Attributes:
        volatility_ratio_bps: Volatility over its median, closed from here up.
        volume_ratio_bps: Volume over its median, closed from here down.
        spread_bps: Spread, closed from here up.
        feed_latency_ms: Age of the feed, closed from here up.
        slippage_bps: Slippage of the last fills, closed from here up.

    Source: FORMULAS 2.5 for the first three; R328 and R354 for the others.
    """

    volatility_ratio_bps: int = 30_000
    volume_ratio_bps: int = 3_000
    spread_bps: int = 100
    feed_latency_ms: int = 1_500
    slippage_bps: int = 25

    def __post_init__(self) -> None:
        """Refuse what is no threshold."""
        for name in self.__struct_fields__:
            check_int(name, getattr(self, name), 0 if name == "volume_ratio_bps" else 1, INT32_MAX)


class LearningBook(msgspec.Struct, frozen=True, kw_only=True):
    """Makes a plan a learning plan: its tags, its own budget, its gates."""

    tags: LearningTags
    budget: LearningBudget = LearningBudget()
    gates: LearningGates = LearningGates()


class LearningOverride(msgspec.Struct, frozen=True, kw_only=True):
    """Opens some gates, or closes the book, for a while, in somebody's name.

    Attributes:
        effect: OPEN opens `gates`; OFF closes the book and names none.
        gates: What it opens, of `OPENABLE_GATES`.
        actor: Who asked for it.
        reason: Why.
        issued_ts_ms: When it begins.
        until_ts_ms: When it ends, at most 24 hours later; it does not hold at this instant.
    """

    effect: OverrideEffect
    gates: tuple[Reason, ...]
    actor: str
    reason: str
    issued_ts_ms: int
    until_ts_ms: int

    def __post_init__(self) -> None:
        """Refuse an override without an end, a name or a cause, or of a gate that stays."""
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        check_ts_ms("issued_ts_ms", self.issued_ts_ms)
        check_ts_ms("until_ts_ms", self.until_ts_ms)
        if not 0 < self.until_ts_ms - self.issued_ts_ms <= OVERRIDE_TTL_MS_MAX:
            expected = f"1 to {OVERRIDE_TTL_MS_MAX} ms after issued_ts_ms {self.issued_ts_ms}"
            raise InvalidField("until_ts_ms", self.until_ts_ms, expected)
        low = 1 if self.effect is OverrideEffect.OPEN else 0
        check_count("gates", self.gates, low, low * len(OPENABLE_GATES))
        check_unique("gates", self.gates)
        for gate in self.gates:
            if gate not in OPENABLE_GATES:
                raise InvalidField("gates", gate, f"one of {', '.join(sorted(OPENABLE_GATES))}")

    def holds(self, ts_ms: int) -> bool:
        """Say whether it is in force at an instant."""
        return self.issued_ts_ms <= ts_ms < self.until_ts_ms


class LearningConditions(msgspec.Struct, frozen=True, kw_only=True):
    """States what the strategist measured for a learning plan on one bar.

    Attributes:
        volatility_ratio_bps: Volatility over its median.
        volume_ratio_bps: Volume over its median.
        spread_bps: Spread.
        feed_latency_ms: Age of the feed.
        slippage_bps: Slippage of the last fills; a gain is below 0.
        scheduled_event_count: Scheduled events whose window holds the bar.
        exchange_error_count: Errors of the exchange since the last bar.
        data_gap_count: Bars that are missing.
        data_anomaly_count: Data that failed a check.
        daily_loss_ppm: Loss of the learning book today, at least 0.
        experiment_loss_ppm: Loss of the experiment so far, at least 0.
        losses_in_a_row: Losing trades in a row.
        trades_today: Entries of the learning book today.
        exposure_elsewhere_ppm: Sum of the magnitudes of the experiment's other positions.
        override: What a person opened or closed, or None.
    """

    volatility_ratio_bps: int
    volume_ratio_bps: int
    spread_bps: int
    feed_latency_ms: int
    slippage_bps: int
    scheduled_event_count: int
    exchange_error_count: int
    data_gap_count: int
    data_anomaly_count: int
    daily_loss_ppm: int
    experiment_loss_ppm: int
    losses_in_a_row: int
    trades_today: int
    exposure_elsewhere_ppm: int
    override: LearningOverride | None = None

    def __post_init__(self) -> None:
        """Refuse what was not counted."""
        for name in self.__struct_fields__:
            if name != "override":
                low = -INT32_MAX if name == "slippage_bps" else 0
                check_int(name, getattr(self, name), low, INT32_MAX)


def check_learning_book(book: str, *, learns: bool) -> None:
    """Refuse a book whose name says one thing while what is in it says the other."""
    if book.startswith(LEARNING_BOOK_PREFIX) is not learns:
        expected = f"a name that {'begins' if learns else 'does not begin'} with "
        raise InvalidField("book", book, f"{expected}{LEARNING_BOOK_PREFIX!r}")
