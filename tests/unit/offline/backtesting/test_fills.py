"""Proves that a back-test's fills are what a venue would have reported of its account."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections import deque
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from tests.backtests import market_of_walk, question_of, setup_of
from tests.unit.offline.backtesting.test_folder import bound_setup

from detent.adapters.ledger_reading import SqliteReader, canonical_texts
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_trades import SqliteTrades
from detent.contracts.calls.policy import RecordFillsRequest
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InternalError
from detent.contracts.json_codec import from_json
from detent.contracts.plan import OrderStyle
from detent.contracts.trades import Fill
from detent.core.evaluation.gates import Verdict, learning_gate
from detent.core.ledger.trade_sets import trade_sets
from detent.offline.attributing import attribute_ledger
from detent.offline.backtesting import fill_texts
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.engine import Setup, Stretch, run
from detent.offline.backtesting.execution import Execution
from detent.offline.backtesting.fill_texts import FillWriter, latest_orders, units_text
from detent.offline.backtesting.folder import LEDGER_FILE, BacktestRun, run_into
from detent.offline.backtesting.record_texts import RecordWriter
from detent.offline.promotion.learning_fills import read_learning
from detent.servers.policy.plans import Plans
from detent.servers.policy.trade_facts import TradeFactsTaker

COSTS = Costs(fee_bps=5.0, slippage_bps=2.0)
# Longer than two stretches, so that orders wait over their ends.
BARS = 600


def walked(**changes: Any) -> Setup:
    """Give a run with costs and missing bars, over several stretches."""
    return setup_of(market_of_walk(BARS, holes=True), question=question_of(costs=COSTS), **changes)


def run_of(folder: Path, setup: Setup) -> tuple[BacktestRun, Path]:
    found, _ = run_into(folder, setup, signal_origin="proxy", records=True)
    return found, folder / LEDGER_FILE


def fills_in(ledger: Path) -> list[Fill]:
    texts = canonical_texts(SqliteReader(ledger), "fills", "")
    return [from_json(Fill, parse_json("fill", text)) for text in texts]


def records_in(ledger: Path) -> dict[str, DecisionRecord]:
    texts = canonical_texts(SqliteReader(ledger), "decision_records", "")
    found = (from_json(DecisionRecord, parse_json("record", text)) for text in texts)
    return {record.record_hash: record for record in found}


@pytest.mark.parametrize("execution", list(Execution))
def test_fills_add_up_to_the_account(execution: Execution, tmp_path: Path) -> None:
    setup = walked(execution=execution)
    found, ledger = run_of(tmp_path / "run", setup)
    fills = fills_in(ledger)
    held = {symbol: Decimal(0) for symbol in setup.market.symbols}
    cash = Decimal(str(setup.cash))
    for fill in fills:
        held[fill.symbol] += fill.signed_quantity
        cash -= fill.signed_quantity * fill.price + fill.fee
    last = dict(zip(setup.market.symbols, setup.market.close[-1].tolist(), strict=True))
    worth = float(cash) + sum(float(held[symbol]) * last[symbol] for symbol in held)

    assert len(fills) == found.summary.churn.trade_count > 100
    assert math.isclose(worth, float(found.curve.equity[-1]), rel_tol=1e-11)
    assert math.isclose(
        float(sum(fill.fee for fill in fills)), float(found.curve.fees.sum()), rel_tol=1e-9
    )


@pytest.mark.parametrize("bound", [False, True])
def test_a_fill_names_the_decision_that_asked_for_it(bound: bool, tmp_path: Path) -> None:
    """The last order of the symbol before the bar that filled it, however long that was away."""
    setup = bound_setup() if bound else walked()
    _, ledger = run_of(tmp_path / "run", setup)
    records = records_in(ledger)
    orders: dict[str, list[DecisionRecord]] = {}
    for record in records.values():
        if record.outcome.order_style is not OrderStyle.NONE:
            orders.setdefault(record.row.symbol, []).append(record)
    fills = fills_in(ledger)
    late = 0
    for fill in fills:
        asked = records[fill.record_hash or ""]
        # The fill is at an open: the bar that it belongs to closes an interval later.
        before = [one for one in orders[fill.symbol] if one.ts_ms <= fill.ts_ms]
        assert asked == before[-1]
        assert fill.fill_id == asked.record_hash
        late += asked.ts_ms < fill.ts_ms

    assert late > 3
    assert len({fill.fill_id for fill in fills}) == len(fills)


def test_positions_that_were_left_are_closed_sets(tmp_path: Path) -> None:
    """To the last digit, which sums of rounded quantities would not be."""
    found, ledger = run_of(tmp_path / "run", walked())
    fills = fills_in(ledger)
    sets = trade_sets(fills)
    rounded = [
        structs.replace(fill, quantity=Decimal(f"{float(fill.quantity):.9g}")) for fill in fills
    ]

    assert sum(one.closed for one in sets) == found.summary.churn.closed_count > 10
    assert sum(one.closed for one in trade_sets(rounded)) != found.summary.churn.closed_count


@pytest.mark.proves("R353")
@pytest.mark.proves("R350")
def test_attribution_reads_a_back_test_like_any_ledger(tmp_path: Path) -> None:
    found, ledger = run_of(tmp_path / "run", bound_setup())
    report = attribute_ledger(str(ledger), fills=None, outcomes=None)
    profit = report.profit

    assert profit is not None
    assert report.breaches == ()
    assert profit.split.residual == 0
    assert profit.split.unlinked_fill_ids == ()
    earned = float(found.curve.equity[-1]) - found.curve.starting_equity
    assert math.isclose(float(profit.split.total), earned, rel_tol=1e-6)
    assert profit.verdict is not None


async def test_the_service_would_have_taken_the_very_same_fills(tmp_path: Path) -> None:
    """Told to the service once more, each is one that it holds already; another text is none."""
    setup = bound_setup()
    _, path = run_of(tmp_path / "run", setup)
    fills = tuple(fills_in(path))
    ledger = SqliteLedger(path)
    taker = TradeFactsTaker(plans=Plans(ledger), ledger=ledger, facts=SqliteTrades(ledger.file))
    query = RecordFillsRequest(
        binding_hash=setup.bound.binding_hash, plan_id=setup.bound.plan.plan_id, fills=fills
    )
    answer = await taker.record_fills(query)
    await ledger.close()

    assert (answer.accepted_count, answer.known_count) == (0, len(fills))
    assert len(fills) > 50


@pytest.mark.proves("R130")
@pytest.mark.parametrize(
    ("change", "mixed"),
    [
        pytest.param({}, 0, id="kept-apart"),
        pytest.param({"learning": {"experiment_id": "x1"}}, 1, id="profit-with-a-tag"),
        pytest.param({"book": "learning/lab"}, 1, id="learning-without-a-tag"),
        pytest.param(
            {"book": "learning/lab", "learning": {"experiment_id": "x1"}},
            1,
            id="out-of-the-budget-of-another-plan",
        ),
        pytest.param({"plan_id": "nobody"}, 1, id="of-no-plan"),
    ],
)
def test_the_gate_reads_the_fills_of_a_back_test(
    change: dict[str, Any], mixed: int, tmp_path: Path
) -> None:
    _, ledger = run_of(tmp_path / "run", walked())
    with sqlite3.connect(ledger) as db:
        db.execute("DROP TRIGGER fills_no_update")
        number, text = db.execute("SELECT id, canonical FROM fills LIMIT 1 OFFSET 7").fetchone()
        other = json.dumps({**json.loads(text), **change}, sort_keys=True)
        db.execute("UPDATE fills SET canonical = ? WHERE id = ?", (other, number))
    db.close()
    learning = read_learning([], tmp_path / "run")

    assert learning is not None
    assert learning.fill_count > 100
    assert learning.untagged_count == mixed
    gate = learning_gate(learning)
    assert gate.verdict is (Verdict.FAILED if mixed else Verdict.PASSED)


def test_a_run_without_records_has_no_fills_to_judge(tmp_path: Path) -> None:
    run_into(tmp_path / "run", walked(), signal_origin="proxy", records=False)

    assert read_learning([], tmp_path / "run") is None


def test_a_text_that_the_contract_would_not_write_stops_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fill_texts, "units_text", lambda units, places: f"{units / 10**places:.9f}")
    setup = setup_of()
    writer, fills = RecordWriter(setup), FillWriter(setup)

    def told(stretch: Stretch) -> None:
        deque(writer.batches(stretch), maxlen=0)
        deque(fills.rows(stretch, writer.written), maxlen=0)

    with pytest.raises(InternalError, match="a fill"):
        run(setup, (told,))


def test_the_latest_order_is_before_the_bar() -> None:
    trades = np.array([[True, False], [False, True], [True, False]])

    assert latest_orders(trades).tolist() == [[-1, -1], [0, -1], [0, 1], [2, 1]]


def test_units_are_written_as_canonical_decimals() -> None:
    cases = itertools.product((0, 1, 10, 5_000, 123_456), (0, 1, 4, 9))
    for units, places in cases:
        value = Decimal(units).scaleb(-places)
        expected = f"{value:f}"
        if "." in expected:
            expected = expected.rstrip("0").rstrip(".")
        assert units_text(units, places) == expected
