"""Measure from a ledger whether its books have earned more capital."""

from decimal import Decimal
from pathlib import Path

from detent.core.evaluation.capital import CapitalMeasures, measure_capital
from detent.core.ledger.trade_sets import trade_sets
from detent.offline.attributing import Held, read_held
from detent.offline.backtesting.folder import read_run
from detent.offline.cells import invalid
from detent.offline.promotion.trading import measure_account


def measure_capital_of(ledger: str, baseline: Path) -> CapitalMeasures:
    """Measure the profit books of a ledger beside a back-test of what was expected of them.

    Args:
        ledger: `postgresql://`, or the SQLite file of a policy service.
        baseline: Folder of a back-test.

    Raises:
        DataInvalid: There is no decision, or no back-test.
        LedgerUnavailable: The ledger cannot be read.
    """
    held = read_held(ledger)
    run = read_run(baseline, records=False)
    expected = measure_account(run.curve, run.summary.bar_interval_ms)
    return measure_capital(
        trade_sets(held.fills),
        closes={record.record_hash: record.row.bar_close for record in held.records},
        equity=_equity(held),
        baseline_drawdown_ppm=expected.max_drawdown_ppm,
        baseline_slippage_bps_x1000=expected.slippage_bps_x1000,
    )


def _equity(held: Held) -> Decimal:
    """Add up what every book for profit began with: the equity of its first decision."""
    first: dict[str, Decimal] = {}
    for record in sorted(held.records, key=lambda one: one.ts_ms):
        if record.learning is None:
            first.setdefault(record.book, record.row.position.equity)
    if not first:
        raise invalid("ledger", "no decision for profit", "at least one")
    return sum(first.values(), Decimal(0))
