"""Write the records of a bar and make them durable.

With no durable place left, only decisions that reduce what is held are recorded.
"""

import logging
from collections.abc import Mapping, Sequence

from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts import events
from detent.contracts.calls.policy import DecideTargetWeightsRequest
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionRow
from detent.contracts.errors import DetentError, LedgerUnavailable
from detent.core.ledger.records import RowToDecide, record_decisions
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import ProxyAnswer
from detent.servers.policy.plans import OpenPlan
from detent.servers.policy.stand_downs import StandDowns

log = logging.getLogger(__name__)


def write_records(
    opened: OpenPlan,
    query: DecideTargetWeightsRequest,
    rows: Sequence[DecisionRow],
    *,
    outcomes: Mapping[str, ModelOutcome] | None,
    proxies: Sequence[ProxyAnswer],
    stand_downs: StandDowns,
) -> list[Written]:
    """Decide rows, each beside its proxy, and write their records."""
    book = opened.bound.plan.book
    asked = [
        RowToDecide(
            row=row,
            proxy=proxy,
            model=outcomes[row.symbol] if outcomes is not None else None,
            point=opened.chains[row.symbol].point,
            standing=stand_downs.in_force(book, row.symbol, query.ts_ms),
        )
        for row, proxy in zip(rows, proxies, strict=True)
    ]
    return [
        Written(record=one, canonical=text, record_hash=sha256_hex(text))
        for one in record_decisions(
            bound=opened.bound, ts_ms=query.ts_ms, kind=query.kind, rows=asked
        )
        for text in (one.canonical,)
    ]


async def record(
    ledger: SqliteLedger, fresh: Sequence[Written]
) -> tuple[list[Written], dict[str, DetentError]]:
    """Record every decision, or the exits alone when nothing else can be (RELIABILITY, C5).

    Args:
        ledger: Where they become durable.
        fresh: Decisions of one call, none of which has a record.

    Returns:
        What is durable, and by symbol why the others are not.

    Raises:
        LedgerUnavailable: Nothing is durable.
    """
    if not fresh:
        return [], {}
    try:
        await ledger.add_records(fresh)
    except LedgerUnavailable as error:
        exits = [item for item in fresh if is_exit(item)]
        if not exits:
            raise
        await ledger.add_records(exits, from_reserve=True)
        kept = {item.record.row.symbol for item in exits}
        log.warning(events.LEDGER_EXITS_ONLY, extra={"exits": len(exits), "rows": len(fresh)})
        symbols = [item.record.row.symbol for item in fresh]
        return exits, {symbol: error for symbol in symbols if symbol not in kept}
    return list(fresh), {}


def is_exit(written: Written) -> bool:
    """Say whether a decision leaves less than is held, on the same side or flat."""
    held_ppm = written.record.row.position.current_weight_ppm
    final_ppm = written.record.outcome.target_weight_final_ppm
    return abs(final_ppm) < abs(held_ppm) and final_ppm * held_ppm >= 0
