"""Say why: the outcomes, reasons and states of bars over which `column_steps` has walked."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.reasons import Reason
from detent.contracts.units import PPM_ONE
from detent.core.policy.column_steps import (
    Moves,
    decayed,
    least_change_ppm,
    within_permission,
    worth_ppm,
)
from detent.core.policy.columns import (
    ABSENT,
    BIT,
    CAPPED_BIT,
    INACTIVE,
    Asked,
    Flags,
    Floats,
    Ints,
    Terms,
    add_reason,
)
from detent.core.policy.overrides import TIER_POLICY, TIER_RISK_CAP

ORDER_NONE, ORDER_TAKER, ORDER_POST_ONLY = 0, 1, 2
_TAKER, _POST_ONLY = np.int8(ORDER_TAKER), np.int8(ORDER_POST_ONLY)
_RISK_CAP, _POLICY = np.int8(TIER_RISK_CAP), np.int8(TIER_POLICY)


class Walked(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what the walk over some bars gave.

    Attributes:
        ts_ms: Shape (t,), int64.
        equity_cents: Of the account at each bar, t integers.
        current_ppm: Shape (t, s), float64: what was held.
        final_ppm: Shape (t, s), float64: the final weights.
        trades: Shape (t, s), bool: which rows rebalance.
        present: Shape (t, s), bool: which rows there are; the others leave no trace.
    """

    ts_ms: Ints
    equity_cents: list[int]
    current_ppm: Floats
    final_ppm: Floats
    trades: Flags
    present: Flags


