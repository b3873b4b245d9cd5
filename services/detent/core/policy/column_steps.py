"""Walk many symbols over bars: what is held and what is asked for become a weight and an order.

Only what depends on the bar before is computed bar by bar; what a record says besides comes from
`column_outcomes`, for a whole stretch. Weights are float64 here and hold exact integers: no
product leaves 2**53, and a quotient by a million is rounded half to even as the integers are,
because it lies at least a millionth away from a tie that it is not.
"""

import msgspec
import numpy as np

from detent.contracts.reasons import Reason
from detent.contracts.units import PPM_ONE
from detent.core.policy.columns import (
    BIT,
    EXIT_ONLY,
    INACTIVE,
    LONG,
    SHORT,
    Asked,
    Flags,
    Floats,
    Terms,
    WantedColumns,
)


class Moves(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds how each row moves from what is held, before it is known; shape (t, s).

    Attributes:
        keep_ppm: float64, share of what is held that stays.
        add: float64, what is added to it, in squared parts per million.
        low_ppm: float64, least final weight.
        high_ppm: float64, largest final weight.
        ease: float64, 1 where every change is traded, else infinite.
        exempt: bool, the same: no band, no least notional, no cooldown.
        hold: bool, whether a weight may only be held or reduced.
        leaves: bool, whether the trigger only lets out.
        low_open: bool, whether a weight may be below 0.
        high_open: bool, whether a weight may be above 0.
        any_leaves: Whether any row of a bar does, one element per bar.
        any_exempt: Whether any row of a bar is exempt, one element per bar.
        plain: Whether no row of a bar keeps anything of what is held, is exempt, or asks for
            more than its bound, one element per bar: its weights are known before the walk.
        plain_ppm: float64, the final weights of plain bars; of no meaning elsewhere.
    """

    keep_ppm: Floats
    add: Floats
    low_ppm: Floats
    high_ppm: Floats
    ease: Floats
    exempt: Flags
    hold: Flags
    leaves: Flags
    low_open: Flags
    high_open: Flags
    any_leaves: list[bool]
    any_exempt: list[bool]
    plain: list[bool]
    plain_ppm: Floats


def moves_of(terms: Terms, asked: Asked, wanted: WantedColumns) -> Moves:
    """Prepare the walk over some bars."""
    alpha_ppm = terms.config.alpha_ppm
    trigger = asked.trigger
    leaves, inactive = trigger == EXIT_ONLY, trigger == INACTIVE
    directed = ~leaves & ~inactive
    unscaled = (wanted.reasons & BIT[Reason.VOL_INVALID] != 0) & (wanted.signal_deadbanded_ppm > 0)
    hold = directed & (~asked.known | ~asked.usable | unscaled)
    cap_ppm = terms.cap_ppm
    exempt = leaves | inactive | ~terms.allowed
    low_open, high_open = (trigger == SHORT) | leaves, (trigger == LONG) | leaves
    keep_ppm = np.where(hold, float(PPM_ONE), float(PPM_ONE - alpha_ppm))
    add = np.where(hold, 0.0, (alpha_ppm * wanted.target_weight_raw_ppm).astype(np.float64))
    low_ppm, high_ppm = np.where(low_open, -cap_ppm, 0.0), np.where(high_open, cap_ppm, 0.0)
    asked_ppm = np.rint(add / PPM_ONE)
    plain = (keep_ppm <= 0.0) & ~exempt & (np.abs(asked_ppm) <= cap_ppm)
    return Moves(
        keep_ppm=keep_ppm,
        add=add,
        low_ppm=low_ppm,
        high_ppm=high_ppm,
        ease=np.where(exempt, 1.0, np.inf),
        exempt=exempt,
        hold=hold,
        leaves=leaves,
        low_open=low_open,
        high_open=high_open,
        any_leaves=leaves.any(axis=1).tolist(),
        any_exempt=exempt.any(axis=1).tolist(),
        plain=plain.all(axis=1).tolist(),
        plain_ppm=np.minimum(np.maximum(asked_ppm, low_ppm), high_ppm),
    )


class Walk:
    """Holds what the walk over bars remembers, one element per symbol."""

    __slots__ = ("_cap_ppm", "_free_from_ms", "terms")

    def __init__(self, terms: Terms, free_from_ms: Floats | None = None) -> None:
        """Start after some rebalances, or after none.

        Args:
            terms: What the plan says.
            free_from_ms: Shape (s,), whole numbers in float64, which compares with a number
                twice as quickly as int64: from when each symbol may be rebalanced; -inf for at
                any time.
        """
        self.terms = terms
        if free_from_ms is None:
            free_from_ms = np.full(len(terms.allowed), -np.inf)
        self._free_from_ms = free_from_ms
        self._cap_ppm = terms.cap_ppm

    def step(
        self, moves: Moves, bar: int, *, ts_ms: int, current_ppm: Floats, equity_cents: int
    ) -> tuple[Floats, Flags]:
        """Decide one bar; nothing is remembered until `traded` says what was.

        Args:
            moves: Of a stretch of bars.
            bar: Place of the bar in it.
            ts_ms: Close time of the bar.
            current_ppm: Shape (s,): what is held.
            equity_cents: Of the account, hundredths, above 0.

        Returns:
            The final weights and which rows trade, both of shape (s,).
        """
        terms = self.terms
        least_ppm = float(
            max(terms.config.epsilon_w_ppm + 1, least_change_ppm(terms, equity_cents))
        )
        if moves.plain[bar]:
            final_ppm = moves.plain_ppm[bar]
            trades = np.abs(final_ppm - current_ppm) >= least_ppm
            # Of two flags, the greater one is the first without the second.
            return final_ppm, trades > self._rests(ts_ms) if terms.cooldown_ms else trades
        moved = moves.keep_ppm[bar] * current_ppm
        moved += moves.add[bar]
        moved /= PPM_ONE
        np.rint(moved, out=moved)
        if moves.any_leaves[bar]:
            left_ppm = decayed(terms, current_ppm, worth_ppm(terms, equity_cents))
            moved = np.where(moves.leaves[bar], left_ppm, moved)
        final_ppm = np.maximum(moved, moves.low_ppm[bar])
        np.minimum(final_ppm, moves.high_ppm[bar], out=final_ppm)
        change_ppm = final_ppm - current_ppm
        np.abs(change_ppm, out=change_ppm)
        if moves.any_exempt[bar]:
            trades = change_ppm >= np.minimum(moves.ease[bar], least_ppm)
        else:
            trades = change_ppm >= least_ppm
        if terms.cooldown_ms:
            trades = self._cooled(
                moves,
                bar,
                ts_ms=ts_ms,
                trades=trades,
                moved=moved,
                final_ppm=final_ppm,
                current_ppm=current_ppm,
            )
        return final_ppm, trades

    def traded(self, trades: Flags, ts_ms: int) -> None:
        """Remember which rows of a bar were rebalanced."""
        if self.terms.cooldown_ms:
            np.putmask(self._free_from_ms, trades, float(ts_ms + self.terms.cooldown_ms))

    def _rests(self, ts_ms: int) -> Flags:
        """Give the rows whose cooldown is not over."""
        rests: Flags = self._free_from_ms > float(ts_ms)
        return rests

    def _cooled(
        self,
        moves: Moves,
        bar: int,
        *,
        ts_ms: int,
        trades: Flags,
        moved: Floats,
        final_ppm: Floats,
        current_ppm: Floats,
    ) -> Flags:
        """Give the rows that trade and need not wait for a cooldown."""
        waits = self._rests(ts_ms) & trades
        if not np.count_nonzero(waits):
            return trades
        if moves.any_exempt[bar]:
            waits &= ~moves.exempt[bar]
        if np.count_nonzero(moved != final_ppm):
            # A limit that shrinks what is held does not wait.
            policy_ppm = within_permission(self.terms, moves, bar, moved)
            shrinks = np.abs(final_ppm) < np.abs(current_ppm)
            waits &= ~(shrinks & (np.abs(policy_ppm) > self._cap_ppm))
        return trades > waits


def least_change_ppm(terms: Terms, equity_cents: int) -> int:
    """Give the least change of weight whose notional is worth trading."""
    return -(-terms.notional_least // equity_cents)


def worth_ppm(terms: Terms, equity_cents: int) -> int:
    """Give the weight that an exit must leave more than, or it leaves nothing."""
    return max(terms.config.epsilon_w_ppm, terms.notional_worth // equity_cents)


def decayed(terms: Terms, current_ppm: Floats, worth_ppm: int | Floats) -> Floats:
    """Shrink weights strictly, and to 0 once the rest is not worth holding.

    Args:
        terms: What the plan says.
        current_ppm: Shape (..., s).
        worth_ppm: One number, or one per bar: shape (t, 1); see `worth_ppm`.
    """
    size_ppm = np.abs(current_ppm)
    left_ppm = np.rint(float(PPM_ONE - terms.config.alpha_ppm) * size_ppm / PPM_ONE)
    left_ppm = np.minimum(left_ppm, size_ppm - 1.0)
    return np.where(left_ppm > worth_ppm, np.copysign(left_ppm, current_ppm), 0.0)


def within_permission(terms: Terms, moves: Moves, bars: int | slice, moved_ppm: Floats) -> Floats:
    """Give the weights that policy asks for, before any limit: never against the trigger.

    Args:
        terms: What the plan says.
        moves: Of a stretch of bars.
        bars: Which of them.
        moved_ppm: The rounded weights of those bars.
    """
    # What may only be held is bounded at once; what is asked for is, like its sign, as it is.
    size_ppm = np.where(moves.hold[bars], float(terms.config.w_max_ppm), np.inf)
    low_ppm = np.where(moves.low_open[bars], -size_ppm, 0.0)
    high_ppm = np.where(moves.high_open[bars], size_ppm, 0.0)
    return np.minimum(np.maximum(moved_ppm, low_ppm), high_ppm)
