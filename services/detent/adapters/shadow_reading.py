"""Read of a ledger what a comparison of shadows needs: their rows, the bars, how these turned out.

Outcomes on the record come first. A bar that has none yet is settled here from the closes of its
book, a horizon later, as the monitor does it: a plan under the proxy has no horizon of its own,
but its shadow has one.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from detent.adapters.ledger_reading import LedgerReader, canonical_texts, plan_rows
from detent.adapters.plan_texts import bound_of
from detent.contracts.canonical import parse_json
from detent.contracts.decimals import parse_decimal
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import DataInvalid
from detent.contracts.json_codec import from_json
from detent.contracts.shadow import ShadowSignal
from detent.contracts.trades import Outcome
from detent.core.evaluation.joining import BarKey, labels_by_key
from detent.core.evaluation.shadow_report import key_of
from detent.core.ledger.record import BoundPlan

ROWS_MAX = 2_000_000


class ShadowLedger(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one pass read.

    Attributes:
        signals: Rows of `shadow_signals`, in the order of writing.
        labels: Whether a bar went up, for the bars of these rows that are settled.
        decided: Every regular bar of their plans.
    """

    signals: Sequence[ShadowSignal]
    labels: Mapping[BarKey, bool]
    decided: Sequence[BarKey]


def read_shadows(reader: LedgerReader, *, plan_id: str = "", rollout_id: str = "") -> ShadowLedger:
    """Read.

    Args:
        reader: Where the ledger lies.
        plan_id: Only this plan; empty for all.
        rollout_id: Only plans of this rollout; empty for all.

    Raises:
        DataInvalid: There are more rows than fit in memory.
        LedgerUnavailable: The ledger cannot be read.
    """
    signals = []
    for text in canonical_texts(reader, "shadow_signals", plan_id):
        one = from_json(ShadowSignal, parse_json("shadow_signals", text))
        if not rollout_id or (one.rollout is not None and one.rollout.rollout_id == rollout_id):
            signals.append(one)
        if len(signals) > ROWS_MAX:
            raise DataInvalid(f"found more than {ROWS_MAX} shadow rows, expected --plan-id")
    plans = _plans(reader, {one.plan_id for one in signals})
    bars = _bars(reader, {bound.plan.book for bound in plans.values()})
    outcomes = [
        from_json(Outcome, parse_json("outcomes", text))
        for text in canonical_texts(reader, "outcomes", plan_id)
    ]
    return ShadowLedger(
        signals=signals,
        labels=_settled(signals, plans, bars) | labels_by_key(outcomes),
        decided=[(bar.plan_id, bar.symbol, bar.ts_ms) for bar in bars if bar.plan_id in plans],
    )


class _Bar(msgspec.Struct, frozen=True):
    """Is one regular bar of some plan, with the book that it belongs to."""

    plan_id: str
    symbol: str
    ts_ms: int
    close: str
    book: str


def _plans(reader: LedgerReader, wanted: set[str]) -> dict[str, BoundPlan]:
    return {row[0]: bound_of(row[1:]) for row in plan_rows(reader) if row[0] in wanted}


def _bars(reader: LedgerReader, books: set[str]) -> list[_Bar]:
    rows = reader.query(
        "SELECT plan_id, symbol, ts_ms, bar_close, book FROM bar_decisions WHERE kind = ?",
        (DecisionKind.BAR.value,),
    )
    return [bar for bar in (_Bar(*row) for row in rows) if bar.book in books]


def _settled(
    signals: Sequence[ShadowSignal], plans: Mapping[str, BoundPlan], bars: Sequence[_Bar]
) -> dict[BarKey, bool]:
    """Say whether bars went up whose horizon has passed, by the closes of their plans' books."""
    closes = {(bar.book, bar.symbol, bar.ts_ms): bar.close for bar in bars}
    labels: dict[BarKey, bool] = {}
    for one in signals:
        bound = plans.get(one.plan_id)
        if bound is None:
            continue
        horizon_bars = one.horizon_bars or bound.binding.horizon_bars
        place = (bound.plan.book, one.symbol)
        now = closes.get((*place, one.ts_ms))
        later = closes.get((*place, one.ts_ms + horizon_bars * bound.plan.bar_interval_ms))
        if horizon_bars and now is not None and later is not None:
            labels[key_of(one)] = _price(later) > _price(now)
    return labels


def _price(text: str) -> Decimal:
    return parse_decimal("bar_close", text)
