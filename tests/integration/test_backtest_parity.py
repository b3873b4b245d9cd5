"""Proves that a back-test decides what the running services decide, byte for byte.

The same real bars go through the real handlers, asked bar by bar by a strategist with an account
of its own, and through the back-test; the canonical texts of all records must be the same.
"""

import sqlite3
from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import HORIZON
from tests.live_strategist import LiveServices, play

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.plan import HorizonAlpha, PolicyConfig, VolUnit
from detent.contracts.units import PPM_ONE
from detent.core.ledger.summary import summarise
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.backtest import Question, model_setup, proxy_setup
from detent.offline.backtesting.bound_model import bound_answers
from detent.offline.backtesting.engine import Setup
from detent.offline.backtesting.folder import LEDGER_FILE, read_run, run_into
from detent.offline.backtesting.market import market_of
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.bars import BarTable, load_bars
from detent.offline.commands import build_artifact, silent

DATA = Path(__file__).parents[3] / "shared" / "data"
HOURLY = DATA / "bars_1h_binance_usdm_2022_2023_funding.parquet"
LONG_FILES = ["bars_15m_binance_spot_2024", "bars_1h_binance_spot_2024"]
MILLION_FILES = [
    "bars_1m_binance_usdm_2025_funding",
    "bars_1h_binance_spot_btc_2017_2023",
    "bars_15m_binance_usdm_2025q1_funding",
    "bars_1h_binance_usdm_2022_2023_funding",
    "bars_1h_eurusd_ask_2017",
]
TRAINING_BARS, QUICK_BARS, LONG_TRAINING_BARS = 600, 600, 2_000
SOURCES = ("proxy", "model", "unsmoothed")
needs_data = pytest.mark.skipif(not HOURLY.exists(), reason="no shared bars beside this checkout")

QUESTION = Question(
    name="parity",
    policy_config=PolicyConfig(
        horizon_id=HORIZON, vol_unit=VolUnit.PER_BAR, vol_target_ppm=6_000, tau_bps=50
    ),
    trigger=TriggerParameters(window_bars=48),
    vol_bars=24,
    costs=Costs(fee_bps=5.0, slippage_bps=1.0),
)

# What it decides depends on nothing that is held: the arrays know it before they walk.
UNSMOOTHED = structs.replace(
    QUESTION,
    policy_config=structs.replace(
        QUESTION.policy_config,
        alpha_by_horizon=(HorizonAlpha(horizon_id=HORIZON, alpha_ppm=PPM_ONE),),
        rebalance_cooldown_bars=0,
    ),
)


def part(table: BarTable, start: int, stop: int) -> BarTable:
    bars = {symbol: series[start:stop] for symbol, series in table.bars.items()}
    return structs.replace(table, bars=bars)


def with_holes(table: BarTable) -> BarTable:
    """Take bars away from one symbol, so that instants differ in what they hold."""
    first = min(table.bars)
    kept = tuple(bar for at, bar in enumerate(table.bars[first]) if not 300 <= at < 309)
    return structs.replace(table, bars={**table.bars, first: kept})


def setups(table: BarTable, artifact: Path) -> dict[str, Setup]:
    market = market_of(table)
    base = proxy_setup(QUESTION, market)
    binding, answers, _ = bound_answers(
        artifact, None, table, market, question=QUESTION, progress=silent
    )
    return {
        "proxy": base,
        "model": model_setup(QUESTION, base, binding, answers),
        "unsmoothed": proxy_setup(UNSMOOTHED, market),
    }


def artifact_of(table: BarTable, folder: Path) -> Path:
    return build_artifact(
        table,
        model_name="direction_real",
        version="v1.0.0",
        horizon_bars=4,
        horizon_id=HORIZON,
        created_at="2024-01-15T10:30:00Z",
        out_dir=folder,
    )


def artifact_of_first(table: BarTable, folder: Path) -> Path:
    """Train on the first bars that give a model which points the right way."""
    longest = max(len(series) for series in table.bars.values())
    for start in range(0, longest, LONG_TRAINING_BARS):
        try:
            return artifact_of(part(table, start, start + LONG_TRAINING_BARS), folder)
        except ArtifactInvalid:
            # What those bars taught it is wrong on those after them.
            continue
    raise AssertionError("no part of the file gives a model that is not refused")


