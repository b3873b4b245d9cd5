"""Count what a back-test did, stretch by stretch: sources, fallbacks, reasons, flips, holds."""

from collections import Counter

import numpy as np

from detent.contracts.units import divide_half_even
from detent.core.ledger.chain import ChainEnd
from detent.core.ledger.summary import ReasonCount, ResultsSummary
from detent.core.policy.column_outcomes import ORDER_NONE
from detent.core.policy.columns import ABSENT, Floats, Ints, reasons_of
from detent.offline.backtesting.engine import Setup, Stretch
from detent.offline.backtesting.signals import REFUSALS


class Tally:
    """Counts decisions; told of every stretch in order.

    Attributes:
        record_count: Decisions.
        model_count: Those that the model answered.
        order_count: Orders that policy decided.
        turnover_ppm: Sum of the moves between final weights, per symbol from flat.
        fallbacks: How often the proxy answered for the model, by reason.
        reasons: How often each rule changed a weight or withheld a trade.
        flip_count: How often a held weight turned from one side to the other.
        closed_count: Positions that were entered and left.
        held_ms: How long those were held in all.
    """

    def __init__(self, setup: Setup) -> None:
        """Start at nothing."""
        symbol_count = len(setup.market.symbols)
        self._setup = setup
        self.record_count = self.model_count = self.order_count = 0
        self.turnover_ppm = self.flip_count = self.closed_count = self.held_ms = 0
        self.fallbacks: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._last_ppm = np.zeros(symbol_count)
        self._side = np.zeros(symbol_count, dtype=np.int8)
        self._since_ms = np.zeros(symbol_count, dtype=np.int64)

    def __call__(self, stretch: Stretch) -> None:
        """Count a stretch."""
        present = stretch.walked.present
        self.record_count += int(np.count_nonzero(present))
        self.order_count += int(np.count_nonzero(stretch.outcomes.order_style != ORDER_NONE))
        model = self._setup.signals.model
        if model is not None:
            codes = model.refusal[stretch.rows][present]
            self.model_count += int(np.count_nonzero(codes == ABSENT))
            for code, count in _counts(codes[codes != ABSENT]):
                self.fallbacks[REFUSALS[code].value] += count
        for mask, count in _counts(stretch.outcomes.reasons[present]):
            for reason in reasons_of(mask):
                self.reasons[reason.value] += count
        self._turn_over(stretch.walked.final_ppm, present)
        self._hold(stretch)

    def _turn_over(self, final_ppm: Floats, present: np.ndarray) -> None:
        """Add the moves between successive final weights of each symbol."""
        if present.all():
            whole = np.vstack([self._last_ppm, final_ppm])
        else:
            whole = np.vstack([self._last_ppm, np.where(present, final_ppm, np.nan)])
            rows = np.arange(len(whole))[:, np.newaxis]
            latest = np.maximum.accumulate(np.where(np.isnan(whole), 0, rows), axis=0)
            whole = np.take_along_axis(whole, latest, axis=0)
        self.turnover_ppm += int(np.abs(np.diff(whole, axis=0)).sum())
        self._last_ppm = whole[-1]

    def _hold(self, stretch: Stretch) -> None:
        """Find the bars on which what is held changes sides, and how long it was held."""
        sides = np.sign(stretch.walked.current_ppm).astype(np.int8)
        before = np.vstack([self._side, sides[:-1]])
        # Symbol by symbol, so that what a change ends began with the one in front of it.
        places, bars = np.nonzero((sides != before).T)
        times_ms: Ints = stretch.walked.ts_ms[bars]
        since_ms = np.concatenate([times_ms[:1], times_ms[:-1]])
        first = np.flatnonzero(np.diff(places, prepend=-1))
        since_ms[first] = self._since_ms[places[first]]
        closes = before[bars, places] != 0
        self.closed_count += int(np.count_nonzero(closes))
        self.held_ms += int((times_ms - since_ms)[closes].sum())
        self.flip_count += int(np.count_nonzero(closes & (sides[bars, places] != 0)))
        # Of several changes the last is kept.
        self._since_ms[places] = times_ms
        self._side = sides[-1]

    @property
    def hold_time_ms_mean(self) -> int | None:
        """Give the mean time that closed positions were held; None when none was."""
        return divide_half_even(self.held_ms, self.closed_count) if self.closed_count else None

    def ledger_summary(self, heads: tuple[ChainEnd, ...]) -> ResultsSummary:
        """Sum up as the ledger does from its records; see `summarise`."""
        times_ms = self._setup.market.ts_ms
        return ResultsSummary(
            plan_id=self._setup.bound.plan.plan_id,
            first_ts_ms=int(times_ms[0]),
            last_ts_ms=int(times_ms[-1]),
            record_count=self.record_count,
            model_count=self.model_count,
            turnover_ppm=self.turnover_ppm,
            fallbacks=reason_counts(self.fallbacks),
            heads=heads,
        )


def reason_counts(found: Counter[str]) -> tuple[ReasonCount, ...]:
    """List counts by reason, in the order of their names."""
    return tuple(
        ReasonCount(reason=reason, record_count=count) for reason, count in sorted(found.items())
    )


def _counts(items: np.ndarray) -> list[tuple[int, int]]:
    values, counts = np.unique(items, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))
