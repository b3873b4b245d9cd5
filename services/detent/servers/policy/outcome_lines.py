"""Say in the log what came of asking the model: once per call and reason, not once per row."""

import logging
from collections.abc import Mapping

from detent.contracts import events
from detent.contracts.reasons import Reason
from detent.core.signals.choice import ModelOutcome

log = logging.getLogger(__name__)

SYMBOLS_LOGGED_MAX = 16
KILLS = frozenset({Reason.KILL_SWITCH_ENV, Reason.KILL_SWITCH_CONFIG})


def log_outcomes(outcomes: Mapping[str, ModelOutcome], *, ts_ms: int) -> None:
    """Say once per call and reason which symbols the model answered and which it did not."""
    by_reason: dict[Reason | None, list[str]] = {}
    for symbol, outcome in outcomes.items():
        by_reason.setdefault(outcome.reason, []).append(symbol)
    for reason, symbols in by_reason.items():
        facts = {"ts_ms": ts_ms, "symbols": symbols[:SYMBOLS_LOGGED_MAX], "count": len(symbols)}
        if reason is None:
            log.info(events.ML_ACTIVE_ON, extra=facts)
        else:
            event = events.ML_KILL_SWITCH_ON if reason in KILLS else events.ML_ACTIVE_BLOCKED
            log.warning(event, extra=facts | {"reason": reason.value})
