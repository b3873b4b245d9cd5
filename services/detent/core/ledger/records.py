"""Decide the rows of one bar together, each to the record that `record_decision` writes of it.

What most rows of a bar consist of is decided by arrays. What is rare is decided row by row: exits
and what they latch, stand-downs, tighter limits, an equity of its own, emergencies, learning books,
plans that look at the order book.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np

from detent.contracts.decision import (
    DecisionKind,
    DecisionRecord,
    DecisionRow,
    PolicyOutcome,
    SignalRecord,
)
from detent.contracts.plan import OrderStyle, Plan, StandDown
from detent.core.ledger.record import (
    BoundPlan,
    ChainPoint,
    record_decision,
    record_of,
    triggers_known,
)
from detent.core.policy.column_outcomes import (
    ORDER_NONE,
    ORDER_POST_ONLY,
    ORDER_TAKER,
    OutcomeColumns,
    Walked,
    outcomes_of,
)
from detent.core.policy.column_steps import Walk, moves_of
from detent.core.policy.columns import (
    ABSENT,
    EQUITY_SCALE,
    TRIGGER_CODES,
    Asked,
    WantedColumns,
    reasons_of,
    terms_of,
    wanted_columns,
)
from detent.core.policy.decide import state_after
from detent.core.signals.choice import ModelOutcome, choose_signal, policy_signal_bps
from detent.core.signals.proxy import ProxyAnswer

# Arrays cost what they cost however short they are: some 20 rows.
TOGETHER_MIN = 32
# Beyond, a weight times equity might have more digits than a decimal keeps.
CENTS_MAX = 10**15
_STYLES = {
    ORDER_NONE: OrderStyle.NONE,
    ORDER_TAKER: OrderStyle.TAKER,
    ORDER_POST_ONLY: OrderStyle.POST_ONLY,
}


class RowToDecide(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds one row with everything that it is decided from, as `record_decision` takes it."""

    row: DecisionRow
    proxy: ProxyAnswer
    model: ModelOutcome | None
    point: ChainPoint
    standing: StandDown | None


def record_decisions(
    *, bound: BoundPlan, ts_ms: int, kind: DecisionKind, rows: Sequence[RowToDecide]
) -> list[DecisionRecord]:
    """Decide rows of different symbols of one bar and write their records, in their order.

    Args:
        bound: The plan under its binding.
        ts_ms: Close time of the bar.
        kind: Regular decision or emergency.
        rows: What is decided.
    """
    together = _together(bound.plan, kind, rows)
    if len(together) < TOGETHER_MIN:
        together = []
    decided = _decided([rows[at] for at in together], bound, ts_ms) if together else []
    records = dict(zip(together, decided, strict=True))
    return [
        records.get(at)
        or record_decision(
            bound=bound,
            ts_ms=ts_ms,
            kind=kind,
            row=one.row,
            proxy=one.proxy,
            model=one.model,
            point=one.point,
            standing=one.standing,
        )
        for at, one in enumerate(rows)
    ]


def _together(plan: Plan, kind: DecisionKind, rows: Sequence[RowToDecide]) -> list[int]:
    """Give the places of the rows that arrays decide: nothing rare, and of one account."""
    if kind is not DecisionKind.BAR or plan.learning is not None or plan.l2_limits is not None:
        return []
    equity = rows[0].row.position.equity if rows else Decimal(0)
    if _cents(equity) is None:
        return []
    return [
        at
        for at, one in enumerate(rows)
        if one.standing is None
        and one.row.exit_intent is None
        and one.row.risk_overrides is None
        and one.point.state.latched_ts_ms is None
        and one.row.position.equity == equity
    ]


def _cents(equity: Decimal) -> int | None:
    """Count an equity in hundredths; None where arrays would not round as decimals do."""
    cents = Fraction(equity) * EQUITY_SCALE
    return int(cents) if cents.denominator == 1 and cents <= CENTS_MAX else None


def _decided(rows: Sequence[RowToDecide], bound: BoundPlan, ts_ms: int) -> list[DecisionRecord]:
    """Decide rows by arrays and write their records."""
    signals = [
        choose_signal(
            binding=bound.binding,
            trigger_state=one.row.trigger_state,
            proxy=one.proxy,
            model=one.model,
        )
        for one in rows
    ]
    outcomes = _outcomes(rows, signals, bound.plan, ts_ms)
    return [
        record_of(
            bound=bound,
            ts_ms=ts_ms,
            kind=DecisionKind.BAR,
            row=one.row,
            point=one.point,
            signal=signal,
            outcome=outcome,
            state_after=state_after(
                one.point.state,
                ts_ms=ts_ms,
                current_ppm=one.row.position.current_weight_ppm,
                final_ppm=outcome.target_weight_final_ppm,
                trades=outcome.order_style is not OrderStyle.NONE,
                latched_ts_ms=None,
            ),
            stand_down=None,
        )
        for one, signal, outcome in zip(rows, signals, outcomes, strict=True)
    ]


