"""Draw a market and what is asked of it: the same arrays for us and for every peer."""

from pathlib import Path

import numpy as np

from detent.contracts.binding import Head, ModelBinding, SignalSource, TrainingWindow
from detent.contracts.plan import HorizonAlpha, Plan, PolicyConfig, VolUnit
from detent.contracts.units import BPS_HALF
from detent.core.ledger.record import bind_plan
from detent.core.policy.columns import ABSENT, LONG, SHORT
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.engine import Setup, run
from detent.offline.backtesting.execution import Execution
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.signals import ModelSignals, Signals, proxy_columns
from detent.offline.backtesting.strategy import TriggerParameters, vol_columns

SEED = 20_240_101
START_MS = 1_700_000_000_000 // 3_600_000 * 3_600_000
HOUR_MS = 3_600_000
# How long a belief holds on average, bars.
HOLD_BARS = 8
FEE_BPS = 5.0
HORIZON = "bench"


def market_of(bars: int, symbols: int) -> Market:
    """Draw hourly bars: random walks with two decimals, no bar missing."""
    random = np.random.default_rng(SEED)
    moves = random.normal(0.0, 0.004, (bars, symbols))
    close = np.maximum(np.round(100.0 * np.exp(np.cumsum(moves, axis=0)), 2), 0.01)
    return Market(
        symbols=tuple(f"SYM{index:03d}" for index in range(symbols)),
        interval_ms=HOUR_MS,
        ts_ms=START_MS + HOUR_MS * np.arange(1, bars + 1),
        open=np.vstack([close[:1], close[:-1]]),
        close=close,
        present=np.ones(close.shape, dtype=np.bool_),
        funding=None,
        data_hash="0" * 64,
    )


def beliefs_of(market: Market) -> np.ndarray:
    """Draw probabilities that hold for some bars, int16 basis points."""
    random = np.random.default_rng(SEED + 1)
    shape = market.close.shape
    drawn = random.integers(2_000, 8_001, shape)
    changes = random.random(shape) < 1.0 / HOLD_BARS
    changes[0] = True
    rows = np.maximum.accumulate(np.where(changes, np.arange(shape[0])[:, np.newaxis], 0), axis=0)
    return np.take_along_axis(drawn, rows, axis=0).astype(np.int16)


def binding_of() -> ModelBinding:
    """Give a binding of no real artifact; its signals are drawn."""
    return ModelBinding(
        signal_source=SignalSource.MODEL,
        head=Head.DIRECTION,
        model_id="direction_bench_v1.0.0",
        model_version_hash="a" * 64,
        feature_version="b" * 64,
        label_definition="drawn",
        horizon_id=HORIZON,
        horizon_bars=4,
        calibration_version="c" * 64,
        training_window=TrainingWindow(start_ts_ms=START_MS - 2, end_ts_ms=START_MS - 1),
        data_cutoff_ts_ms=START_MS,
        architecture_id="drawn",
    )


def setup_of(market: Market, execution: Execution) -> Setup:
    """Give a back-test whose targets do not depend on what is held: no smoothing, wide caps.

    Volatility, proxy and every step of policy are computed as ever.
    """
    symbols = len(market.symbols)
    config = PolicyConfig(
        horizon_id=HORIZON,
        tau_bps=500,
        vol_unit=VolUnit.PER_BAR,
        vol_target_ppm=4_000,
        w_min_ppm=0,
        w_max_ppm=1_000_000 // (2 * symbols) if symbols > 1 else 900_000,
        alpha_by_horizon=(HorizonAlpha(horizon_id=HORIZON, alpha_ppm=1_000_000),),
        epsilon_w_ppm=2_000 if symbols > 1 else 20_000,
        rebalance_cooldown_bars=2,
    )
    plan = Plan(
        plan_id="bench",
        book="bench",
        symbols=market.symbols,
        bar_interval_ms=market.interval_ms,
        triggers=(TriggerParameters().trigger,),
        policy_config=config,
    )
    beliefs = beliefs_of(market)
    answers = ModelSignals(
        p_hat_raw_bps=beliefs, p_hat_bps=beliefs, refusal=np.full_like(beliefs, ABSENT)
    )
    return Setup(
        bound=bind_plan(plan, binding_of()),
        market=market,
        trigger=np.where(beliefs >= BPS_HALF, LONG, SHORT).astype(np.int8),
        vol_hat_ppm=vol_columns(market, window_bars=48, unit=VolUnit.PER_BAR),
        signals=Signals(model=answers, proxy=proxy_columns(market)),
        costs=Costs(fee_bps=FEE_BPS),
        execution=execution,
    )


def write_question(folder: Path, bars: int, symbols: int) -> None:
    """Write closes and target weights for the peers, and the parity rule's numbers."""
    setup = setup_of(market_of(bars, symbols), Execution.PARITY_B)
    final: list[np.ndarray] = []
    ran = run(setup, (lambda stretch: final.append(stretch.walked.final_ppm.copy()),))
    config = setup.bound.plan.policy_config
    np.savez(
        folder / "question.npz",
        close=setup.market.close,
        target=np.vstack(final) / 1e6,
        ts_ms=setup.market.ts_ms,
        rule=np.array(
            [
                config.epsilon_w_ppm / 1e6,
                float(config.min_trade_notional),
                config.rebalance_cooldown_bars,
            ]
        ),
        equity=ran.curve.equity,
    )