class StateColumns(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what policy remembers; int64 arrays of shape (t, s), or (s,) between stretches.

    Attributes:
        last_rebalance_ts_ms: `ABSENT` before the first.
        entry_ts_ms: `ABSENT` where nothing is held, or nobody knows since when.
        trade_set_count: Trade sets begun.
        reversing_from_ppm: 0 where no reversal is waited for; see `PolicyState`.
    """

    last_rebalance_ts_ms: Ints
    entry_ts_ms: Ints
    trade_set_count: Ints
    reversing_from_ppm: Ints

    def last(self) -> "StateColumns":
        """Give the state after the last bar."""
        return StateColumns(
            last_rebalance_ts_ms=self.last_rebalance_ts_ms[-1],
            entry_ts_ms=self.entry_ts_ms[-1],
            trade_set_count=self.trade_set_count[-1],
            reversing_from_ppm=self.reversing_from_ppm[-1],
        )


def states_initial(symbol_count: int) -> StateColumns:
    """Give the state before any bar."""
    return StateColumns(
        last_rebalance_ts_ms=np.full(symbol_count, ABSENT),
        entry_ts_ms=np.full(symbol_count, ABSENT),
        trade_set_count=np.zeros(symbol_count, dtype=np.int64),
        reversing_from_ppm=np.zeros(symbol_count, dtype=np.int64),
    )


def states_after(walked: Walked, before: StateColumns) -> StateColumns:
    """Fold the outcomes of some bars into the state; see `state_after`.

    Args:
        walked: The bars, oldest first.
        before: The state before them, arrays of shape (s,).
    """
    ts_ms = walked.ts_ms[:, np.newaxis]
    present = walked.present
    was_held = walked.current_ppm.astype(np.bool_)
    is_held = np.where(walked.trades, walked.final_ppm.astype(np.bool_), was_held)
    rebalanced = _held_on(
        np.where(present & walked.trades, ts_ms, ABSENT), before.last_rebalance_ts_ms
    )
    enters, leaves = present & is_held & ~was_held, present & ~is_held
    reversing_from_ppm, turned = _reversals(walked, before.reversing_from_ppm)
    # An entry lasts until nothing is held: whichever of the two came last says which it is.
    marks = np.where(enters | leaves, 2 * ts_ms + enters, ABSENT)
    if turned is not None:
        asked_ms = before_each(rebalanced, before.last_rebalance_ts_ms)
        marks = np.where(turned & ~leaves, 2 * asked_ms + 1, marks)
        enters |= turned
    begun = np.where(before.entry_ts_ms == ABSENT, ABSENT, 2 * before.entry_ts_ms + 1)
    latest = _held_on(marks, begun)
    entry_ts_ms = np.where((latest != ABSENT) & (latest & 1 == 1), latest >> 1, ABSENT)
    # A position that was there before the plan is its first set.
    count = before.trade_set_count + np.cumsum(enters, axis=0)
    inherited = present & was_held & (count == 0)
    if np.count_nonzero(inherited):
        count += np.maximum.accumulate(inherited, axis=0)
    return StateColumns(
        last_rebalance_ts_ms=rebalanced,
        entry_ts_ms=entry_ts_ms,
        trade_set_count=count,
        reversing_from_ppm=reversing_from_ppm,
    )


def _reversals(walked: Walked, before_ppm: Ints) -> tuple[Ints, Flags | None]:
    """Follow reversals from the bar that asks for one to the bar that sees it; see `state_seen`.

    Args:
        walked: The bars, oldest first.
        before_ppm: Shape (s,): what was being turned around before them.

    Returns:
        What is being turned around after each bar, and where a position is seen to have turned,
        or None for nowhere; both of shape (t, s).
    """
    current_ppm, present = walked.current_ppm, walked.present
    trades = present & walked.trades
    asks = trades & (current_ppm * walked.final_ppm < 0.0)
    if not np.count_nonzero(asks) and not np.count_nonzero(before_ppm):
        return np.zeros(asks.shape, dtype=np.int64), None
    bars = np.arange(len(asks))[:, np.newaxis]
    # What the last rebalance was to turn around, 0 for nothing,
    traded_at = np.maximum.accumulate(np.where(trades, bars, -1), axis=0)
    asked_ppm = np.where(asks, current_ppm.astype(np.int64), 0)
    from_ppm = np.take_along_axis(asked_ppm, np.maximum(traded_at, 0), axis=0)
    from_ppm = np.where(traded_at >= 0, from_ppm, before_ppm)
    # is waited for until, after it, something else is held.
    other = present & (current_ppm * before_each(from_ppm, before_ppm) <= 0.0)
    other_at = np.maximum.accumulate(np.where(other, bars, -1), axis=0)
    waits_ppm = np.where(other_at > traded_at, 0, from_ppm)
    turned = present & (current_ppm * before_each(waits_ppm, before_ppm) < 0.0)
    return waits_ppm, turned


def before_each(after: Ints, before: Ints) -> Ints:
    """Give what was remembered before each bar: shape (t, s), of what was after each."""
    return np.vstack([before, after[:-1]])


def _held_on(marks: Ints, before: Ints) -> Ints:
    """Carry each mark on until the next one; marks grow with time and `ABSENT` is none."""
    return np.maximum(np.maximum.accumulate(marks, axis=0), before)


class OutcomeColumns(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds outcomes as `PolicyOutcome` names them; arrays of shape (t, s).

    What the signal asked for is in `WantedColumns`; no row has a cooldown recommendation, which
    only an emergency gives.

    Attributes:
        target_weight_policy_ppm: int64, after smoothing or decay.
        target_weight_final_ppm: int64; the capped weight is the same.
        delta_weight_ppm: int64, final minus current.
        order_style: int8, `ORDER_NONE`, `ORDER_TAKER` or `ORDER_POST_ONLY`.
        reasons: int64, bit masks.
        tier: int8, precedence tier.
    """

    target_weight_policy_ppm: Ints
    target_weight_final_ppm: Ints
    delta_weight_ppm: Ints
    order_style: NDArray[np.int8]
    reasons: Ints
    tier: NDArray[np.int8]


def outcomes_of(
    terms: Terms,
    asked: Asked,
    *,
    wanted_reasons: Ints,
    moves: Moves,
    walked: Walked,
    rebalanced_before: Ints,
) -> OutcomeColumns:
    """Give the outcomes of some bars with every rule that changed a weight or withheld a trade.

    Args:
        terms: What the plan says.
        asked: What was asked.
        wanted_reasons: Shape (t, s), bit masks of `WantedColumns`.
        moves: As the walk was given them.
        walked: What the walk gave.
        rebalanced_before: Shape (t, s), last rebalance before each bar.
    """
    current_ppm, final_ppm = walked.current_ppm, walked.final_ppm
    moved_ppm = np.rint((moves.keep_ppm * current_ppm + moves.add) / PPM_ONE)
    if any(moves.any_leaves):
        worth = _column([worth_ppm(terms, equity) for equity in walked.equity_cents])
        moved_ppm = np.where(moves.leaves, decayed(terms, current_ppm, worth), moved_ppm)
    policy_ppm = within_permission(terms, moves, slice(None), moved_ppm)
    reasons = wanted_reasons.copy()
    _add_smoothing(reasons, asked, moves, current_ppm, moved_ppm)
    limited = _limit_reasons(terms, policy_ppm)
    reasons |= limited
    _add_withheld(
        reasons,
        terms,
        moves,
        walked=walked,
        policy_ppm=policy_ppm,
        rebalanced_before=rebalanced_before,
    )
    style = np.where(moves.exempt, _TAKER, _POST_ONLY)
    return OutcomeColumns(
        target_weight_policy_ppm=policy_ppm.astype(np.int64),
        target_weight_final_ppm=final_ppm.astype(np.int64),
        delta_weight_ppm=(final_ppm - current_ppm).astype(np.int64),
        order_style=style * walked.trades,
        reasons=reasons,
        tier=np.where(limited != 0, _RISK_CAP, _POLICY),
    )


def _column(numbers: list[int]) -> Floats:
    """Give one number per bar in a form that meets arrays of shape (t, s)."""
    return np.array(numbers, dtype=np.float64)[:, np.newaxis]


def _add_smoothing(
    reasons: Ints, asked: Asked, moves: Moves, current_ppm: Floats, moved_ppm: Floats
) -> None:
    """Name what smoothing, a hold or an exit did."""
    add_reason(reasons, asked.trigger == INACTIVE, BIT[Reason.TRIGGER_INACTIVE])
    if any(moves.any_leaves):
        decays = moves.leaves & (np.abs(current_ppm) > 0.0)
        add_reason(reasons, decays, BIT[Reason.EXIT_DECAY])
        add_reason(reasons, decays & ~(np.abs(moved_ppm) > 0.0), BIT[Reason.EXIT_SNAPPED])
    add_reason(reasons, moves.hold & ~asked.known, BIT[Reason.TRIGGER_UNKNOWN])
    add_reason(reasons, moves.hold, BIT[Reason.HOLD_OR_REDUCE])
    turned = np.where(moves.high_open, moved_ppm < 0.0, moves.low_open & (moved_ppm > 0.0))
    add_reason(reasons, turned & ~moves.hold & ~moves.leaves, BIT[Reason.SIGN_CLAMPED])


def _limit_reasons(terms: Terms, policy_ppm: Floats) -> Ints:
    """Name the limits that bind, each after those before it."""
    magnitude_ppm = np.abs(policy_ppm)
    limits: tuple[tuple[int, float | Floats], ...] = (
        (CAPPED_BIT, float(terms.config.w_max_ppm)),
        (BIT[Reason.RISK_CAP_SYMBOL], terms.symbol_cap_ppm),
        (BIT[Reason.RISK_CAP_PLAN], float(terms.plan_cap_ppm)),
    )
    reasons = np.zeros(policy_ppm.shape, dtype=np.int64)
    if np.count_nonzero(magnitude_ppm > terms.cap_ppm):
        for bit, cap_ppm in limits:
            add_reason(reasons, magnitude_ppm > cap_ppm, bit)
            magnitude_ppm = np.minimum(magnitude_ppm, cap_ppm)
    if not terms.allowed.all():
        reasons |= ~terms.allowed * BIT[Reason.SYMBOL_NOT_ALLOWED]
    return reasons


def _add_withheld(
    reasons: Ints,
    terms: Terms,
    moves: Moves,
    *,
    walked: Walked,
    policy_ppm: Floats,
    rebalanced_before: Ints,
) -> None:
    """Name every rule that withheld a trade."""
    change_ppm = np.abs(walked.final_ppm - walked.current_ppm)
    judged = (change_ppm > 0.0) & ~moves.exempt
    least = _column([least_change_ppm(terms, equity) for equity in walked.equity_cents])
    within = change_ppm <= terms.config.epsilon_w_ppm
    add_reason(reasons, judged & within, BIT[Reason.REBALANCE_BAND])
    add_reason(reasons, judged & (change_ppm < least), BIT[Reason.MIN_NOTIONAL])
    if terms.cooldown_ms:
        since_ms = walked.ts_ms[:, np.newaxis] - terms.cooldown_ms
        cools = judged & (rebalanced_before != ABSENT) & (rebalanced_before > since_ms)
        shrinks = np.abs(walked.final_ppm) < np.abs(walked.current_ppm)
        urgent = shrinks & (np.abs(policy_ppm) > terms.cap_ppm)
        add_reason(reasons, cools & ~urgent, BIT[Reason.REBALANCE_COOLDOWN])
