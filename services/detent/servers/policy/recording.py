"""Make decisions durable; with no durable place left, only those that reduce what is held."""

import logging
from collections.abc import Sequence

from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts import events
from detent.contracts.errors import DetentError, LedgerUnavailable

log = logging.getLogger(__name__)


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
