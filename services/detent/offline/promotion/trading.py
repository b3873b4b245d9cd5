"""Measure what an account did in a back-test, beside the proxy's over the same bars."""

import math

import numpy as np

from detent.contracts.errors import InvalidField
from detent.core.evaluation.deflated_sharpe import deflated_sharpe, return_moments
from detent.core.evaluation.equity import (
    EquityCurve,
    bar_returns,
    bar_turnover,
    max_drawdown,
    periods_in_year,
    pnl_volatility,
    sharpe,
    slippage_bps,
    turnover_per_day,
)
from detent.core.evaluation.measures import AccountMeasures, TradingMeasures
from detent.core.evaluation.paired_loss import Ints, upper_bound
from detent.core.evaluation.scores import Floats
from detent.offline.promotion.scores import PPB_ONE, RESAMPLES, ppm, resampled_bars

_THOUSAND = 1_000
_BPS_ONE = 10_000.0


def measure_trading(
    model: EquityCurve,
    proxy: EquityCurve,
    *,
    bar_interval_ms: int,
    horizon_bars: int,
    trial_count: int | None,
    resamples: int = RESAMPLES,
) -> TradingMeasures:
    """Compare two accounts bar by bar.

    Args:
        model: The candidate's.
        proxy: The proxy's, over the same bars.
        bar_interval_ms: Length of a bar.
        horizon_bars: How far ahead a label looks.
        trial_count: Trials that the candidate is the best of; None where nobody counted.
        resamples: How often bars are drawn anew.

    Raises:
        InvalidField: The accounts are not of the same bars.
    """
    if not np.array_equal(model.ts_ms, proxy.ts_ms):
        found = f"{len(model.ts_ms)} and {len(proxy.ts_ms)} bars"
        raise InvalidField("equity_curves", found, "the same bars in both back-tests")
    returns, proxy_returns = bar_returns(model), bar_returns(proxy)
    moments = return_moments(returns)
    counted = trial_count or None
    turned, turned_upper = _turnover(
        bar_turnover(model), bar_turnover(proxy), horizon_bars, resamples
    )
    slipped, slipped_upper = _slippage(model, proxy, horizon_bars, resamples)
    fallen, fallen_upper = _drawdown(returns, proxy_returns, horizon_bars, resamples)
    return TradingMeasures(
        model=measure_account(model, bar_interval_ms),
        proxy=measure_account(proxy, bar_interval_ms),
        turnover_ratio_ppm=turned,
        turnover_ratio_upper_ppm=turned_upper,
        slippage_difference_bps_x1000=slipped,
        slippage_difference_upper_bps_x1000=slipped_upper,
        drawdown_difference_ppm=fallen,
        drawdown_difference_upper_ppm=fallen_upper,
        trial_count=counted,
        deflated_sharpe_ppm=(
            None if moments is None or counted is None else ppm(deflated_sharpe(moments, counted))
        ),
    )


def measure_account(curve: EquityCurve, bar_interval_ms: int) -> AccountMeasures:
    """Measure what one account did."""
    returns, year = bar_returns(curve), periods_in_year(bar_interval_ms)
    net = float(curve.equity[-1]) - curve.starting_equity
    fees = float(np.sum(curve.fees))
    gross = net + fees + float(np.sum(curve.slippage))
    count = int(np.sum(curve.trades))
    slipped = slippage_bps(curve)
    ratio, volatility = sharpe(returns, year), pnl_volatility(returns, year)
    return AccountMeasures(
        bar_count=len(curve.ts_ms),
        trade_count=count,
        turnover_ppm=ppm(turnover_per_day(curve, bar_interval_ms)),
        slippage_bps_x1000=_known(slipped, _THOUSAND),
        max_drawdown_ppm=ppm(-max_drawdown(returns)),
        pnl_volatility_ppm=_known(volatility, 1_000_000),
        sharpe_x1000=_known(ratio, _THOUSAND),
        fees_of_gross_ppm=ppm(fees / gross) if gross > 0.0 else None,
        expectancy_ppb=round(net / curve.starting_equity / count * PPB_ONE) if count else None,
    )


def _turnover(
    model: Floats, proxy: Floats, horizon_bars: int, resamples: int
) -> tuple[int | None, int | None]:
    """Bound the relative difference of turnover."""
    if not np.any(proxy > 0.0):
        return None, None

    def ratio(bars: Ints) -> float:
        traded = float(np.sum(proxy[bars]))
        # A resample in which the proxy never traded bounds nothing.
        return float(np.sum(model[bars])) / traded - 1.0 if traded > 0.0 else math.inf

    everything = np.arange(len(model))
    upper = upper_bound(ratio, resampled_bars(len(model), horizon_bars, resamples))
    return ppm(ratio(everything)), ppm(upper) if math.isfinite(upper) else None


def _slippage(
    model: EquityCurve, proxy: EquityCurve, horizon_bars: int, resamples: int
) -> tuple[int | None, int | None]:
    """Bound the difference of slippage, basis points of what was traded."""

    def per_notional(curve: EquityCurve, bars: Ints) -> float:
        traded = float(np.sum(curve.traded[bars]))
        slipped = float(np.sum(curve.slippage[bars]))
        return slipped / traded * _BPS_ONE if traded > 0.0 else math.inf

    def difference(bars: Ints) -> float:
        mine, other = per_notional(model, bars), per_notional(proxy, bars)
        return mine - other if math.isfinite(mine) and math.isfinite(other) else math.inf

    point = difference(np.arange(len(model.ts_ms)))
    upper = math.inf
    if math.isfinite(point):
        upper = upper_bound(difference, resampled_bars(len(model.ts_ms), horizon_bars, resamples))
    return _known(point, _THOUSAND), _known(upper, _THOUSAND)


def _drawdown(model: Floats, proxy: Floats, horizon_bars: int, resamples: int) -> tuple[int, int]:
    """Bound the difference of the deepest drawdowns, of the same bars drawn anew."""

    def difference(bars: Ints) -> float:
        return max_drawdown(proxy[bars]) - max_drawdown(model[bars])

    upper = upper_bound(difference, resampled_bars(len(model), horizon_bars, resamples))
    return ppm(difference(np.arange(len(model)))), ppm(upper)


def _known(value: float, scale: int) -> int | None:
    return round(value * scale) if math.isfinite(value) else None
