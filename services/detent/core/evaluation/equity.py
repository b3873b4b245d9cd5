"""Measure what an account did: return, Sharpe ratio, drawdown, volatility, turnover, cost.

Every measure is of the bars of one equity curve. One that is not defined, because there are too
few bars or nothing moved, is NaN: a gate has to say what it does then.

Source: QUANT A7; Sharpe 1994; Sortino and van der Meer 1991.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import InvalidField

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Two returns at least have a spread.
_RETURNS_MIN = 2
_DAY_MS = 86_400_000
# What moves every day of the year, as crypto does.
_YEAR_MS = 365 * _DAY_MS


class EquityCurve(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds an account bar by bar; all arrays have shape (n,), n at least 1.

    Attributes:
        ts_ms: int64, close of each bar, Unix milliseconds, increasing.
        equity: float64, quote units after the bar's orders, above 0.
        traded: float64, absolute notional traded in the bar, quote units.
        fees: float64, quote units paid in the bar.
        slippage: float64, quote units lost in the bar against the arrival price; negative
            where the fill was better than it.
        trades: int64, fills in the bar.
    """

    ts_ms: Ints
    equity: Floats
    traded: Floats
    fees: Floats
    slippage: Floats
    trades: Ints

    def __post_init__(self) -> None:
        """Refuse columns of several lengths, times out of order and an account that is gone."""
        lengths = {name: getattr(self, name).shape for name in self.__struct_fields__}
        if len(set(lengths.values())) != 1 or self.ts_ms.ndim != 1 or len(self.ts_ms) == 0:
            raise InvalidField("equity_curve", lengths, "columns of one length, at least one bar")
        if np.any(np.diff(self.ts_ms) <= 0):
            raise InvalidField("ts_ms", "bars out of order", "each bar later than the one before")
        # Written so that a NaN, which is above nothing, is refused too.
        if not np.all(self.equity > 0.0) or not np.all(np.isfinite(self.equity)):
            raise InvalidField("equity", float(np.min(self.equity)), "finite and above 0")

    @property
    def starting_equity(self) -> float:
        """Give the equity before the first bar's orders, quote units.

        Nothing is held before the first bar: only what its orders cost separates the two.
        """
        return float(self.equity[0] + self.fees[0] + self.slippage[0])


def curve_after(curve: EquityCurve, ts_ms: int) -> EquityCurve | None:
    """Give what an account did after an instant; None where it has no later bar.

    Args:
        curve: The account.
        ts_ms: The instant, Unix milliseconds; a bar that closes at it is not after it.

    Returns:
        The later bars and, where there is one, the bar before them: it stands for the start,
        with its equity and without its orders, so that every later return is what it was.
    """
    first = int(np.searchsorted(curve.ts_ms, ts_ms, side="right"))
    if first == len(curve.ts_ms):
        return None
    if first == 0:
        return curve
    kept = {name: getattr(curve, name)[first - 1 :].copy() for name in curve.__struct_fields__}
    for name in ("traded", "fees", "slippage", "trades"):
        kept[name][0] = 0
    return EquityCurve(**kept)


def periods_in_year(bar_interval_ms: int) -> float:
    """Give the bars of a year of 365 days, for a market that never closes."""
    return _YEAR_MS / bar_interval_ms


def bar_returns(curve: EquityCurve) -> Floats:
    """Give the simple return of each bar, shape (n,); the first is from the starting equity."""
    before = np.concatenate(([curve.starting_equity], curve.equity[:-1]))
    return np.asarray(curve.equity / before - 1.0, dtype=np.float64)


def mean_return(returns: Floats, periods_per_year: float) -> float:
    """Give the mean return of a bar times the bars of a year; NaN without bars."""
    return float(np.mean(returns) * periods_per_year) if len(returns) else math.nan


def pnl_volatility(returns: Floats, periods_per_year: float) -> float:
    """Give the annualised standard deviation (ddof 1) of returns; NaN below two bars."""
    if len(returns) < _RETURNS_MIN:
        return math.nan
    return float(np.std(returns, ddof=1) * math.sqrt(periods_per_year))


def sharpe(returns: Floats, periods_per_year: float) -> float:
    """Give the annualised Sharpe ratio over a riskless rate of 0.

    Args:
        returns: Shape (n,), simple returns of bars.
        periods_per_year: Bars in a year.

    Returns:
        mean / std(ddof 1) * sqrt(periods); NaN below two bars or where nothing varies.
    """
    volatility = pnl_volatility(returns, periods_per_year)
    # Equal returns differ by rounding alone; a ratio to that is a number of no meaning.
    if not volatility > 0.0 or np.all(returns == returns[0]):
        return math.nan
    return mean_return(returns, periods_per_year) / volatility


def sortino(returns: Floats, periods_per_year: float) -> float:
    """Give the annualised Sortino ratio over a target of 0; NaN where nothing was lost.

    The downside deviation is the root of the mean square of the losses over *all* bars.
    """
    if len(returns) < _RETURNS_MIN:
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    if not downside > 0.0:
        return math.nan
    return float(np.mean(returns)) / downside * math.sqrt(periods_per_year)


def drawdowns(returns: Floats) -> Floats:
    """Give how far each bar ends below the highest equity so far, shape (n,), in [-1, 0].

    The starting equity is a peak like any other.
    """
    grown = np.cumprod(1.0 + returns)
    peaks = np.maximum.accumulate(np.concatenate(([1.0], grown)))[1:]
    return np.asarray(grown / peaks - 1.0, dtype=np.float64)


def max_drawdown(returns: Floats) -> float:
    """Give the deepest drawdown, a number in [-1, 0]; 0 without bars."""
    return float(np.min(drawdowns(returns), initial=0.0))


def bar_turnover(curve: EquityCurve) -> Floats:
    """Give the two-way turnover of each bar, shape (n,): notional over equity before the orders.

    This is the drift-adjusted turnover: what the market moved by itself was not traded.
    """
    before = curve.equity + curve.fees + curve.slippage
    return np.asarray(curve.traded / before, dtype=np.float64)


def turnover_per_day(curve: EquityCurve, bar_interval_ms: int) -> float:
    """Give the two-way turnover of a day: purchases and sales over equity."""
    days = len(curve.ts_ms) * bar_interval_ms / _DAY_MS
    return float(np.sum(bar_turnover(curve))) / days


def slippage_bps(curve: EquityCurve) -> float:
    """Give the slippage of what was traded, basis points of notional; NaN without trades."""
    traded = float(np.sum(curve.traded))
    return float(np.sum(curve.slippage)) / traded * 10_000.0 if traded > 0.0 else math.nan


def direction_flips(weights: Floats) -> int:
    """Count how often a weight turned from one side to the other, flat bars not counted.

    Args:
        weights: Shape (n, k): n bars of k symbols.

    Source: QUANT A7, churn.
    """
    return sum(_flips(column[np.abs(column) > 0.0]) for column in weights.T)


def _flips(signed: Floats) -> int:
    return int(np.count_nonzero(np.sign(signed[1:]) != np.sign(signed[:-1])))


def churn_per_day(curve: EquityCurve, bar_interval_ms: int) -> float:
    """Give the fills of a day: every move of a weight beyond the band is one."""
    days = len(curve.ts_ms) * bar_interval_ms / _DAY_MS
    return float(np.sum(curve.trades)) / days
