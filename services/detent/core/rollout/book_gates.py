"""Say whether the order book lets new exposure in, for each side, and why not.

Two gates in the order of their strictness: the entry gate looks at depth and impact, the
execution guard at age, depth and impact of what would be executed now. Neither holds an exit
back: what they give bounds new exposure only, and policy applies it.
"""

import msgspec

from detent.contracts.plan import L2Limits, MissingL2
from detent.contracts.reasons import Reason
from detent.contracts.snapshots import L2FeatureSnapshot


class BookGates(msgspec.Struct, frozen=True, kw_only=True):
    """Holds why the book keeps new exposure out; a side is open when it says nothing."""

    no_new_long: tuple[Reason, ...] = ()
    no_new_short: tuple[Reason, ...] = ()


OPEN = BookGates()
MISSING = BookGates(no_new_long=(Reason.EXEC_L2_MISSING,), no_new_short=(Reason.EXEC_L2_MISSING,))


class _Side(msgspec.Struct, frozen=True, kw_only=True):
    """Names the codes of one side of the book."""

    insufficient: Reason
    impact_high: Reason
    blocked: Reason
    exec_insufficient: Reason
    exec_impact_high: Reason


_BUY = _Side(
    insufficient=Reason.L2_INSUFFICIENT_DEPTH_BUY,
    impact_high=Reason.L2_IMPACT_BUY_HIGH,
    blocked=Reason.L2_BLOCK_BUY,
    exec_insufficient=Reason.EXEC_L2_INSUFFICIENT_DEPTH_BUY,
    exec_impact_high=Reason.EXEC_L2_IMPACT_BUY_HIGH,
)
_SELL = _Side(
    insufficient=Reason.L2_INSUFFICIENT_DEPTH_SELL,
    impact_high=Reason.L2_IMPACT_SELL_HIGH,
    blocked=Reason.L2_BLOCK_SELL,
    exec_insufficient=Reason.EXEC_L2_INSUFFICIENT_DEPTH_SELL,
    exec_impact_high=Reason.EXEC_L2_IMPACT_SELL_HIGH,
)


def book_gates(limits: L2Limits | None, book: L2FeatureSnapshot | None, *, ts_ms: int) -> BookGates:
    """Judge both sides of a book.

    Args:
        limits: What the plan asks of a book; None asks nothing.
        book: The book at the close of the bar, or None when none is known.
        ts_ms: Close time of the bar, Unix milliseconds; a later book is not of the bar.

    Returns:
        For each side the codes in order of evaluation: of the entry gate the first that
        holds and the side's block, then of the execution guard the first that holds.

    Source: FORMULAS 1.2 (ADR-057, ADR-062); rows R327 and R328.
    """
    if limits is None:
        return OPEN
    if book is None:
        return MISSING if limits.missing_l2 is MissingL2.BLOCK else OPEN
    stale = not 0 <= ts_ms - book.ts_ms <= limits.exec_max_age_ms
    return BookGates(
        no_new_long=_closed(
            limits,
            _BUY,
            stale=stale,
            insufficient=book.impact_buy_top_n_insufficient_depth == 1,
            impact_bps=book.impact_buy_top_n_bps,
        ),
        no_new_short=_closed(
            limits,
            _SELL,
            stale=stale,
            insufficient=book.impact_sell_top_n_insufficient_depth == 1,
            impact_bps=book.impact_sell_top_n_bps,
        ),
    )


def _closed(
    limits: L2Limits, side: _Side, *, stale: bool, insufficient: bool, impact_bps: int
) -> tuple[Reason, ...]:
    """Give the codes of one side: an impact says nothing where the depth does not suffice."""
    reasons: list[Reason] = []
    if insufficient:
        reasons += [side.insufficient, side.blocked]
    elif impact_bps >= limits.entry_impact_bps:
        reasons += [side.impact_high, side.blocked]
    if stale:
        reasons.append(Reason.EXEC_L2_STALE)
    elif insufficient:
        reasons.append(side.exec_insufficient)
    elif impact_bps >= limits.exec_impact_bps:
        reasons.append(side.exec_impact_high)
    return tuple(reasons)
