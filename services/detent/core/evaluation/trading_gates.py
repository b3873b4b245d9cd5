"""Judge what trading by the candidate would have done, beside trading by the proxy."""

from detent.contracts.units import PPM_ONE
from detent.core.evaluation.capital import CapitalMeasures, capital_gates
from detent.core.evaluation.gates import GateResult, Verdict, choice, percent, unmeasured
from detent.core.evaluation.measures import AccountMeasures, TradingMeasures
from detent.core.evaluation.profiles import PromotionProfile

_TURNOVER = "turnover over the proxy's, less 1"
_SLIPPAGE = "slippage less the proxy's"
_DRAWDOWN = "deepest drawdown less the proxy's"


def trading_gates(
    profile: PromotionProfile, trading: TradingMeasures | None
) -> tuple[GateResult, ...]:
    """Judge an account by a profile; nothing that was never traded passes."""
    model = None if trading is None else trading.model
    return (
        *_regressions(profile, trading),
        *_constants(profile, model),
        *_deflated(profile, trading),
        *_capital(profile, trading),
    )


def _regressions(
    profile: PromotionProfile, trading: TradingMeasures | None
) -> tuple[GateResult, ...]:
    """Judge that churn, slippage and drawdown are not materially worse (R129, R132, R135)."""
    turnover_max = profile.turnover_ratio_max_ppm
    slippage_max = profile.slippage_difference_max_bps_x1000
    drawdown_max = profile.drawdown_difference_max_ppm
    found: tuple[tuple[int | None, int | None], ...] = ((None, None),) * 3
    if trading is not None:
        found = (
            (trading.turnover_ratio_ppm, trading.turnover_ratio_upper_ppm),
            (
                trading.slippage_difference_bps_x1000,
                trading.slippage_difference_upper_bps_x1000,
            ),
            (trading.drawdown_difference_ppm, trading.drawdown_difference_upper_ppm),
        )
    gates = (
        ("turnover", turnover_max, percent, _TURNOVER),
        ("slippage", slippage_max, _basis_points, _SLIPPAGE),
        ("drawdown", drawdown_max, percent, _DRAWDOWN),
    )
    results = []
    for (name, most, written, evidence), (point, upper) in zip(gates, found, strict=True):
        is_bounded = profile.is_statistical
        bound = f"{'upper 95% bound ' if is_bounded else ''}<= {written(most)}"
        judged = upper if is_bounded else point
        if point is None or judged is None:
            results.append(unmeasured(name, bound, evidence))
            continue
        verdict = Verdict.PASSED
        if judged > most:
            verdict = Verdict.FAILED if point > most else Verdict.INSUFFICIENT
        number = f"{written(point)}, bound {written(judged)}" if is_bounded else written(point)
        results.append(
            GateResult(name=name, number=number, bound=bound, verdict=verdict, evidence=evidence)
        )
    return tuple(results)


def _constants(profile: PromotionProfile, model: AccountMeasures | None) -> tuple[GateResult, ...]:
    """Judge by the seeds' constants, where the profile has them."""
    results = []
    least = profile.sharpe_min_x1000
    if least is not None:
        bound, evidence = f">= {least / 1000:g}", "annualised Sharpe ratio"
        sharpe = None if model is None else model.sharpe_x1000
        results.append(
            unmeasured("sharpe", bound, evidence)
            if sharpe is None
            else choice("sharpe", f"{sharpe / 1000:.3f}", bound, evidence, passes=sharpe >= least)
        )
    most = profile.max_drawdown_max_ppm
    if most is not None:
        bound, evidence = f"<= {percent(most)}", "deepest drawdown"
        deepest = None if model is None else model.max_drawdown_ppm
        results.append(
            unmeasured("max_drawdown", bound, evidence)
            if deepest is None
            else choice("max_drawdown", percent(deepest), bound, evidence, passes=deepest <= most)
        )
    if profile.fees_of_gross_max_ppm is not None:
        results.append(_fees(profile.fees_of_gross_max_ppm, model))
    return tuple(results)


def _fees(most: int, model: AccountMeasures | None) -> GateResult:
    bound, evidence = f"<= {percent(most)}", "fees over the profit before costs"
    if model is None or model.trade_count == 0:
        return unmeasured("fees", bound, evidence)
    if model.fees_of_gross_ppm is None:
        return choice("fees", "no profit", bound, evidence, passes=False)
    passes = model.fees_of_gross_ppm <= most
    return choice("fees", percent(model.fees_of_gross_ppm), bound, evidence, passes=passes)


def _deflated(profile: PromotionProfile, trading: TradingMeasures | None) -> tuple[GateResult, ...]:
    """Judge the Sharpe ratio, given how many trials it is the best of."""
    least = profile.deflated_sharpe_min_ppm
    if least is None:
        return ()
    bound, evidence = f">= {percent(least)}", "probability of a Sharpe ratio above chance"
    if trading is None or trading.deflated_sharpe_ppm is None or trading.trial_count is None:
        return (unmeasured("deflated_sharpe", bound, f"{evidence}, of the logged trials"),)
    value = trading.deflated_sharpe_ppm
    of = f"{evidence}, {trading.trial_count} trials logged"
    verdict = Verdict.PASSED
    if value < least:
        # More likely than not, but not certain enough: a longer record may show it.
        verdict = Verdict.INSUFFICIENT if value > PPM_ONE // 2 else Verdict.FAILED
    return (
        GateResult(
            name="deflated_sharpe", number=percent(value), bound=bound, verdict=verdict, evidence=of
        ),
    )


def _capital(profile: PromotionProfile, trading: TradingMeasures | None) -> tuple[GateResult, ...]:
    """Judge by what the forerunner asked before it gave capital (R354)."""
    found = None
    if trading is not None:
        found = CapitalMeasures(
            resolved_count=trading.model.trade_count,
            expectancy_ppb=trading.model.expectancy_ppb,
            drawdown_ppm=trading.model.max_drawdown_ppm,
            baseline_drawdown_ppm=trading.proxy.max_drawdown_ppm,
            slippage_delta_bps_x1000=trading.slippage_difference_bps_x1000,
        )
    return capital_gates(profile, found, resolved="fills")


def _basis_points(value_x1000: int) -> str:
    return f"{value_x1000 / 1000:.3f} bps"