def _outcomes(
    rows: Sequence[RowToDecide], signals: Sequence[SignalRecord], plan: Plan, ts_ms: int
) -> list[PolicyOutcome]:
    """Decide the weights of rows of one account, all of them on one bar."""
    terms = terms_of(plan, tuple(one.row.symbol for one in rows))
    asked = _asked(plan, rows, signals)
    wanted = wanted_columns(terms, asked)
    moves = moves_of(terms, asked, wanted)
    last_ms = [one.point.state.last_rebalance_ts_ms for one in rows]
    rebalanced_ms = np.array([ABSENT if last is None else last for last in last_ms])
    never = rebalanced_ms == ABSENT
    walk = Walk(terms, np.where(never, -np.inf, rebalanced_ms + terms.cooldown_ms))
    held_ppm = [one.row.position.current_weight_ppm for one in rows]
    current_ppm = np.array(held_ppm, dtype=np.float64)
    cents = _cents(rows[0].row.position.equity)
    assert cents is not None, "rows that are decided together are of one account"
    final_ppm, trades = walk.step(
        moves, 0, ts_ms=ts_ms, current_ppm=current_ppm, equity_cents=cents
    )
    walked = Walked(
        ts_ms=np.array([ts_ms]),
        equity_cents=[cents],
        current_ppm=current_ppm[np.newaxis],
        final_ppm=final_ppm[np.newaxis],
        trades=trades[np.newaxis],
        present=np.ones((1, len(rows)), dtype=np.bool_),
    )
    outcomes = outcomes_of(
        terms,
        asked,
        wanted_reasons=wanted.reasons,
        moves=moves,
        walked=walked,
        rebalanced_before=rebalanced_ms[np.newaxis],
    )
    return _outcome_rows(wanted, outcomes)


def _asked(plan: Plan, rows: Sequence[RowToDecide], signals: Sequence[SignalRecord]) -> Asked:
    """Give what is asked of policy on one bar, arrays of shape (1, s)."""
    strengths = [policy_signal_bps(signal) for signal in signals]
    usable = [strength is not None for strength in strengths]
    return Asked(
        trigger=np.array([[TRIGGER_CODES[one.row.trigger_state] for one in rows]], dtype=np.int8),
        known=np.array([[triggers_known(plan, one.row) for one in rows]]),
        strength_bps=np.array([[strength or 0 for strength in strengths]], dtype=np.int64),
        usable=np.array([usable]),
        vol_hat_ppm=np.array([[one.row.vol_hat_ppm or 0 for one in rows]], dtype=np.int64),
    )


def _outcome_rows(wanted: WantedColumns, outcomes: OutcomeColumns) -> list[PolicyOutcome]:
    """Give the outcomes of one bar row by row."""
    masks = outcomes.reasons[0].tolist()
    reasons = {mask: reasons_of(mask) for mask in set(masks)}
    columns = zip(
        masks,
        wanted.signal_deadbanded_ppm[0].tolist(),
        wanted.vol_scale_ppm[0].tolist(),
        wanted.target_weight_raw_ppm[0].tolist(),
        outcomes.target_weight_policy_ppm[0].tolist(),
        outcomes.target_weight_final_ppm[0].tolist(),
        outcomes.delta_weight_ppm[0].tolist(),
        outcomes.order_style[0].tolist(),
        outcomes.tier[0].tolist(),
        strict=True,
    )
    return [
        PolicyOutcome(
            signal_deadbanded_ppm=deadbanded_ppm,
            vol_scale_ppm=scale_ppm,
            target_weight_raw_ppm=raw_ppm,
            target_weight_policy_ppm=policy_ppm,
            target_weight_capped_ppm=final_ppm,
            target_weight_final_ppm=final_ppm,
            delta_weight_ppm=delta_ppm,
            order_style=_STYLES[style],
            reasons=reasons[mask],
            precedence_tier=tier,
            cooldown_recommendation_bars=None,
        )
        for (
            mask,
            deadbanded_ppm,
            scale_ppm,
            raw_ppm,
            policy_ppm,
            final_ppm,
            delta_ppm,
            style,
            tier,
        ) in columns
    ]
