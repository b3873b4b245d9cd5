"""Proves what a run's folder holds, that it repeats to the byte, and what makes it invalid."""

import json
import sqlite3
from collections import deque
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.backtests import filed, market_of_walk, question_of, setup_of
from tests.builders import model_binding

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.errors import DataInvalid, InternalError
from detent.contracts.plan import OrderStyle
from detent.core.evaluation.equity import bar_returns, max_drawdown
from detent.core.ledger.record import ChainPoint
from detent.core.ledger.summary import summarise
from detent.offline.backtesting import record_texts
from detent.offline.backtesting.backtest import model_setup, proxy_setup
from detent.offline.backtesting.engine import Setup, Stretch, run
from detent.offline.backtesting.folder import (
    EQUITY_FILE,
    LEDGER_FILE,
    SUMMARY_FILE,
    read_curve,
    read_run,
    run_into,
)
from detent.offline.backtesting.record_texts import RecordWriter, scalar_record, state_before
from detent.offline.backtesting.stored_signals import StoredSignal, StoredSignals
from detent.offline.backtesting.strategy import TriggerParameters


def bound_setup() -> Setup:
    """Give a run of a model that answers some bars; symbols miss bars."""
    question, market = question_of(), market_of_walk(260, holes=True)
    random = np.random.default_rng(3)
    stored = StoredSignals(
        {
            symbol: [
                StoredSignal(
                    ts_ms=int(ts_ms),
                    p_hat_raw_bps=int(random.integers(0, 10_001)),
                    p_hat_bps=int(random.integers(0, 10_001)),
                    features_hash="e" * 64 if ts_ms % 2 else "",
                )
                for ts_ms in market.ts_ms[random.random(len(market.ts_ms)) > 0.5]
            ]
            for symbol in market.symbols
        }
    )
    answers = stored.over(market, max_age_ms=2 * market.interval_ms)
    return model_setup(question, proxy_setup(question, market), model_binding(), answers)


@pytest.mark.parametrize("bound", [False, True])
def test_every_record_is_the_scalar_cores(bound: bool) -> None:
    """Every text, not only the first of a stretch, and the chain from one to the next."""
    long_only = question_of(trigger=TriggerParameters(window_bars=12, shorts=False))
    plain = setup_of(market_of_walk(260, holes=True), question=long_only)
    setup = bound_setup() if bound else plain
    writer = RecordWriter(setup)
    points: dict[str, tuple[int, str]] = {}
    styles = set()

    def check(stretch: Stretch) -> None:
        rows = iter(filed(writer, stretch))
        for bar, place in np.argwhere(stretch.walked.present).tolist():
            symbol = setup.market.symbols[place]
            sequence, previous = points.get(symbol, (0, "0" * 64))
            point = ChainPoint(
                sequence=sequence, previous_hash=previous, state=state_before(stretch, bar, place)
            )
            record = scalar_record(setup, stretch, bar, place, point)
            *_, record_hash, text = next(rows)
            assert text == record.canonical.decode("ascii")
            assert record_hash == record.record_hash
            points[symbol] = (sequence + 1, record_hash)
            styles.add(record.outcome.order_style)
        assert next(rows, None) is None

    run(setup, (check,))

    assert sum(count for count, _ in points.values()) == np.count_nonzero(setup.market.present)
    assert styles == (set(OrderStyle) - {OrderStyle.TAKER} if bound else set(OrderStyle))


def test_a_text_that_drifts_from_the_core_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        record_texts, "close_texts", lambda prices: [f"{price}0" for price in prices.tolist()]
    )
    writer = RecordWriter(setup_of())

    with pytest.raises(InternalError, match="a record"):
        run(setup_of(), (lambda stretch: deque(writer.batches(stretch), maxlen=0),))


