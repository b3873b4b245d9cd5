"""Sum a back-test up: what it ran on, what it did, what it earned; integers and decimal strings.

A summary names its artifact and binding in full (R67), and which engine decided how: a number
without them belongs to nobody.
"""

import math
from typing import ClassVar

import msgspec

from detent.contracts.binding import ModelBinding
from detent.contracts.canonical import canonical_bytes
from detent.contracts.json_codec import to_json
from detent.contracts.plan import Plan
from detent.core.evaluation.equity import (
    bar_returns,
    bar_turnover,
    churn_per_day,
    max_drawdown,
    mean_return,
    periods_in_year,
    pnl_volatility,
    sharpe,
    slippage_bps,
    sortino,
    turnover_per_day,
)
from detent.core.ledger.summary import ReasonCount
from detent.offline.backtesting.engine import Ran, Setup
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.backtesting.tally import Tally, reason_counts

# Digits after the point of a measure: far below anything that is meant, far above its noise.
PLACES = 9


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the measures of an account; decimals as text, None where one is not defined.

    Attributes:
        equity_start: Quote units.
        equity_end: Quote units.
        total_return: End over start less one.
        mean_return: Mean return of a bar times the bars of a year.
        sharpe: Annualised.
        sortino: Annualised.
        max_drawdown: In [-1, 0].
        pnl_volatility: Annualised deviation of returns.
        turnover: Two-way, notional over equity, in all.
        turnover_per_day: The same of a day.
        fees: Quote units.
        slippage: Quote units.
        slippage_bps: Of what was traded.
        funding: Quote units paid; negative where it was received.
    """

    equity_start: str
    equity_end: str
    total_return: str
    mean_return: str | None
    sharpe: str | None
    sortino: str | None
    max_drawdown: str
    pnl_volatility: str | None
    turnover: str
    turnover_per_day: str
    fees: str
    slippage: str
    slippage_bps: str | None
    funding: str


class ChurnCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how much the book was moved about.

    Attributes:
        order_count: Orders that were decided.
        trade_count: Fills.
        cancel_count: Orders that no bar filled any more.
        flip_count: Positions that turned to the other side.
        closed_count: Positions that were entered and left.
        hold_time_ms_mean: Mean time that those were held; None when none was.
        churn_per_day: Fills of a day, as a decimal.
    """

    order_count: int
    trade_count: int
    cancel_count: int
    flip_count: int
    closed_count: int
    hold_time_ms_mean: int | None
    churn_per_day: str


class BacktestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Sums up one back-test.

    Attributes:
        plan: The plan that decided.
        binding: What it was bound to, every field of the artifact included.
        binding_hash: Its hash.
        policy_config_hash: Hash of the policy config.
        execution: How was filled.
        fee_bps: Fee, as a decimal.
        slippage_bps: Slippage, as a decimal.
        signal_origin: `artifact`, `stored`, `none` or `proxy`.
        data_hash: Hash of the bars.
        bar_interval_ms: Length of a bar.
        first_ts_ms: Close of the first bar.
        last_ts_ms: Close of the last bar.
        bar_count: Instants.
        record_count: Decisions.
        model_count: Those that the model answered.
        recorded: Whether the records stand in the folder's ledger.
        record_heads_hash: SHA-256 over the heads of all chains; None without records.
        fallbacks: How often the proxy answered for the model, by reason.
        reasons: How often each rule changed a weight or withheld a trade.
        churn: How much the book was moved about.
        metrics: What the account did.
        trigger_parameters: Rule and parameters of the plan's trigger.
        vol_bars: Returns of the volatility forecast.
        signals_sha256: SHA-256 of the file of stored signals; None where none was read.
    """

    SCHEMA: ClassVar[str] = "detent.backtest_summary.v1"
    # Summaries from before lack them, and stay readable.
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset(
        {"trigger_parameters", "vol_bars", "signals_sha256"}
    )

    plan: Plan
    binding: ModelBinding
    binding_hash: str
    policy_config_hash: str
    execution: str
    fee_bps: str
    slippage_bps: str
    signal_origin: str
    data_hash: str
    bar_interval_ms: int
    first_ts_ms: int
    last_ts_ms: int
    bar_count: int
    record_count: int
    model_count: int
    recorded: bool
    record_heads_hash: str | None
    fallbacks: tuple[ReasonCount, ...]
    reasons: tuple[ReasonCount, ...]
    churn: ChurnCounts
    metrics: Metrics
    trigger_parameters: TriggerParameters | None = None
    vol_bars: int | None = None
    signals_sha256: str | None = None

    @property
    def canonical(self) -> bytes:
        """Give the bytes of `results_summary.json`."""
        return canonical_bytes(self.SCHEMA, to_json(self))


def summary_of(
    setup: Setup, ran: Ran, tally: Tally, *, signal_origin: str, record_heads_hash: str | None
) -> BacktestSummary:
    """Sum up a back-test that has run."""
    market, bound, model = setup.market, setup.bound, setup.signals.model
    return BacktestSummary(
        plan=bound.plan,
        binding=bound.binding,
        binding_hash=bound.binding_hash,
        policy_config_hash=bound.policy_config_hash,
        execution=setup.execution.value,
        fee_bps=plain(setup.costs.fee_bps),
        slippage_bps=plain(setup.costs.slippage_bps),
        signal_origin=signal_origin,
        data_hash=market.data_hash,
        bar_interval_ms=market.interval_ms,
        first_ts_ms=int(market.ts_ms[0]),
        last_ts_ms=int(market.ts_ms[-1]),
        bar_count=len(market.ts_ms),
        record_count=tally.record_count,
        model_count=tally.model_count,
        recorded=record_heads_hash is not None,
        record_heads_hash=record_heads_hash,
        fallbacks=reason_counts(tally.fallbacks),
        reasons=reason_counts(tally.reasons),
        churn=ChurnCounts(
            order_count=tally.order_count,
            trade_count=int(ran.curve.trades.sum()),
            cancel_count=ran.waiting,
            flip_count=tally.flip_count,
            closed_count=tally.closed_count,
            hold_time_ms_mean=tally.hold_time_ms_mean,
            churn_per_day=plain(churn_per_day(ran.curve, market.interval_ms)),
        ),
        metrics=metrics_of(ran, market.interval_ms),
        trigger_parameters=setup.trigger_parameters,
        vol_bars=setup.vol_bars,
        signals_sha256=None if model is None else model.file_sha256,
    )


def metrics_of(ran: Ran, bar_interval_ms: int) -> Metrics:
    """Measure an account."""
    curve = ran.curve
    returns, periods = bar_returns(curve), periods_in_year(bar_interval_ms)
    start, end = curve.starting_equity, float(curve.equity[-1])
    return Metrics(
        equity_start=plain(start),
        equity_end=plain(end),
        total_return=plain(end / start - 1.0),
        mean_return=defined(mean_return(returns, periods)),
        sharpe=defined(sharpe(returns, periods)),
        sortino=defined(sortino(returns, periods)),
        max_drawdown=plain(max_drawdown(returns)),
        pnl_volatility=defined(pnl_volatility(returns, periods)),
        turnover=plain(float(bar_turnover(curve).sum())),
        turnover_per_day=plain(turnover_per_day(curve, bar_interval_ms)),
        fees=plain(float(curve.fees.sum())),
        slippage=plain(float(curve.slippage.sum())),
        slippage_bps=defined(slippage_bps(curve)),
        funding=plain(ran.funding),
    )


def plain(value: float) -> str:
    """Write a measure as a canonical decimal of at most `PLACES` digits after the point."""
    text = f"{value:.{PLACES}f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def defined(value: float) -> str | None:
    """Write a measure; None where it is not defined."""
    return plain(value) if math.isfinite(value) else None
