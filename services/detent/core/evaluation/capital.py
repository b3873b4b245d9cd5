"""Judge whether a book has earned more capital: by its closed trade sets, beside a baseline.

Learning sets are nobody's profit (decision D24) and count nowhere here.

Source: FORMULAS 2.2, "Capital gates"; row R354.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.units import INT64_MAX, PPM_ONE
from detent.core.evaluation.gates import GateResult, Verdict, choice, percent, unmeasured
from detent.core.evaluation.profiles import PromotionProfile
from detent.core.ledger.trade_sets import TradeSet

_PPB_ONE = 1_000_000_000
_BPS_X1000 = 10_000_000


class CapitalMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a book did with the capital that it has.

    Attributes:
        resolved_count: What was entered and left again.
        expectancy_ppb: Mean net profit of it over starting equity; None without any.
        drawdown_ppm: Deepest drawdown, at least 0.
        baseline_drawdown_ppm: The baseline's.
        slippage_delta_bps_x1000: Slippage less the baseline's; None where either traded nothing.
    """

    resolved_count: int
    expectancy_ppb: int | None
    drawdown_ppm: int
    baseline_drawdown_ppm: int
    slippage_delta_bps_x1000: int | None

    def __post_init__(self) -> None:
        """Refuse counts and depths of less than nothing."""
        for name in ("resolved_count", "drawdown_ppm", "baseline_drawdown_ppm"):
            check_int(name, getattr(self, name), 0, INT64_MAX)


def measure_capital(
    sets: Sequence[TradeSet],
    *,
    closes: Mapping[str, Decimal],
    equity: Decimal,
    baseline_drawdown_ppm: int,
    baseline_slippage_bps_x1000: int | None,
) -> CapitalMeasures:
    """Measure the sets of profit books beside a baseline.

    Args:
        sets: Every trade set, those of learning books and open ones too.
        closes: Close of the bar by the hash of the decision that asked for a fill.
        equity: What the books began with, above 0.
        baseline_drawdown_ppm: Deepest drawdown that the baseline had.
        baseline_slippage_bps_x1000: What trading cost it against the close; None where it
            traded nothing.
    """
    profit = [one for one in sets if not one.learning]
    resolved = sorted((one for one in profit if one.closed), key=_ended)
    nets = [Fraction(one.net) for one in resolved]
    start = Fraction(equity)
    slipped = _slippage_bps_x1000(profit, closes)
    delta = None
    if slipped is not None and baseline_slippage_bps_x1000 is not None:
        delta = slipped - baseline_slippage_bps_x1000
    return CapitalMeasures(
        resolved_count=len(nets),
        expectancy_ppb=round(sum(nets) / len(nets) / start * _PPB_ONE) if nets else None,
        drawdown_ppm=_drawdown_ppm(nets, start),
        baseline_drawdown_ppm=baseline_drawdown_ppm,
        slippage_delta_bps_x1000=delta,
    )


def _ended(one: TradeSet) -> tuple[int, int, str]:
    last = one.legs[-1].fill
    return last.ts_ms, last.sequence, one.trade_set_id


def _drawdown_ppm(nets: Iterable[Fraction], start: Fraction) -> int:
    """Give the deepest fall from a peak, after every set that was resolved; rounded up."""
    equity = peak = start
    deepest = Fraction(0)
    for net in nets:
        equity += net
        peak = max(peak, equity)
        deepest = max(deepest, (peak - equity) / peak)
    return -(-deepest.numerator * PPM_ONE // deepest.denominator)


def _slippage_bps_x1000(sets: Iterable[TradeSet], closes: Mapping[str, Decimal]) -> int | None:
    """Give what fills cost against the close that they were decided at; None without any."""
    worse = notional = Fraction(0)
    for one in sets:
        for leg in one.legs:
            close = closes.get(leg.fill.record_hash or "")
            if close is None:
                continue
            sign = 1 if leg.fill.signed_quantity > 0 else -1
            worse += sign * Fraction(leg.fill.price - close) * Fraction(leg.quantity)
            notional += Fraction(close) * Fraction(leg.quantity)
    return round(worse / notional * _BPS_X1000) if notional else None


def capital_gates(
    profile: PromotionProfile, found: CapitalMeasures | None, *, resolved: str
) -> tuple[GateResult, ...]:
    """Judge by what the forerunner asked before it gave capital.

    Args:
        profile: The bounds.
        found: What was measured; None measured nothing.
        resolved: What was counted.
    """
    ratio_below = profile.drawdown_ratio_below_ppm
    slippage_below = profile.slippage_below_bps_x1000
    bounds = (
        ("capital_resolved", f">= {profile.trade_count_min}", resolved),
        ("capital_expectancy", "> 0", f"net profit of {resolved}, of starting equity"),
        ("capital_drawdown", f"< {ratio_below / PPM_ONE:g}", "drawdown over the baseline's"),
        ("capital_slippage", f"< {_basis_points(slippage_below)}", "slippage less the baseline's"),
    )
    if found is None:
        return tuple(unmeasured(*bound) for bound in bounds)
    count, gain, delta = bounds[0], bounds[1], found.slippage_delta_bps_x1000
    deepest, allowed = found.drawdown_ppm, found.baseline_drawdown_ppm
    ratio = f"{deepest / allowed:.4f}" if allowed else f"{percent(deepest)} over none"
    # Multiplied out: a baseline that lost nothing has no ratio, and allows no loss.
    stays = deepest * PPM_ONE < ratio_below * allowed or deepest == 0
    is_enough = found.resolved_count >= profile.trade_count_min
    return (
        GateResult(
            name=count[0],
            number=str(found.resolved_count),
            bound=count[1],
            verdict=Verdict.PASSED if is_enough else Verdict.INSUFFICIENT,
            evidence=count[2],
        ),
        unmeasured(*gain)
        if found.expectancy_ppb is None
        else choice(
            gain[0],
            f"{found.expectancy_ppb / _PPB_ONE:.7%}",
            *gain[1:],
            passes=found.expectancy_ppb > 0,
        ),
        choice(bounds[2][0], ratio, *bounds[2][1:], passes=stays),
        unmeasured(*bounds[3])
        if delta is None
        else choice(
            bounds[3][0], _basis_points(delta), *bounds[3][1:], passes=delta < slippage_below
        ),
    )


def _basis_points(value_x1000: int) -> str:
    return f"{value_x1000 / 1000:.3f} bps"
