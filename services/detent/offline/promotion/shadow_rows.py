"""Read from ledgers how a candidate answered while it ran unused."""

from collections.abc import Iterator, Sequence

from detent.adapters.ledger_reading import open_reader
from detent.contracts.canonical import parse_json
from detent.contracts.json_codec import from_json
from detent.contracts.shadow import ShadowSignal
from detent.core.evaluation.measures import ServiceMeasures
from detent.core.evaluation.service_gates import ShadowRow, measure_service


def read_service(
    ledgers: Sequence[str], binding_hash: str, bar_interval_ms: int
) -> ServiceMeasures | None:
    """Measure the shadow of one binding over all ledgers; None where there is none.

    Args:
        ledgers: Ledger files, or `postgresql://` addresses.
        binding_hash: The candidate's binding, 64 hex.
        bar_interval_ms: Length of its bars.

    Raises:
        LedgerUnavailable: One cannot be read.
    """
    rows = [row for place in ledgers for row in _rows(place, binding_hash)]
    return measure_service(rows, bar_interval_ms=bar_interval_ms)


def _rows(place: str, binding_hash: str) -> Iterator[ShadowRow]:
    sql = "SELECT canonical FROM shadow_signals WHERE binding_hash = ? ORDER BY id"
    for (text,) in open_reader(place).query(sql, (binding_hash,)):
        signal = from_json(ShadowSignal, parse_json("shadow_signals", str(text).encode()))
        yield ShadowRow(ts_ms=signal.ts_ms, latency_us=signal.latency_us, reason=signal.reason)
