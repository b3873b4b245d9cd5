"""Write the one line that a call of signals leaves in the log, whatever its form."""

import logging
from collections.abc import Mapping, Sequence

from detent.adapters.serving import Serving
from detent.contracts import events
from detent.contracts.errors import DetentError
from detent.contracts.reasons import Reason
from detent.core.signals.regime_fallback import ends_the_call
from detent.rpc.call_lines import say

LOGGED_HASHES_MAX = 16
# Refusals that are the model's or the service's doing; the others are the caller's rows.
FAILURES = frozenset(
    {
        Reason.INFERENCE_DEADLINE,
        Reason.INFERENCE_OVERLOADED,
        Reason.INFERENCE_ERROR,
        Reason.OUTPUT_INVALID,
        Reason.CALIBRATION_FAILED,
    }
)

log = logging.getLogger(__name__)


def log_run(
    serving: Serving,
    refusals: Sequence[Reason],
    *,
    row_count: int,
    latency_us: int,
    error: DetentError | None,
    facts: Mapping[str, object],
) -> None:
    """Say which model was asked for how many rows, and why some have no answer of it.

    Args:
        serving: What answered.
        refusals: Of each row that the model did not answer, the reason.
        row_count: Rows that were asked for.
        latency_us: Time inside inference, microseconds.
        error: What failed, if it did.
        facts: What the form of the call adds: first symbols and hashes.
    """
    halts = bool(refusals) and ends_the_call(serving.artifact.pinned.binding)
    failed = halts or not FAILURES.isdisjoint(refusals)
    manifest = serving.artifact.manifest
    said = {
        "binding_hash": serving.artifact.pinned.binding_hash,
        "model_id": manifest.model_id,
        "model_hash": manifest.model_hash,
        "row_count": row_count,
        "refused_count": len(refusals),
        "refusals": sorted(set(refusals)),
        "latency_us": latency_us,
        **facts,
    }
    if failed:
        log.error(events.ML_INFER_ERROR, exc_info=error, extra=said)
    else:
        say(log, events.ML_INFER_OK, said)