def texts(ledger: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT record_hash, canonical FROM decision_records ORDER BY id")
        found = rows.fetchall()
    db.close()
    return found


def plan_log(ledger: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        columns = "plan_id, event, book, binding_hash, plan, binding"
        found = db.execute(f"SELECT {columns} FROM plan_log ORDER BY id").fetchall()
    db.close()
    return found


async def live_summary(ledger_file: Path, plan_id: str) -> str:
    """Give what the live records sum up to, by the live ledger's own reading."""
    ledger = SqliteLedger(ledger_file)
    rows = await ledger.run_rows(plan_id)
    await ledger.close()
    return summarise(plan_id, rows).canonical.decode("ascii")


def stored_summary(ledger: Path) -> str:
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        found = db.execute("SELECT canonical FROM results_summary").fetchone()[0]
    db.close()
    return str(found)


async def check_parity(
    table: BarTable, artifact: Path, tmp_path: Path, sources: tuple[str, ...] = SOURCES
) -> dict[str, int]:
    counts = {}
    for source, setup in setups(table, artifact).items():
        if source not in sources:
            continue
        folder = tmp_path / source
        run_into(folder, setup, signal_origin=source, records=True)
        ledger = tmp_path / f"{source}.sqlite"
        services = LiveServices(artifact, ledger)
        await play(services, table, setup, setup.bound.binding)
        await services.close()

        live, offline = texts(ledger), texts(folder / LEDGER_FILE)
        assert live == offline
        assert plan_log(ledger) == plan_log(folder / LEDGER_FILE)
        summary = await live_summary(ledger, setup.bound.plan.plan_id)
        assert summary == stored_summary(folder / LEDGER_FILE)
        run = read_run(folder)
        assert run.summary.record_count == len(live) == table.bar_count
        counts[source] = run.summary.model_count
        assert run.summary.churn.trade_count > 20
    return counts


@needs_data
async def test_a_backtest_decides_what_the_services_decide(tmp_path: Path) -> None:
    """With funding, fees, slippage, warm-up, and a symbol that misses bars."""
    whole = load_bars(HOURLY)
    artifact = artifact_of(part(whole, 0, TRAINING_BARS), tmp_path / "artifacts")
    table = with_holes(part(whole, TRAINING_BARS, TRAINING_BARS + QUICK_BARS))

    counts = await check_parity(table, artifact, tmp_path)

    assert counts["proxy"] == 0
    assert counts["model"] > QUICK_BARS


@needs_data
async def test_one_hundredth_of_equity_that_differs_is_found(tmp_path: Path) -> None:
    """The comparison is worth nothing unless it notices the smallest difference."""
    whole = load_bars(HOURLY)
    table = part(whole, 0, 200)
    setup = proxy_setup(QUESTION, market_of(table))
    run_into(tmp_path / "run", setup, signal_origin="proxy", records=True)
    other = structs.replace(setup, cash=setup.cash + 0.01)
    run_into(tmp_path / "other", other, signal_origin="proxy", records=True)

    assert texts(tmp_path / "run" / LEDGER_FILE) != texts(tmp_path / "other" / LEDGER_FILE)
    assert setup.bound.binding == PROXY_BINDING
    assert setup.bound.plan.risk_limits.max_weight_ppm == PPM_ONE


@needs_data
@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", LONG_FILES + MILLION_FILES)
async def test_every_real_bar_is_decided_as_the_services_decide_it(
    name: str, source: str, tmp_path: Path
) -> None:
    """Each file for the proxy, for a model and without smoothing: a million decisions and more.

    `-m long -k "spot_2024 and model"` runs 10^5 bars through a model alone.
    """
    table = load_bars(DATA / f"{name}.parquet")
    artifact = artifact_of_first(table, tmp_path / "artifacts")

    counts = await check_parity(table, artifact, tmp_path, (source,))

    assert counts[source] > (table.bar_count // 2 if source == "model" else -1)
