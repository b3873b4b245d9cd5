"""Run another back-tester on the same closes and targets; it knows nothing of ours.

It runs with the Python of `.venv-backtesters`, so nothing of this repository is imported.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASH, FEE = 1_000_000.0, 0.0005
WARM_BARS = 50
Question = dict[str, Any]
Run = Callable[[Any, Any], Any]


def with_vectorbt(question: Question) -> Run:
    """Fill by rule B at the close, all symbols sized against the equity before the orders."""
    import vectorbt as vbt  # noqa: PLC0415
    from numba import njit  # noqa: PLC0415
    from vectorbt.portfolio import nb  # noqa: PLC0415

    @njit
    def before_nb(c: Any, filled: Any) -> Any:
        value = c.last_cash[c.group]
        for col in range(c.from_col, c.to_col):
            c.last_val_price[col] = c.close[c.i, col]
            value += c.last_position[col] * c.close[c.i, col]
        return value, filled

    @njit
    def order_nb(c: Any, value: Any, filled: Any, target: Any, rule: Any) -> Any:
        price, held = c.close[c.i, c.col], c.position_now
        wanted = target[c.i, c.col]
        away = abs(wanted - held * price / value)
        due = away > rule[0] and away * value >= rule[1] and c.i - filled[c.col] >= rule[2]
        if wanted == 0.0 and held != 0.0:
            due = True
        if not due:
            return nb.order_nothing_nb()
        filled[c.col] = c.i
        return nb.order_nb(size=wanted * value / price - held, price=price, fees=FEE)

    def run(close: Any, target: Any) -> Any:
        filled = np.full(close.shape[1], -(10**9))
        portfolio = vbt.Portfolio.from_order_func(
            close,
            order_nb,
            target,
            question["rule"],
            pre_segment_func_nb=before_nb,
            pre_segment_args=(filled,),
            init_cash=CASH,
            cash_sharing=True,
            group_by=True,
            freq="1h",
        )
        return np.asarray(portfolio.value())

    return run


def with_bt(question: Question) -> Run:
    """Rebalance to the targets on every bar: it has no band, so its account is its own."""
    import bt  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    def run(close: Any, target: Any) -> Any:
        times = pd.to_datetime(question["ts_ms"][: len(close)], unit="ms")
        names = [f"S{index}" for index in range(close.shape[1])]
        prices = pd.DataFrame(close, index=times, columns=names)
        weights = pd.DataFrame(target, index=times, columns=names)
        strategy = bt.Strategy("peer", [bt.algos.WeighTarget(weights), bt.algos.Rebalance()])
        test = bt.Backtest(
            strategy,
            prices,
            initial_capital=CASH,
            commissions=lambda quantity, price: abs(quantity) * price * FEE,
            integer_positions=False,
            progress_bar=False,
        )
        test.run()
        return test.strategy.values.to_numpy()[1:]  # noqa: PD011 - bt's own name

    return run


def with_backtesting(question: Question) -> Run:
    """Run each symbol by itself, as it has no portfolio; whole units, so its account is its own."""
    import pandas as pd  # noqa: PLC0415
    from backtesting import Backtest, Strategy  # noqa: PLC0415

    band = float(question["rule"][0])

    class Follow(Strategy):
        target: Any = None

        def init(self) -> None:
            self.last = 0.0

        def next(self) -> None:
            wanted = self.target[len(self.data) - 1]
            if abs(wanted - self.last) > band:
                self.position.close()
                size = min(abs(wanted), 0.99)
                if size > 0.0:
                    (self.buy if wanted > 0 else self.sell)(size=size)
                self.last = wanted

    def run(close: Any, target: Any) -> Any:
        times = pd.to_datetime(question["ts_ms"][: len(close)], unit="ms")
        for column in range(close.shape[1]):
            price = close[:, column]
            frame = pd.DataFrame(
                dict.fromkeys(("Open", "High", "Low", "Close"), price), index=times
            )
            one = Backtest(
                frame, Follow, cash=CASH, commission=FEE, trade_on_close=True, finalize_trades=True
            )
            one.run(target=target[:, column])
        return np.zeros(0)

    return run


PEERS = {"vectorbt": with_vectorbt, "bt": with_bt, "backtesting": with_backtesting}


def main() -> None:
    """Run `peer folder`: warm up on a few bars, then measure."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    begun_s = time.process_time()
    question = dict(np.load(folder / "question.npz"))
    close, target = question["close"], question["target"]
    run = PEERS[name](question)
    run(close[:WARM_BARS].copy(), target[:WARM_BARS].copy())
    start_s = time.process_time() - begun_s
    begun_s = time.process_time()
    equity = run(close, target)
    cpu_s = time.process_time() - begun_s
    apart = None
    if name == "vectorbt":
        apart = float(np.max(np.abs(equity / question["equity"] - 1.0)))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"start_s": start_s, "cpu_s": cpu_s, "peak_mib": peak_mib, "apart": apart}
    print(json.dumps(facts))  # noqa: T201 - the answer of this process


if __name__ == "__main__":
    main()
