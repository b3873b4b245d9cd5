"""Join what was said of a bar with what became of it, by key, however late it is known.

Source: seed 003, section 12.11; row R259; DESIGN section 3, "State".
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.trades import Outcome, OutcomeLabel

BarKey = tuple[str, str, int]


class WatchedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a monitor needs of a plan.

    Attributes:
        plan_id: The plan.
        binding_hash: Hash of what it is bound to.
        binding: What it is bound to; the proxy's has no horizon.
        bar_interval_ms: Length of its bars.
    """

    plan_id: str
    binding_hash: str
    binding: ModelBinding
    bar_interval_ms: int


class DecidedBar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the ledger says of one decided bar.

    Attributes:
        plan_id: Plan that decided it.
        book: Book of the plan.
        symbol: Instrument.
        ts_ms: Close of the bar.
        close: What it closed at.
        model_p_bps: Calibrated answer of the model; None when it gave none.
        proxy_p_bps: The proxy's answer.
        features_hash: Names what the model was given; None when nothing was built.
    """

    plan_id: str
    book: str
    symbol: str
    ts_ms: int
    close: Decimal
    model_p_bps: int | None
    proxy_p_bps: int
    features_hash: str | None

    @property
    def key(self) -> BarKey:
        """Give what an outcome finds it by."""
        return (self.plan_id, self.symbol, self.ts_ms)


def settled_outcomes(
    bars: Sequence[DecidedBar], plans: Mapping[str, WatchedPlan], held: Iterable[BarKey]
) -> list[Outcome]:
    """Say how bars turned out whose horizon has passed, from the closes of the same book.

    A bar is settled by the one that closed exactly the horizon later. Where the book has none at
    that time (it was not asked, or the market was shut) nothing is known, and nothing is said: a
    later close would answer another question.

    Args:
        bars: Decided bars.
        plans: Their plans; a bar of a plan without a horizon is passed over.
        held: Keys of the outcomes that the ledger has.

    Returns:
        New outcomes, in the order of the bars.
    """
    known = set(held)
    closes = {(bar.book, bar.symbol, bar.ts_ms): bar.close for bar in bars}
    found = []
    for bar in bars:
        plan = plans.get(bar.plan_id)
        if plan is None or plan.binding.horizon_bars < 1 or bar.key in known:
            continue
        known_ts_ms = bar.ts_ms + plan.binding.horizon_bars * plan.bar_interval_ms
        later = closes.get((bar.book, bar.symbol, known_ts_ms))
        if later is not None:
            outcome = Outcome(
                plan_id=bar.plan_id,
                symbol=bar.symbol,
                ts_ms=bar.ts_ms,
                known_ts_ms=known_ts_ms,
                horizon_bars=plan.binding.horizon_bars,
                label=_label(bar.close, later),
            )
            found.append(outcome)
    return found


def labels_by_key(outcomes: Iterable[Outcome]) -> dict[BarKey, bool]:
    """Give whether each bar went up, by its key; brackets have no direction."""
    return {
        (one.plan_id, one.symbol, one.ts_ms): one.label is OutcomeLabel.UP
        for one in outcomes
        if one.label is not None
    }


def _label(close: Decimal, later: Decimal) -> OutcomeLabel:
    if later == close:
        return OutcomeLabel.FLAT
    return OutcomeLabel.UP if later > close else OutcomeLabel.DOWN
