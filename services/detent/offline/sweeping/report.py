"""Hold what a sweep found, window by window; integers and decimal strings."""

import math
from typing import ClassVar

import msgspec
import numpy as np

from detent.contracts.canonical import canonical_bytes
from detent.contracts.json_codec import to_json
from detent.core.evaluation.equity import (
    EquityCurve,
    Floats,
    bar_returns,
    bar_turnover,
    max_drawdown,
    periods_in_year,
    sharpe,
)
from detent.offline.backtesting.results import defined, plain
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.sweeping.grid import Axis, Setting

DAY_MS = 86_400_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Says what an account did in a window; decimals as text, None where one is not defined.

    Attributes:
        total_return: End over start less one.
        sharpe: Annualised.
        max_drawdown: In [-1, 0].
        turnover_per_day: Two-way, notional over equity.
        trade_count: Fills.
    """

    total_return: str
    sharpe: str | None
    max_drawdown: str
    turnover_per_day: str
    trade_count: int


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one setting in one window: where it was chosen on, and what came after."""

    setting: int
    in_sample: Outcome
    out_of_sample: Outcome


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one window; instants are closes, both ends included.

    Attributes:
        number: Its place, from 0.
        train_start_ts_ms: First bar that settings were chosen on.
        train_end_ts_ms: Last of them.
        test_start_ts_ms: First bar that they were measured on; the label's horizon lies between.
        test_end_ts_ms: Last of them.
        chosen: The setting with the highest Sharpe ratio before the test; the first of equals.
        trials: Every setting.
        proxy: What the proxy did in the test with the chosen setting.
    """

    number: int
    train_start_ts_ms: int
    train_end_ts_ms: int
    test_start_ts_ms: int
    test_end_ts_ms: int
    chosen: int
    trials: tuple[Trial, ...]
    proxy: Outcome


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the content of `sweep.json`.

    Attributes:
        name: Name of the sweep.
        model_id: The artifact whose candidate was swept.
        model_version_hash: Its manifest hash, 64 hex.
        dataset_hash: Data set that its run learned from, 64 hex.
        data_hash: Hash of the bars.
        symbols: What was traded.
        bar_interval_ms: Length of a bar.
        trigger: What permitted a direction.
        trigger_hash: Hash of its parameters.
        execution: How was filled.
        fee_bps: Fee, as a decimal.
        slippage_bps: Slippage, as a decimal.
        trigger_parameters: Rule and parameters of the trigger.
        vol_bars: Returns of the volatility forecast.
        cash: Quote units that every account starts with, as a decimal.
        axes: What was swept.
        settings: Every combination.
        windows: The windows, oldest first.
        chosen: The setting that the newest bars, as many as a window trains on, would choose.
        model: What the chosen settings did out of sample, one window after the other.
        proxy: The proxy's, with the same settings.
        trial_count: Settings here and of every earlier sweep of the artifact, and every trial of
            the run that made the model.
        deflated_sharpe_ppm: Of `model`, for the best of so many; None where it is not defined.
    """

    SCHEMA: ClassVar[str] = "detent.backtest_sweep.v1"

    name: str
    model_id: str
    model_version_hash: str
    dataset_hash: str
    data_hash: str
    symbols: tuple[str, ...]
    bar_interval_ms: int
    trigger: str
    trigger_hash: str
    execution: str
    fee_bps: str
    slippage_bps: str
    trigger_parameters: TriggerParameters
    vol_bars: int
    cash: str
    axes: tuple[Axis, ...]
    settings: tuple[Setting, ...]
    windows: tuple[Window, ...]
    chosen: int
    model: Outcome
    proxy: Outcome
    trial_count: int
    deflated_sharpe_ppm: int | None

    @property
    def canonical(self) -> bytes:
        """Give the bytes of `sweep.json`."""
        return canonical_bytes(self.SCHEMA, to_json(self))


class Account(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds an account by bar, shape (n,) each, so that windows can follow one another.

    Attributes:
        ts_ms: Closes.
        returns: Simple returns.
        turnover: Two-way, notional over equity.
        trades: Fills.
    """

    ts_ms: np.ndarray
    returns: Floats
    turnover: Floats
    trades: np.ndarray


def account_of(curve: EquityCurve) -> Account:
    """Give an account by bar."""
    return Account(
        ts_ms=curve.ts_ms,
        returns=bar_returns(curve),
        turnover=bar_turnover(curve),
        trades=curve.trades,
    )


def joined(accounts: list[Account]) -> Account:
    """Let windows follow one another, each with what the last one left."""
    return Account(
        **{
            name: np.concatenate([getattr(one, name) for one in accounts])
            for name in Account.__struct_fields__
        }
    )


def outcome_of(account: Account, bar_interval_ms: int) -> Outcome:
    """Measure an account."""
    days = len(account.returns) * bar_interval_ms / DAY_MS
    return Outcome(
        total_return=plain(float(np.prod(1.0 + account.returns)) - 1.0),
        sharpe=defined(sharpe(account.returns, periods_in_year(bar_interval_ms))),
        max_drawdown=plain(max_drawdown(account.returns)),
        turnover_per_day=plain(float(account.turnover.sum()) / days),
        trade_count=int(account.trades.sum()),
    )


def sharpe_or_least(outcome: Outcome) -> float:
    """Give what settings are chosen by: one that never traded is below every one that did."""
    return -math.inf if outcome.sharpe is None else float(outcome.sharpe)