async def test_the_ledger_is_one_that_every_tool_reads(tmp_path: Path) -> None:
    """The chains hold, the plan is closed, and the summary is what its records sum up to."""
    setup = bound_setup()
    run_into(tmp_path / "run", setup, signal_origin="stored", records=True)
    ledger = SqliteLedger(tmp_path / "run" / LEDGER_FILE)
    plan_id = setup.bound.plan.plan_id
    verification = await ledger.verify(plan_id)
    rows = await ledger.run_rows(plan_id)
    opened = await ledger.open_plans()
    await ledger.close()
    with sqlite3.connect(tmp_path / "run" / LEDGER_FILE) as db:
        stored = db.execute("SELECT canonical FROM results_summary").fetchone()[0]
        overrides = db.execute("SELECT COUNT(*) FROM overrides").fetchone()[0]
        indexes = db.execute("SELECT COUNT(*) FROM sqlite_schema WHERE type = 'index'").fetchone()
    db.close()

    assert verification.breaks == ()
    assert verification.record_count == np.count_nonzero(setup.market.present)
    assert opened == []
    assert stored.encode("ascii") == summarise(plan_id, rows).canonical
    assert overrides > 100
    assert indexes[0] > 3


@pytest.mark.proves("R67")
def test_a_run_names_its_artifact_and_binding(tmp_path: Path) -> None:
    setup = bound_setup()
    run_into(tmp_path / "run", setup, signal_origin="stored", records=True)
    path = tmp_path / "run" / SUMMARY_FILE
    summary = json.loads(path.read_bytes())

    assert read_run(tmp_path / "run").summary.binding == setup.bound.binding
    assert summary["binding_hash"] == setup.bound.binding_hash
    for name in ("model_id", "model_version_hash", "feature_version", "calibration_version"):
        without = {**summary, "binding": {**summary["binding"]}}
        del without["binding"][name]
        path.write_text(json.dumps(without))
        with pytest.raises(DataInvalid, match="invalid run"):
            read_run(tmp_path / "run")
    other = {**summary, "binding": {**summary["binding"], "model_version_hash": "f" * 64}}
    path.write_text(json.dumps(other))
    with pytest.raises(DataInvalid, match="binding's own"):
        read_run(tmp_path / "run")


def test_a_run_can_be_asked_again_from_its_summary(tmp_path: Path) -> None:
    """Everything that a person decided stands there; a summary from before is still a run."""
    trigger = TriggerParameters(window_bars=7, shorts=False)
    question = question_of(trigger=trigger, vol_bars=21, cash=1234.5)
    run_into(
        tmp_path, proxy_setup(question, market_of_walk(30)), signal_origin="proxy", records=False
    )
    summary = read_run(tmp_path, records=False).summary

    assert summary.trigger_parameters == trigger
    assert summary.plan.triggers == (trigger.trigger,)
    assert summary.vol_bars == 21
    assert summary.metrics.equity_start == "1234.5"
    fields = json.loads((tmp_path / SUMMARY_FILE).read_bytes())
    assert "signals_sha256" not in fields
    del fields["trigger_parameters"], fields["vol_bars"]
    (tmp_path / SUMMARY_FILE).write_text(json.dumps(fields))
    assert read_run(tmp_path, records=False).summary.vol_bars is None


@pytest.mark.proves("R233")
@pytest.mark.parametrize("lost", [SUMMARY_FILE, EQUITY_FILE, LEDGER_FILE])
def test_a_run_that_lacks_a_part_is_invalid(lost: str, tmp_path: Path) -> None:
    run_into(tmp_path / "run", setup_of(), signal_origin="proxy", records=True)
    assert read_run(tmp_path / "run").summary.recorded
    (tmp_path / "run" / lost).unlink()

    with pytest.raises(DataInvalid, match=f"invalid run, {lost}"):
        read_run(tmp_path / "run")


@pytest.mark.proves("R233")
@pytest.mark.parametrize("table", ["plan_log", "decision_records", "results_summary"])
def test_a_run_whose_ledger_lacks_a_table_is_invalid(table: str, tmp_path: Path) -> None:
    run_into(tmp_path / "run", setup_of(), signal_origin="proxy", records=True)
    with sqlite3.connect(tmp_path / "run" / LEDGER_FILE) as db:
        db.execute(f"DROP TRIGGER {table}_no_delete")
        db.execute(f"DELETE FROM {table}")
    db.close()

    with pytest.raises(DataInvalid, match="invalid run"):
        read_run(tmp_path / "run")


