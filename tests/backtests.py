"""Gives back-tests small enough to run by the dozen."""

from typing import Any

import numpy as np
from msgspec import structs
from tests.builders import HORIZON, HOUR_MS, START_MS

from detent.adapters.ledger_bulk import FILED
from detent.contracts.plan import PolicyConfig, VolUnit
from detent.offline.backtesting.backtest import Question, proxy_setup
from detent.offline.backtesting.engine import Setup, Stretch
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.record_texts import RecordWriter
from detent.offline.backtesting.strategy import TriggerParameters

SYMBOLS = ("AAA", "BBB", "CCC")


def question_of(**changes: Any) -> Question:
    """Give a question that trades often."""
    question = Question(
        name="small",
        policy_config=PolicyConfig(
            horizon_id=HORIZON, vol_unit=VolUnit.PER_BAR, vol_target_ppm=9_000, tau_bps=0
        ),
        trigger=TriggerParameters(window_bars=12),
        vol_bars=10,
    )
    return structs.replace(question, **changes)


def market_of_walk(
    bars: int = 300, *, symbols: tuple[str, ...] = SYMBOLS, seed: int = 1, holes: bool = False
) -> Market:
    """Give random walks; with holes, a tenth of the bars is missing."""
    random = np.random.default_rng(seed)
    moves = random.normal(0.0, 0.01, (bars, len(symbols)))
    close = np.round(100.0 * np.cumprod(1.0 + moves, axis=0), 2)
    present = random.random(close.shape) > (0.1 if holes else -1.0)
    present[0] = True
    rows = np.maximum.accumulate(np.where(present, np.arange(bars)[:, np.newaxis], 0), axis=0)
    opened = np.vstack([close[:1], close[:-1]]) * (1.0 + random.normal(0, 0.001, close.shape))
    return Market(
        symbols=symbols,
        interval_ms=HOUR_MS,
        ts_ms=START_MS + HOUR_MS * np.arange(bars),
        open=opened,
        close=np.take_along_axis(close, rows, axis=0),
        present=present,
        funding=None,
        data_hash="9" * 64,
    )


def setup_of(market: Market | None = None, **changes: Any) -> Setup:
    """Give the proxy's run over a market."""
    question = changes.pop("question", question_of())
    return structs.replace(proxy_setup(question, market or market_of_walk()), **changes)


def filed(writer: RecordWriter, stretch: Stretch) -> list[tuple[Any, ...]]:
    """Give what a writer hands to the ledger of each record."""
    values = [value for batch in writer.batches(stretch) for value in batch]
    return list(zip(*[iter(values)] * len(FILED), strict=True))
