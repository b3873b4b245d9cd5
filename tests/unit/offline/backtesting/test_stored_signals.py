"""Proves how stored signals are chosen, what nothing stored means, and that off is off."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.backtests import market_of_walk, question_of
from tests.builders import HOUR_MS, START_MS, model_binding

from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.reasons import Reason
from detent.offline.backtesting.backtest import model_setup, proxy_setup
from detent.offline.backtesting.folder import EQUITY_FILE, run_into
from detent.offline.backtesting.signals import REFUSALS
from detent.offline.backtesting.stored_signals import (
    StoredSignal,
    StoredSignals,
    load_stored_signals,
)


def signal(bar: int, p_hat_bps: int = 6_000) -> StoredSignal:
    return StoredSignal(
        ts_ms=START_MS + bar * HOUR_MS, p_hat_raw_bps=p_hat_bps, p_hat_bps=p_hat_bps
    )


SIGNALS = StoredSignals(
    {"AAA": [signal(5, 5_500), signal(2, 5_200)], "BBB": [signal(2, 4_000)], "EMPTY": []}
)


@pytest.mark.proves("R78")
@pytest.mark.parametrize(
    ("symbol", "offset_ms", "expected"),
    [
        ("AAA", 2 * HOUR_MS, 5_200),
        ("AAA", 4 * HOUR_MS, 5_200),
        ("AAA", 5 * HOUR_MS, 5_500),
        ("AAA", 50 * HOUR_MS, 5_500),
        ("AAA", 2 * HOUR_MS - 1, None),
        ("BBB", 3 * HOUR_MS, 4_000),
        ("EMPTY", 9 * HOUR_MS, None),
        ("UNKNOWN", 9 * HOUR_MS, None),
    ],
)
def test_the_last_signal_by_then_is_chosen(
    symbol: str, offset_ms: int, expected: int | None
) -> None:
    """Exact, between, after all, before all, another symbol, nothing stored, unknown."""
    found = SIGNALS.at(symbol, START_MS + offset_ms)

    assert (found.p_hat_bps if found is not None else None) == expected


@pytest.mark.proves("R78")
def test_two_signals_of_one_instant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="twice"):
        StoredSignals({"AAA": [signal(2), signal(2, 1)]})
    path = tmp_path / "signals.parquet"
    columns = {"ts_ms": [START_MS] * 2, "symbol": ["AAA"] * 2}
    columns |= {"p_hat_raw_bps": [1, 2], "p_hat_bps": [1, 2]}
    pq.write_table(pa.table(columns), path)

    with pytest.raises(DataInvalid, match="twice"):
        load_stored_signals(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(",6000,6000", "column symbol", id="no-symbol"),
        pytest.param("AAA,0.6,6000", "found 0.6, expected an integer$", id="a-share"),
    ],
)
def test_a_stored_signal_that_is_none_is_named(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "signals.csv"
    path.write_text(f"ts_ms,symbol,p_hat_raw_bps,p_hat_bps\n{START_MS},{row}\n")

    with pytest.raises(DataInvalid, match=rf"signals\.csv, row 1.*{message}"):
        load_stored_signals(path)


def test_a_summary_says_which_signals_were_replayed(tmp_path: Path) -> None:
    """Other signals under the same binding are another run."""
    path = tmp_path / "signals.csv"
    path.write_text(f"ts_ms,symbol,p_hat_raw_bps,p_hat_bps\n{START_MS},AAA,6000,6000\n")
    question, market = question_of(), market_of_walk(30)
    answers = load_stored_signals(path).over(market, max_age_ms=None)
    setup = model_setup(question, proxy_setup(question, market), model_binding(), answers)
    run, _ = run_into(tmp_path / "run", setup, signal_origin="stored", records=False)

    assert run.summary.signals_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.proves("R78")
def test_all_bars_at_once_choose_as_one_by_one() -> None:
    random = np.random.default_rng(5)
    stored = StoredSignals(
        {
            symbol: [
                signal(int(bar), int(random.integers(0, 10_001)))
                for bar in random.choice(300, size=40, replace=False)
            ]
            for symbol in ("AAA", "CCC")
        }
    )
    market = market_of_walk(300)
    columns = stored.over(market, max_age_ms=None)

    for column, symbol in enumerate(market.symbols):
        for row, ts_ms in enumerate(market.ts_ms.tolist()):
            found = stored.at(symbol, ts_ms)
            assert columns.p_hat_bps[row, column] == (found.p_hat_bps if found else -1)
    young = stored.over(market, max_age_ms=HOUR_MS)
    stale = young.refusal == REFUSALS.index(Reason.FEATURES_STALE)
    assert stale.sum() > 100
    assert np.all(young.p_hat_bps[stale] == -1)


@pytest.mark.proves("R78")
def test_choosing_takes_the_logarithm_of_what_is_stored() -> None:
    """A thousand times as many signals take nowhere near a thousand times as long."""

    def seconds(count: int) -> float:
        stored = StoredSignals(
            {
                "AAA": [
                    StoredSignal(ts_ms=START_MS + i, p_hat_raw_bps=1, p_hat_bps=1)
                    for i in range(count)
                ]
            }
        )
        best = 1.0
        for _ in range(5):
            start = time.process_time()
            for offset in range(0, count, max(1, count // 400)):
                stored.at("AAA", START_MS + offset)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(400_000) < 20 * seconds(400)


@pytest.mark.proves("R79")
def test_nothing_stored_is_the_baseline(tmp_path: Path) -> None:
    """Enabled without a signal: the account is the proxy's, to the byte; with one it is not."""
    question, market = question_of(records=False), market_of_walk(300)
    base = proxy_setup(question, market)
    binding = model_binding()

    def equity(name: str, stored: StoredSignals) -> bytes:
        answers = stored.over(market, max_age_ms=None)
        setup = model_setup(question, base, binding, answers)
        run, _ = run_into(tmp_path / name, setup, signal_origin="stored", records=False)
        assert run.summary.record_count == 900
        return (tmp_path / name / EQUITY_FILE).read_bytes()

    run_into(tmp_path / "proxy", base, signal_origin="proxy", records=False)
    baseline = (tmp_path / "proxy" / EQUITY_FILE).read_bytes()

    assert equity("nothing", StoredSignals()) == baseline
    assert equity("something", StoredSignals({"AAA": [signal(50, 9_000)]})) != baseline


@pytest.mark.proves("R80")
def test_without_a_model_no_code_of_one_is_loaded(tmp_path: Path) -> None:
    """A whole back-test of the proxy in a process of its own; the same spy sees a model."""
    spy = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.backtests import setup_of\n"
        "from detent.offline.backtesting.folder import run_into\n"
        f"folder = Path({str(tmp_path / 'run')!r})\n"
        "run_into(folder, setup_of(), signal_origin='proxy', records=True)\n"
        "import detent.offline.backtesting.backtest\n"
        "if len(sys.argv) > 1: import detent.offline.backtesting.model_signals\n"
        "names = ('onnxruntime', 'onnx', 'detent.adapters.serving')\n"
        "print(sorted(name for name in names if name in sys.modules))\n"
    )
    root = Path(__file__).parents[4]

    def loaded(*arguments: str) -> str:
        command = [sys.executable, "-c", spy, *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        for path in sorted((tmp_path / "run").iterdir()):
            path.unlink()
        return done.stdout.strip()

    assert loaded() == "[]"
    assert "detent.adapters.serving" in loaded("model")