def test_the_same_run_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_into(tmp_path / name, bound_setup(), signal_origin="stored", records=True)

    for file in (SUMMARY_FILE, EQUITY_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_without_records_the_account_is_the_same(tmp_path: Path) -> None:
    run_into(tmp_path / "full", bound_setup(), signal_origin="stored", records=True)
    run_into(tmp_path / "lean", bound_setup(), signal_origin="stored", records=False)
    full, lean = (
        read_run(tmp_path / name, records=name == "full").summary for name in ("full", "lean")
    )

    assert not (tmp_path / "lean" / LEDGER_FILE).exists()
    assert structs.replace(full, recorded=False, record_heads_hash=None) == lean
    with pytest.raises(DataInvalid, match="no file"):
        read_run(tmp_path / "lean")


def test_a_file_of_permissions_that_no_rule_reads_is_refused(tmp_path: Path) -> None:
    """A run by another rule than the one that was meant would look like one by the file."""
    question = question_of(trigger_file=tmp_path / "permissions.csv")

    with pytest.raises(DataInvalid, match=r"permissions\.csv beside trend, expected the rule file"):
        proxy_setup(question, market_of_walk(30))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(DataInvalid, match="empty folder"):
        run_into(tmp_path, setup_of(), signal_origin="proxy", records=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(DataInvalid, match="found NotADirectoryError, expected a folder"):
        run_into(tmp_path / "notes.txt" / "proxy", setup_of(), signal_origin="proxy", records=False)


@pytest.mark.proves("R249")
def test_joining_model_and_proxy_leaves_no_empty_field(tmp_path: Path) -> None:
    """Every decision of either run meets the other's, with what each is attributed by."""
    setup = bound_setup()
    base = proxy_setup(question_of(), setup.market)
    run_into(tmp_path / "model", setup, signal_origin="stored", records=True)
    run_into(tmp_path / "proxy", base, signal_origin="proxy", records=True)
    with sqlite3.connect(tmp_path / "model" / LEDGER_FILE) as db:
        db.execute("ATTACH ? AS other", (str(tmp_path / "proxy" / LEDGER_FILE),))
        fields = (
            "m.binding_hash, m.model_id, m.model_version_hash, m.feature_version,"
            " m.calibration_version, m.signal_source, m.p_hat_bps, m.trade_set_id, m.book,"
            " m.target_weight_final_ppm, m.record_hash, p.binding_hash, p.signal_source,"
            " p.p_hat_bps, p.trade_set_id, p.book, p.target_weight_final_ppm, p.record_hash"
        )
        rows = db.execute(
            f"SELECT {fields} FROM bar_decisions AS m FULL JOIN other.bar_decisions AS p"
            " ON m.symbol = p.symbol AND m.ts_ms = p.ts_ms"
        ).fetchall()
    db.close()

    assert len(rows) == np.count_nonzero(setup.market.present)
    assert all(field is not None for row in rows for field in row)


@pytest.mark.proves("R219")
def test_the_summary_measures_the_account(tmp_path: Path) -> None:
    setup = setup_of(market_of_walk(400))
    held: list[np.ndarray] = []
    tells = (lambda stretch: held.append(stretch.walked.current_ppm),)
    ran = run(setup, tells)
    found, _ = run_into(tmp_path / "run", setup, signal_origin="proxy", records=False)
    summary, curve = found.summary, ran.curve
    sides = np.sign(np.vstack([np.zeros(3), *held]))
    closed, held_bars, flips = 0, 0, 0
    for column in sides.T.astype(int).tolist():
        since = 0
        for bar in range(1, len(column)):
            if column[bar] != column[bar - 1]:
                if column[bar - 1]:
                    closed, held_bars = closed + 1, held_bars + bar - since
                    flips += column[bar] != 0
                since = bar

    churn = summary.churn
    assert (churn.closed_count, churn.flip_count) == (closed, flips)
    assert churn.hold_time_ms_mean == round(held_bars * setup.market.interval_ms / closed)
    assert churn.trade_count == curve.trades.sum() > 100
    assert churn.order_count == churn.trade_count + churn.cancel_count
    drawdown = max_drawdown(bar_returns(curve))
    assert float(summary.metrics.max_drawdown) == pytest.approx(drawdown, abs=1e-9)
    assert float(summary.metrics.equity_end) == pytest.approx(curve.equity[-1], abs=1e-6)


@pytest.mark.parametrize("content", ["other columns", "no parquet"])
def test_what_is_no_account_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "curve.parquet"
    if content == "other columns":
        pq.write_table(pa.table({"ts_ms": [1]}), path)
    else:
        path.write_bytes(b"text")

    with pytest.raises(DataInvalid, match=r"curve\.parquet.*the columns of an equity curve"):
        read_curve(path)
